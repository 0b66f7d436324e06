//! Parts of a file (RFC 9110 14): what a Range field asks for, and which bytes that is.
//!
//! A field that is malformed or in another unit is ignored, as 14.2 allows: the client gets the whole file.
//! So is one that asks for more bytes than the file has, or for too many parts: no request can have the same
//! bytes sent many times.

use std::ops::Range;

use super::bytes::trim;

/// The most parts that one answer has.
const MAX_PARTS: usize = 16;

/// The ranges that a field asks for, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<Spec>);

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

/// What is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// All of the file: 200.
    Whole,
    /// These bytes, of which there is at least one: 206.
    Part(Range<u64>),
    /// Two or more of such: 206 in a `multipart/byteranges`.
    Parts(Vec<Range<u64>>),
    /// The file has no such bytes: 416.
    Unsatisfiable,
}

impl Spec {
    fn parse(text: &[u8]) -> Option<Self> {
        let dash = text.iter().position(|&b| b == b'-')?;
        Some(match (&text[..dash], &text[dash + 1..]) {
            (b"", suffix) => Spec::Last(number(suffix)?),
            (first, b"") => Spec::From(number(first)?),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                // 14.1.2: a range that ends before it begins is invalid, and not merely empty.
                (first <= last).then_some(Spec::Between(first, last))?
            }
        })
    }

    /// Which bytes of a file of `size` bytes; nothing if it has none of them.
    fn of(self, size: u64) -> Option<Range<u64>> {
        let range = match self {
            Spec::From(first) => first..size,
            Spec::Between(first, last) => first..size.min(last.saturating_add(1)),
            Spec::Last(count) => size.saturating_sub(count)..size,
        };
        (!range.is_empty()).then_some(range)
    }
}

impl Ranges {
    /// Reads the value of a Range field; nothing if it is to be ignored.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let (unit, set) = value.split_at_checked(b"bytes=".len())?;
        if !unit.eq_ignore_ascii_case(b"bytes=") {
            return None;
        }
        // RFC 9110 5.6.1.2: empty elements of a list are skipped.
        let specs = set.split(|&b| b == b',').map(trim).filter(|spec| !spec.is_empty());
        let specs = specs.map(Spec::parse).collect::<Option<Vec<_>>>()?;
        (!specs.is_empty()).then_some(Ranges(specs))
    }

    /// Which bytes of a file of `size` bytes are to be sent.
    pub(crate) fn choose(&self, size: u64) -> Chosen {
        let mut parts: Vec<Range<u64>> = self.0.iter().filter_map(|spec| spec.of(size)).collect();
        if parts.is_empty() {
            // A 206 cannot describe the zero bytes of an empty file.
            let asks_for_an_end = self.0.iter().any(|spec| matches!(spec, Spec::Last(1..)));
            return if size == 0 && asks_for_an_end { Chosen::Whole } else { Chosen::Unsatisfiable };
        }
        let asked = parts.iter().fold(0u64, |sum, part| sum.saturating_add(part.end - part.start));
        if asked > size {
            return Chosen::Whole;
        }
        if parts.len() > 1 {
            parts = merged(parts);
        }
        match &*parts {
            [part] => Chosen::Part(part.clone()),
            parts if parts.len() > MAX_PARTS => Chosen::Whole,
            _ => Chosen::Parts(parts),
        }
    }
}

/// The same bytes, each once: parts that overlap become one, in the place of the first of them (RFC 9110
/// 15.3.7.2).
fn merged(parts: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted: Vec<(usize, Range<u64>)> = parts.into_iter().enumerate().collect();
    sorted.sort_unstable_by_key(|(place, part)| (part.start, *place));
    let mut merged: Vec<(usize, Range<u64>)> = Vec::new();
    for (place, part) in sorted {
        match merged.last_mut() {
            Some((first, last)) if part.start < last.end => {
                last.end = last.end.max(part.end);
                *first = place.min(*first);
            }
            _ => merged.push((place, part)),
        }
    }
    merged.sort_unstable_by_key(|(place, _)| *place);
    merged.into_iter().map(|(_, part)| part).collect()
}

/// Decimal digits and nothing else. A number that exceeds a u64 exceeds any file too.
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

    fn choose(value: &str, size: u64) -> Option<Chosen> {
        Some(Ranges::parse(value.as_bytes())?.choose(size))
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
            // Empty elements, and what the file does not have.
            ("bytes=,0-1,", 0..2),
            ("bytes=0-1, 10-20", 0..2),
            // Overlapping ones are one.
            ("bytes=0-3,2-5", 0..6),
            ("bytes=4-5,0-3,3-4", 0..6),
        ] {
            assert_eq!(choose(value, 10), Some(Chosen::Part(range)), "{value}");
        }
        for value in
            ["bytes=10-", "bytes=10-20", "bytes=99999999999999999999999-", "bytes=-0", "bytes=10-,-0"]
        {
            assert_eq!(choose(value, 10), Some(Chosen::Unsatisfiable), "{value}");
        }
    }

    #[test]
    fn several_ranges() {
        for (value, parts) in [
            ("bytes=0-1,3-4", vec![0..2, 3..5]),
            ("bytes=-1,0-0", vec![9..10, 0..1]),
            ("bytes=0-1,2-3", vec![0..2, 2..4]),
            ("bytes=5-6 ,\t0-1,1-2", vec![5..7, 0..3]),
            ("bytes=1-2,5-6,0-1", vec![0..3, 5..7]),
        ] {
            assert_eq!(choose(value, 10), Some(Chosen::Parts(parts)), "{value}");
        }
        // More bytes than there are.
        for value in ["bytes=0-,0-0", "bytes=0-9,0-9", "bytes=-6,-5"] {
            assert_eq!(choose(value, 10), Some(Chosen::Whole), "{value}");
        }
        let many =
            |count: u64| (0..count).map(|i| format!("{}-{}", i * 2, i * 2)).collect::<Vec<_>>().join(",");
        assert!(
            matches!(choose(&format!("bytes={}", many(16)), 100), Some(Chosen::Parts(parts)) if parts.len() == 16)
        );
        assert_eq!(choose(&format!("bytes={}", many(17)), 100), Some(Chosen::Whole));
    }

    #[test]
    fn what_is_ignored() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-",
            "bytes=1-a",
            "bytes=5-4",
            "bytes=0-1,x",
            "bytes=0-1;3-4",
            "bytes =0-1",
            "seconds=0-1",
            "bytes=+1-2",
            "bytes=1--2",
            "bytes=1 -2",
            "0-1",
            "bytes=0-1, bytes=3-4",
            "bytes=\u{661}-",
        ] {
            assert_eq!(choose(value, 10), None, "{value}");
        }
    }

    #[test]
    fn an_empty_file_has_no_first_byte_but_an_end() {
        assert_eq!(choose("bytes=0-", 0), Some(Chosen::Unsatisfiable));
        assert_eq!(choose("bytes=0-0", 0), Some(Chosen::Unsatisfiable));
        assert_eq!(choose("bytes=-0", 0), Some(Chosen::Unsatisfiable));
        assert_eq!(choose("bytes=-5", 0), Some(Chosen::Whole));
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

        /// Several parts hold the bytes that were asked for, each once.
        #[test]
        fn parts_hold_what_was_asked_for(asked in prop::collection::vec((0..60u64, 0..8u64), 1..12), size in 1..60u64) {
            let text: Vec<String> = asked.iter().map(|(first, more)| format!("{first}-{}", first + more)).collect();
            let mut wanted: Vec<u64> = asked.iter().flat_map(|(first, more)| *first..=first + more).filter(|b| *b < size).collect();
            let total = wanted.len() as u64;
            wanted.sort_unstable();
            wanted.dedup();
            let parts = match choose(&format!("bytes={}", text.join(",")), size).unwrap() {
                Chosen::Whole => {
                    prop_assert!(total > size);
                    return Ok(());
                }
                Chosen::Unsatisfiable => vec![],
                Chosen::Part(part) => vec![part],
                Chosen::Parts(parts) => parts,
            };
            let mut got: Vec<u64> = parts.into_iter().flatten().collect();
            got.sort_unstable();
            prop_assert_eq!(got, wanted);
        }

        #[test]
        fn no_text_is_too_odd(value in any::<Vec<u8>>(), size in any::<u64>()) {
            let ranges = [Ranges::parse(&value), Ranges::parse(&[&b"bytes="[..], &value].concat())];
            for ranges in ranges.into_iter().flatten() {
                if let Chosen::Part(range) = ranges.choose(size) {
                    prop_assert!(range.start < range.end && range.end <= size);
                }
            }
        }
    }
}
