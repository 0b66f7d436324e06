//! Accept-Encoding (RFC 9110 12.5.3): which codings of a file a client accepts, and which it prefers.

use super::bytes::trim;

/// A coding that a file may lie beside its original in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// `br`: RFC 7932.
    Brotli,
    /// `zstd`: RFC 8878.
    Zstd,
    /// `gzip`: RFC 1952.
    Gzip,
}

impl Coding {
    /// All of them. Where a client prefers none, the first one is sent: its files are the smallest.
    pub(crate) const ALL: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

    /// The word in header fields.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
            Coding::Gzip => "gzip",
        }
    }

    /// What the file's name ends with.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Coding::Brotli => ".br",
            Coding::Zstd => ".zst",
            Coding::Gzip => ".gz",
        }
    }
}

/// The weight that a client gives each coding, in thousandths; 0 refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Encodings {
    codings: [u16; 3],
    identity: u16,
}

impl Default for Encodings {
    /// A client that says nothing accepts any coding (12.5.3), but most of these clients can decode none.
    fn default() -> Self {
        Self { codings: [0; 3], identity: 1000 }
    }
}

impl Encodings {
    /// Reads an Accept-Encoding field, of which there may be several.
    pub(crate) fn parse<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let (mut codings, mut identity, mut any) = ([None; 3], None, None);
        for element in values.flat_map(|value| value.split(|&b| b == b',')) {
            let mut parts = element.split(|&b| b == b';').map(trim);
            let name = parts.next().unwrap_or_default();
            let quality = parts.find_map(quality).unwrap_or(1000);
            let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
            if is("*") {
                any = Some(quality);
            } else if is("identity") {
                identity = Some(quality);
            } else if let Some(at) = Coding::ALL.iter().position(|coding| is(coding.name())) {
                codings[at] = Some(quality);
            } else if is("x-gzip") {
                codings[2] = Some(quality);
            }
        }
        Self {
            codings: codings.map(|quality| quality.or(any).unwrap_or(0)),
            // An uncoded file that is not named is acceptable, except with `*;q=0`; a client that names
            // codings prefers those.
            identity: identity.unwrap_or(if any == Some(0) { 0 } else { 1 }),
        }
    }

    /// Whether a coding may be better than none.
    pub(crate) fn any(&self) -> bool {
        self.codings.iter().any(|&quality| quality > 0 && quality >= self.identity)
    }

    /// The codings that the client gives at least the weight of an uncoded file, best first.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = Coding> {
        let identity = self.identity;
        let mut order: [(u16, Coding); 3] = std::array::from_fn(|at| (self.codings[at], Coding::ALL[at]));
        order.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality));
        order
            .into_iter()
            .filter(move |(quality, _)| *quality > 0 && *quality >= identity)
            .map(|(_, coding)| coding)
    }
}

/// `q=0.5` in thousandths (RFC 9110 12.4.2); nothing for another parameter. A weight that cannot be read
/// is 0.
pub(crate) fn quality(parameter: &[u8]) -> Option<u16> {
    let (b'q' | b'Q', rest) = parameter.split_first()? else { return None };
    let value = trim(trim(rest).strip_prefix(b"=")?);
    let (whole, digits) = match value {
        [whole, b'.', digits @ ..] => (whole, digits),
        [whole] => (whole, &b""[..]),
        _ => return Some(0),
    };
    if digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return Some(0);
    }
    let parts =
        [100, 10, 1].iter().zip(digits).map(|(unit, digit)| unit * u16::from(digit - b'0')).sum::<u16>();
    Some(match (whole, parts) {
        (b'0', parts) => parts,
        (b'1', 0) => 1000,
        _ => 0,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(value: &str) -> String {
        let parsed = Encodings::parse(value.split('|').map(str::as_bytes));
        parsed.in_order().map(Coding::name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_clients_like() {
        for (value, expected) in [
            ("gzip, deflate, br, zstd", "br zstd gzip"),
            ("gzip", "gzip"),
            ("x-gzip", "gzip"),
            ("GZIP;Q=0.5 , br ; q = 0.4", "gzip br"),
            ("*", "br zstd gzip"),
            ("*;q=0.1, gzip", "gzip br zstd"),
            ("br;q=0, *", "zstd gzip"),
            ("gzip;q=0", ""),
            ("gzip;q=0.000", ""),
            ("identity, gzip;q=0.5", ""),
            ("identity;q=0.5, gzip;q=0.5", "gzip"),
            ("identity;q=0, gzip;q=0.001", "gzip"),
            ("gzip;q=1.5", ""),
            ("gzip;q=abc", ""),
            ("gzip;level=9;q=0.5", "gzip"),
            ("", ""),
            ("deflate", ""),
            ("gzip|br", "br gzip"),
        ] {
            assert_eq!(order(value), expected, "{value}");
        }
        assert_eq!(Encodings::default().in_order().count(), 0);
        assert!(!Encodings::default().any() && Encodings::parse([&b"br"[..]].into_iter()).any());
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(value in any::<Vec<u8>>()) {
            Encodings::parse([&value[..]].into_iter()).in_order().count();
        }
    }
}
