//! Conditional requests (RFC 9110 13): what a client makes its request depend on, and what comes of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::etag;
use super::range::Ranges;

/// The conditions and ranges of a request. Most requests have none, so they lie in memory of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Conditions {
    /// If-Match: a list, all lines joined.
    pub(crate) if_match: Option<Vec<u8>>,
    /// If-None-Match, the same.
    pub(crate) if_none_match: Option<Vec<u8>>,
    /// If-Modified-Since.
    pub(crate) if_modified_since: Moment,
    /// If-Unmodified-Since.
    pub(crate) if_unmodified_since: Moment,
    /// Range, where it is to be heeded.
    pub(crate) ranges: Option<Ranges>,
    /// If-Range.
    pub(crate) if_range: IfRange,
}

/// A field whose value is one date.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Moment {
    /// There is none.
    #[default]
    Absent,
    /// Seconds since 1970.
    At(u64),
    /// It is no date, or there are several: ignored (RFC 9110 13.1.3, 13.1.4).
    Unreadable,
}

/// RFC 9110 13.1.5: what If-Range says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum IfRange {
    /// There is no If-Range.
    #[default]
    Absent,
    /// The file must have been written at this second.
    WrittenAt(u64),
    /// The file must have this tag.
    Tag(Vec<u8>),
    /// Neither of both, or several: the whole file, always.
    Never,
}

/// What the file that is asked for is like now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Validators<'a> {
    /// Its entity tag, as in the header line.
    pub(crate) tag: &'a [u8],
    /// When it was last written.
    pub(crate) modified: SystemTime,
}

/// What comes of the conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As if there were none.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

impl Moment {
    /// Reads one more line of the field.
    pub(crate) fn take(&mut self, value: &[u8]) {
        *self = match self {
            Moment::Absent => date(value).map_or(Moment::Unreadable, Moment::At),
            _ => Moment::Unreadable,
        };
    }
}

impl IfRange {
    /// Reads one more line of the field.
    pub(crate) fn take(&mut self, value: &[u8]) {
        *self = match self {
            IfRange::Absent if etag::is_tag(value) => IfRange::Tag(value.to_vec()),
            IfRange::Absent => date(value).map_or(IfRange::Never, IfRange::WrittenAt),
            // A second one contradicts the first, or says nothing new.
            _ => IfRange::Never,
        };
    }

    /// Whether the range applies. A date must be the file's own and a strong validator, which it is once the
    /// second in which the file was written has passed (8.8.2.2): within it, the file may have been written
    /// twice.
    pub(crate) fn holds(&self, file: &Validators<'_>, now: SystemTime) -> bool {
        match self {
            IfRange::Absent => true,
            IfRange::WrittenAt(date) => {
                second(file.modified) == Some(*date)
                    && now.duration_since(file.modified).is_ok_and(|age| age > Duration::from_secs(1))
            }
            // `*` is no tag, so it never gets here.
            IfRange::Tag(tag) => etag::matches_strongly(tag, file.tag),
            IfRange::Never => false,
        }
    }
}

impl Conditions {
    /// RFC 9110 13.2.2, in its order, for GET and HEAD of a file that is there.
    pub(crate) fn verdict(&self, file: &Validators<'_>) -> Verdict {
        let modified = second(file.modified);
        let passes = match (&self.if_match, self.if_unmodified_since) {
            (Some(list), _) => etag::matches_strongly(list, file.tag),
            (None, Moment::At(date)) => modified.is_none_or(|modified| modified <= date),
            (None, _) => true,
        };
        if !passes {
            return Verdict::Failed;
        }
        let unchanged = match (&self.if_none_match, self.if_modified_since) {
            (Some(list), _) => etag::matches_weakly(list, file.tag),
            (None, Moment::At(date)) => modified.is_some_and(|modified| modified <= date),
            (None, _) => false,
        };
        if unchanged { Verdict::NotModified } else { Verdict::Proceed }
    }
}

/// Adds a line to a list that may have several (RFC 9110 5.3).
pub(crate) fn join(list: &mut Option<Vec<u8>>, value: &[u8]) {
    match list {
        None => *list = Some(value.to_vec()),
        Some(list) => {
            list.extend_from_slice(b", ");
            list.extend_from_slice(value);
        }
    }
}

/// An HTTP date in any of its three forms, in seconds since 1970.
fn date(value: &[u8]) -> Option<u64> {
    second(httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?)
}

/// Seconds since 1970; nothing before.
fn second(time: SystemTime) -> Option<u64> {
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sunday, 06-Nov-94 08:49:38 GMT";
    const WRITTEN: Duration = Duration::from_millis(784_111_777_900);

    fn file(tag: &str) -> Validators<'_> {
        Validators { tag: tag.as_bytes(), modified: UNIX_EPOCH + WRITTEN }
    }

    fn verdict(lines: &[(&str, &str)], tag: &str) -> Verdict {
        let mut conditions = Conditions::default();
        for (name, value) in lines {
            let value = value.as_bytes();
            match *name {
                "IM" => join(&mut conditions.if_match, value),
                "INM" => join(&mut conditions.if_none_match, value),
                "IMS" => conditions.if_modified_since.take(value),
                _ => conditions.if_unmodified_since.take(value),
            }
        }
        conditions.verdict(&file(tag))
    }

    #[test]
    fn the_order_of_13_2_2() {
        use Verdict::{Failed, NotModified, Proceed};
        for (lines, expected) in [
            (&[][..], Proceed),
            (&[("IM", "\"a\"")], Proceed),
            (&[("IM", "*")], Proceed),
            (&[("IM", "\"b\", \"c\"")], Failed),
            (&[("IM", "W/\"a\"")], Failed),
            (&[("IM", "rubbish")], Failed),
            (&[("IM", "\"b\""), ("IM", "\"a\"")], Proceed),
            (&[("IUS", DATE)], Proceed),
            (&[("IUS", AFTER)], Proceed),
            (&[("IUS", BEFORE)], Failed),
            (&[("IUS", "yesterday")], Proceed),
            (&[("IUS", BEFORE), ("IUS", BEFORE)], Proceed),
            // If-Match outranks If-Unmodified-Since, in both directions.
            (&[("IM", "\"a\""), ("IUS", BEFORE)], Proceed),
            (&[("IM", "\"b\""), ("IUS", AFTER)], Failed),
            (&[("INM", "\"a\"")], NotModified),
            (&[("INM", "W/\"a\"")], NotModified),
            (&[("INM", "\"b\", W/\"a\"")], NotModified),
            (&[("INM", "*")], NotModified),
            (&[("INM", "\"b\"")], Proceed),
            (&[("IMS", DATE)], NotModified),
            (&[("IMS", AFTER)], NotModified),
            (&[("IMS", BEFORE)], Proceed),
            (&[("IMS", "")], Proceed),
            // If-None-Match outranks If-Modified-Since, in both directions.
            (&[("INM", "\"b\""), ("IMS", AFTER)], Proceed),
            (&[("INM", "\"a\""), ("IMS", BEFORE)], NotModified),
            // The preconditions come before the cache's questions.
            (&[("IM", "\"b\""), ("INM", "\"a\"")], Failed),
            (&[("IM", "\"a\""), ("INM", "\"a\"")], NotModified),
            (&[("IUS", BEFORE), ("IMS", AFTER)], Failed),
        ] {
            assert_eq!(verdict(lines, "\"a\""), expected, "{lines:?}");
        }
        assert_eq!(verdict(&[("IM", "W/\"a\"")], "W/\"a\""), Failed);
        assert_eq!(verdict(&[("IM", "*")], "W/\"a\""), Proceed);
        assert_eq!(verdict(&[("INM", "\"a\"")], "W/\"a\""), NotModified);
    }

    #[test]
    fn a_range_is_heeded_for_the_same_tag_or_the_same_second_that_is_over() {
        let now = UNIX_EPOCH + WRITTEN + Duration::from_secs(5);
        let holds = |values: &[&str], tag: &str, now: SystemTime| {
            let mut if_range = IfRange::default();
            values.iter().for_each(|value| if_range.take(value.as_bytes()));
            if_range.holds(&file(tag), now)
        };
        assert!(holds(&[], "\"a\"", now));
        assert!(holds(&["\"a\""], "\"a\"", now));
        assert!(!holds(&["W/\"a\""], "W/\"a\"", now));
        assert!(!holds(&["\"a\""], "W/\"a\"", now));
        assert!(holds(&[DATE], "\"a\"", now));
        // It may be written again within its second, and look the same.
        assert!(!holds(&[DATE], "\"a\"", UNIX_EPOCH + WRITTEN + Duration::from_millis(50)));
        assert!(!holds(&[DATE], "\"a\"", UNIX_EPOCH));
        for other in
            [&[BEFORE][..], &[AFTER], &["*"], &["\"b\""], &["\"a\", \"b\""], &[""], &["x"], &[DATE, DATE]]
        {
            assert!(!holds(other, "\"a\"", now), "{other:?}");
        }
    }
}
