//! Parts of a file (RFC 9110 14): what a Range field asks for, and which bytes that is.
//!
//! One range is served; a field that names several is ignored, as 14.2 allows, so that no request can ask for the same
//! bytes many times over. So is one that is malformed or in another unit: the client gets the whole file.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::fields::trim;

/// What one request says about parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Which bytes.
    spec: Spec,
    /// Only if the file is still as it was then.
    condition: Condition,
}

/// RFC 9110 14.1.2: the three forms of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spec {
    /// `5-`: from this byte to the end.
    From(u64),
    /// `5-9`: from the first byte to the last, which is counted in.
    Between(u64, u64),
    /// `-5`: the last so many bytes.
    Last(u64),
}

/// RFC 9110 13.1.5: what If-Range says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Condition {
    /// There is no If-Range.
    #[default]
    None,
    /// The file must have been written at this second.
    WrittenAt(u64),
    /// An entity tag, which this server never gave anybody, or what is neither: the whole file, always.
    Never,
}

/// What is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// All of the file: 200.
    Whole,
    /// These bytes, of which there is at least one: 206.
    Part(Range<u64>),
    /// The file has no such bytes: 416.
    Unsatisfiable,
}

impl Part {
    /// Reads the value of a Range field; nothing if it is to be ignored.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let (unit, set) = value.split_at_checked(b"bytes=".len())?;
        if !unit.eq_ignore_ascii_case(b"bytes=") {
            return None;
        }
        let set = trim(set);
        let dash = set.iter().position(|&b| b == b'-')?;
        let spec = match (&set[..dash], &set[dash + 1..]) {
            (b"", suffix) => Spec::Last(number(suffix)?),
            (first, b"") => Spec::From(number(first)?),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                // 14.1.2: a range that ends before it begins is invalid, and not merely empty.
                (first <= last).then_some(Spec::Between(first, last))?
            }
        };
        Some(Part { spec, condition: Condition::None })
    }

    /// The same, under the condition of an If-Range field.
    pub(crate) fn only_if(self, condition: Condition) -> Self {
        Part { condition, ..self }
    }

    /// Which bytes of a file of `size` bytes that was last written at `modified` are to be sent `now`.
    pub(crate) fn choose(self, size: u64, modified: SystemTime, now: SystemTime) -> Chosen {
        if !self.condition.holds(modified, now) {
            return Chosen::Whole;
        }
        let range = match self.spec {
            Spec::From(first) => first..size,
            Spec::Between(first, last) => first..size.min(last.saturating_add(1)),
            Spec::Last(0) => return Chosen::Unsatisfiable,
            // All that there is of an empty file is nothing, which a 206 cannot say.
            Spec::Last(_) if size == 0 => return Chosen::Whole,
            Spec::Last(count) => size.saturating_sub(count)..size,
        };
        if range.is_empty() { Chosen::Unsatisfiable } else { Chosen::Part(range) }
    }
}

impl Condition {
    /// Reads the value of an If-Range field.
    pub(crate) fn parse(value: &[u8]) -> Self {
        let date = std::str::from_utf8(value).ok().and_then(|text| httpdate::parse_http_date(text).ok());
        date.and_then(second).map_or(Condition::Never, Condition::WrittenAt)
    }

    /// RFC 9110 13.1.5: the date must be the file's own and be a strong validator, which it is once the second in which
    /// the file was written lies behind us (8.8.2.2): within it, the file may have been written twice.
    fn holds(self, modified: SystemTime, now: SystemTime) -> bool {
        match self {
            Condition::None => true,
            Condition::WrittenAt(date) => {
                second(modified) == Some(date)
                    && now.duration_since(modified).is_ok_and(|age| age > Duration::from_secs(1))
            }
            Condition::Never => false,
        }
    }
}

/// Seconds since 1970; nothing before.
fn second(time: SystemTime) -> Option<u64> {
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// Decimal digits and nothing else. What is beyond a u64 is beyond any file too.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let sum =
        digits.iter().fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: SystemTime = UNIX_EPOCH;

    fn choose(value: &str, size: u64) -> Option<Chosen> {
        Some(Part::parse(value.as_bytes())?.choose(size, NOW, NOW))
    }

    #[test]
    fn ranges_of_a_file_of_ten_bytes() {
        for (value, range) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-", 0..10),
            ("bytes=3-5", 3..6),
            ("bytes=9-", 9..10),
            ("bytes=5-1000", 5..10),
            ("bytes=-1", 9..10),
            ("bytes=-1000", 0..10),
            ("Bytes= 2-3 ", 2..4),
            ("bytes=0-99999999999999999999999", 0..10),
        ] {
            assert_eq!(choose(value, 10), Some(Chosen::Part(range)), "{value}");
        }
        for value in ["bytes=10-", "bytes=10-20", "bytes=99999999999999999999999-", "bytes=-0"] {
            assert_eq!(choose(value, 10), Some(Chosen::Unsatisfiable), "{value}");
        }
    }

    #[test]
    fn what_is_ignored() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-",
            "bytes=1-a",
            "bytes=5-4",
            "bytes=0-1,3-4",
            "bytes=0-1,",
            "bytes =0-1",
            "seconds=0-1",
            "bytes=+1-2",
            "bytes=1--2",
            "bytes=1 -2",
            "0-1",
            "bytes=\u{661}-",
        ] {
            assert_eq!(choose(value, 10), None, "{value}");
        }
    }

    #[test]
    fn an_empty_file_has_no_first_byte_but_an_end() {
        assert_eq!(choose("bytes=0-", 0), Some(Chosen::Unsatisfiable));
        assert_eq!(choose("bytes=0-0", 0), Some(Chosen::Unsatisfiable));
        assert_eq!(choose("bytes=-5", 0), Some(Chosen::Whole));
    }

    #[test]
    fn a_condition_holds_for_the_same_second_that_is_over() {
        let part = |condition: &str| {
            Part::parse(b"bytes=1-").unwrap().only_if(Condition::parse(condition.as_bytes()))
        };
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let written = UNIX_EPOCH + Duration::from_millis(784_111_777_900);
        let later = |ms| written + Duration::from_millis(ms);
        assert_eq!(part(date).choose(10, written, later(1001)), Chosen::Part(1..10));
        // It may be written again within its second, and look the same.
        assert_eq!(part(date).choose(10, written, later(50)), Chosen::Whole);
        assert_eq!(part(date).choose(10, later(1000), later(9000)), Chosen::Whole);
        assert_eq!(part(date).choose(10, written, UNIX_EPOCH), Chosen::Whole);
        for other in ["\"tag\"", "W/\"tag\"", "", "yesterday", "\u{e9}"] {
            assert_eq!(part(other).choose(10, written, later(5000)), Chosen::Whole, "{other}");
        }
    }

    proptest! {
        /// Whatever a client sends, what is chosen lies within the file and is what the text says.
        #[test]
        fn what_is_chosen_is_in_the_file(first in 0..50u64, last in 0..50u64, size in 0..40u64) {
            let bytes: Vec<u64> = (0..size).collect();
            let expect = |wanted: Vec<u64>| wanted.first().map(|first| *first..first + wanted.len() as u64);
            let got = |value: String| match choose(&value, size) {
                Some(Chosen::Part(range)) => Some(range),
                Some(Chosen::Whole) if size > 0 => Some(0..size),
                _ => None,
            };
            let from = bytes.iter().copied().filter(|b| *b >= first).collect::<Vec<_>>();
            prop_assert_eq!(got(format!("bytes={first}-")), expect(from.clone()));
            let between = from.into_iter().filter(|b| *b <= last).collect();
            prop_assert_eq!(got(format!("bytes={first}-{last}")), expect(between));
            let suffix = bytes.iter().copied().filter(|b| b + last >= size).collect();
            prop_assert_eq!(got(format!("bytes=-{last}")), expect(suffix));
        }

        #[test]
        fn no_text_is_too_odd(value in any::<Vec<u8>>(), size in any::<u64>()) {
            if let Some(Chosen::Part(range)) = Part::parse(&value).map(|part| part.choose(size, NOW, NOW)) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
            Condition::parse(&value);
        }
    }
}
