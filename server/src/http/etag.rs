//! Entity tags (RFC 9110 8.8.3): how ours are made, and how those that clients send are compared.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::bytes::trim;

/// A file that was written to less than so long ago may be written to again and look the same: file systems
/// count their times in ticks, FAT's in steps of two seconds.
pub(crate) const SETTLES_AFTER: Duration = Duration::from_secs(2);

/// Of what a tag is made: what changes when the file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    /// In bytes.
    pub(crate) size: u64,
    /// When the content was last written.
    pub(crate) modified: SystemTime,
    /// When anything of the file was last changed: it tells two files of the same size that were given the
    /// same time of modification, as builds do that can be repeated.
    pub(crate) changed: SystemTime,
    /// Which file it is.
    pub(crate) inode: u64,
}

impl Version {
    /// Whether the tag is a strong one at `now`.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        // A time in the future is no recent change: the tag is a strong one.
        now.duration_since(self.modified).map_or(true, |age| age >= SETTLES_AFTER)
    }

    /// The tag as it stands in a header line; `suffix` tells a file that was compressed beforehand from the
    /// one that it is made of.
    pub(crate) fn tag(&self, strong: bool, suffix: &str) -> String {
        let weak = if strong { "" } else { "W/" };
        let (modified, changed) = (nanoseconds(self.modified), nanoseconds(self.changed));
        // The second time and the inode are a sum: they only tell versions apart, and the tag stays short.
        let rest =
            (changed as u64).rotate_left(32).wrapping_add(self.inode).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("{weak}\"{modified:x}-{:x}-{:x}{suffix}\"", self.size, rest >> 24)
    }
}

fn nanoseconds(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}

/// Whether a list of a client, `*` or tags, names `tag` by the strong comparison (RFC 9110 8.8.3.2).
pub(crate) fn matches_strongly(list: &[u8], tag: &[u8]) -> bool {
    is_any(list) || (!tag.starts_with(b"W/") && tags(list).any(|one| one == tag))
}

/// Whether it names `tag` by the weak comparison.
pub(crate) fn matches_weakly(list: &[u8], tag: &[u8]) -> bool {
    is_any(list) || tags(list).any(|one| opaque(one) == opaque(tag))
}

/// Whether `value` is one tag and nothing else.
pub(crate) fn is_tag(value: &[u8]) -> bool {
    next(value).is_some_and(|(_, rest)| rest.is_empty())
}

fn is_any(list: &[u8]) -> bool {
    trim(list) == b"*"
}

fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// The tags of a list, up to what is none.
fn tags(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        // RFC 9110 5.6.1.2: empty elements are skipped.
        while let [b' ' | b'\t' | b',', rest @ ..] = list {
            list = rest;
        }
        let (tag, rest) = next(list)?;
        let rest = trim(rest);
        if !matches!(rest, [] | [b',', ..]) {
            list = b"";
            return None;
        }
        list = rest;
        Some(tag)
    })
}

/// The tag that `text` begins with, and what follows it.
fn next(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let begin = if text.starts_with(b"W/\"") { 3 } else { 1 };
    if text.get(begin - 1) != Some(&b'"') {
        return None;
    }
    let len = memchr::memchr(b'"', &text[begin..])?;
    // RFC 9110 8.8.3: etagc, which is anything that can be seen but the quotation mark.
    let good = text[begin..begin + len].iter().all(|&b| b > b' ' && b != 0x7f);
    good.then(|| text.split_at(begin + len + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn comparisons() {
        // RFC 9110 8.8.3.2, the table.
        for (one, other, strong, weak) in [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "W/\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
        ] {
            assert_eq!(matches_strongly(one.as_bytes(), other.as_bytes()), strong, "{one} {other}");
            assert_eq!(matches_weakly(one.as_bytes(), other.as_bytes()), weak, "{one} {other}");
        }
    }

    #[test]
    fn lists() {
        for list in [
            "\"a\"",
            "\"x\",\"a\"",
            " , \"x\" ,, W/\"y\"\t, \"a\" ,",
            "*",
            " * ",
            "\"a\", bad",
            "\"x,\",\"a\"",
        ] {
            assert!(matches_strongly(list.as_bytes(), b"\"a\""), "{list}");
        }
        for list in [
            "",
            "a",
            "\"b\"",
            "\"a",
            "a\"",
            "w/\"a\"",
            "bad, \"a\"",
            "\"a\"\"a\"",
            "\"x\" \"a\"",
            "*, \"b\"",
            "**",
            "\"a \"",
        ] {
            assert!(!matches_weakly(list.as_bytes(), b"\"a\""), "{list}");
        }
        for (text, is) in
            [("\"a\"", true), ("W/\"\"", true), ("\"a\",\"b\"", false), ("a", false), ("\"a", false)]
        {
            assert_eq!(is_tag(text.as_bytes()), is, "{text}");
        }
    }

    #[test]
    fn tags_are_tags_and_tell_versions_apart() {
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        let version = Version { size: 10, modified: at(1), changed: at(2), inode: 3 };
        let tag = version.tag(true, "");
        assert!(is_tag(tag.as_bytes()), "{tag}");
        assert_eq!(version.tag(false, ""), format!("W/{tag}"));
        for other in [
            Version { size: 11, ..version },
            Version { modified: at(3), ..version },
            Version { changed: at(3), ..version },
            Version { inode: 4, ..version },
            Version { modified: UNIX_EPOCH - Duration::from_secs(1), ..version },
        ] {
            assert_ne!(other.tag(true, ""), tag, "{other:?}");
        }
        assert_ne!(version.tag(true, "-br"), tag);
        assert!(!version.is_settled(at(2000)) && version.is_settled(at(2001)) && version.is_settled(at(0)));
    }

    proptest! {
        #[test]
        fn what_is_in_a_list_is_found(tags in prop::collection::vec("(W/)?\"[!#-~]{0,6}\"", 1..6), which in any::<prop::sample::Index>()) {
            let list = tags.join(" ,");
            let one = &tags[which.index(tags.len())];
            prop_assert!(matches_weakly(list.as_bytes(), one.as_bytes()));
            prop_assert_eq!(matches_strongly(list.as_bytes(), one.as_bytes()), !one.starts_with("W/"));
        }

        #[test]
        fn no_list_is_too_odd(list in any::<Vec<u8>>()) {
            matches_strongly(&list, b"\"a\"");
            matches_weakly(&list, b"\"a\"");
        }
    }
}
