//! What of a file an answer holds: conditions first, then ranges (RFC 9110 13.2.2).

use std::time::SystemTime;

use super::conditions::{Conditions, Validators, Verdict};
use super::method::Method;
use super::range::Chosen;

/// What is answered about a file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The file, or parts of it, or that it does not have them.
    Send(Chosen),
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
}

/// Decides what to answer to a GET or HEAD about a file of `size` bytes.
pub(crate) fn choose(
    method: Method,
    conditions: &Conditions,
    file: &Validators<'_>,
    size: u64,
    now: SystemTime,
) -> Choice {
    match conditions.verdict(file) {
        Verdict::NotModified => return Choice::NotModified,
        Verdict::Failed => return Choice::PreconditionFailed,
        Verdict::Proceed => {}
    }
    let Some(ranges) = &conditions.ranges else {
        return Choice::Send(Chosen::Whole);
    };
    // Ranges are defined for GET only (14.2).
    if method != Method::Get || !conditions.if_range.holds(file, now) {
        return Choice::Send(Chosen::Whole);
    }
    Choice::Send(ranges.choose(size))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::conditions::IfRange;
    use super::super::range::Ranges;
    use super::*;

    #[test]
    fn conditions_come_before_ranges() {
        let modified = UNIX_EPOCH + Duration::from_secs(1000);
        let file = Validators { tag: b"\"a\"", modified };
        let now = modified + Duration::from_secs(1000);
        let ranges = Ranges::parse(b"bytes=1-2");
        let ask = |method, conditions: Conditions| choose(method, &conditions, &file, 10, now);
        let with = |tag: &[u8]| Conditions {
            ranges: ranges.clone(),
            if_none_match: Some(tag.to_vec()),
            ..Conditions::default()
        };
        assert_eq!(ask(Method::Get, with(b"\"a\"")), Choice::NotModified);
        assert_eq!(ask(Method::Get, with(b"\"b\"")), Choice::Send(Chosen::Part(1..3)));
        assert_eq!(ask(Method::Head, with(b"\"b\"")), Choice::Send(Chosen::Whole));
        let with = |tag: &[u8]| Conditions {
            ranges: ranges.clone(),
            if_match: Some(tag.to_vec()),
            ..Conditions::default()
        };
        assert_eq!(ask(Method::Get, with(b"\"b\"")), Choice::PreconditionFailed);
        let with = |if_range| Conditions { ranges: ranges.clone(), if_range, ..Conditions::default() };
        assert_eq!(ask(Method::Get, with(IfRange::Tag(b"\"b\"".to_vec()))), Choice::Send(Chosen::Whole));
        assert_eq!(ask(Method::Get, with(IfRange::Tag(b"\"a\"".to_vec()))), Choice::Send(Chosen::Part(1..3)));
        // Unsatisfiable is only said when the range was to be heeded.
        let beyond = Conditions {
            ranges: Ranges::parse(b"bytes=10-"),
            if_range: IfRange::Never,
            ..Conditions::default()
        };
        assert_eq!(ask(Method::Get, beyond), Choice::Send(Chosen::Whole));
    }
}
