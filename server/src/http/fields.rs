//! The header fields that decide about framing, host and persistence (RFC 9110 7.2, RFC 9112 6 and 9).

use super::Refusal;
use super::range::{Condition, Part};

/// What the header lines of one request say about the things that this server heeds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    /// There is exactly one Host line, and it is well-formed.
    pub(crate) has_host: bool,
    /// The one Content-Length, in bytes.
    pub(crate) content_length: Option<u64>,
    /// There is a Transfer-Encoding, whatever it says.
    pub(crate) has_transfer_encoding: bool,
    /// Connection names `close`.
    pub(crate) close: bool,
    /// Connection names `keep-alive`.
    pub(crate) keep_alive: bool,
    /// Expect says `100-continue`.
    pub(crate) expect_continue: bool,
    /// Range and If-Range, where they are to be heeded.
    pub(crate) part: Option<Part>,
}

impl Fields {
    /// Goes through the header lines once.
    pub(crate) fn gather(lines: &[httparse::Header<'_>]) -> Result<Self, Refusal> {
        let mut fields = Fields::default();
        let (mut ranges, mut condition) = (0, Condition::None);
        for line in lines {
            let value = trim(line.value);
            match line.name {
                name if name.eq_ignore_ascii_case("host") => {
                    if fields.has_host {
                        return Err(Refusal::bad("more than one Host field"));
                    }
                    if !value.is_empty() && !is_host_and_port(value) {
                        return Err(Refusal::bad("the Host field is not a host with an optional port"));
                    }
                    fields.has_host = true;
                }
                name if name.eq_ignore_ascii_case("content-length") => {
                    // Equal repeats could be folded into one (RFC 9112 6.3), but nobody honest sends them.
                    if fields.content_length.is_some() {
                        return Err(Refusal::bad("more than one Content-Length field"));
                    }
                    fields.content_length = Some(length(value)?);
                }
                name if name.eq_ignore_ascii_case("transfer-encoding") => fields.has_transfer_encoding = true,
                name if name.eq_ignore_ascii_case("connection") => {
                    for option in value.split(|&b| b == b',').map(trim) {
                        fields.close |= option.eq_ignore_ascii_case(b"close");
                        fields.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                name if name.eq_ignore_ascii_case("expect") => {
                    fields.expect_continue |= value.eq_ignore_ascii_case(b"100-continue");
                }
                name if name.eq_ignore_ascii_case("range") => {
                    ranges += 1;
                    fields.part = Part::parse(value);
                }
                name if name.eq_ignore_ascii_case("if-range") => {
                    // A second one contradicts the first, or says nothing new.
                    condition =
                        if condition == Condition::None { Condition::parse(value) } else { Condition::Never };
                }
                _ => {}
            }
        }
        // Two lines are a list of two ranges (RFC 9110 5.3).
        fields.part = fields.part.filter(|_| ranges == 1).map(|part| part.only_if(condition));
        Ok(fields)
    }
}

/// A Content-Length: decimal digits and nothing else, no sign, no list (RFC 9110 8.6).
fn length(value: &[u8]) -> Result<u64, Refusal> {
    const BAD: Refusal = Refusal::bad("Content-Length is not one decimal number");
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(BAD);
    }
    value.iter().try_fold(0u64, |sum, digit| {
        sum.checked_mul(10).and_then(|sum| sum.checked_add(u64::from(digit - b'0'))).ok_or(BAD)
    })
}

/// Whether `value` is `uri-host [ ":" port ]` (RFC 9110 7.2, RFC 3986 3.2.2), with a host that is not empty.
///
/// No user name: `http://trusted@evil/` is a trick, not an address.
pub(crate) fn is_host_and_port(value: &[u8]) -> bool {
    let (host_ok, rest) = if value.first() == Some(&b'[') {
        let Some(end) = value.iter().position(|&b| b == b']') else {
            return false;
        };
        let literal = &value[1..end];
        let address = literal.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b':' | b'.'));
        (!literal.is_empty() && address, &value[end + 1..])
    } else {
        let end = value.iter().position(|&b| b == b':').unwrap_or(value.len());
        (end > 0 && value[..end].iter().all(|&b| may_stand_in_name(b)), &value[end..])
    };
    let port_ok = match rest {
        [] => true,
        [b':', port @ ..] => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    host_ok && port_ok
}

/// A table of the ASCII letters and digits and of `others`: asked for every byte of a head.
const fn alphanumeric_and(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        table[b] = (b as u8).is_ascii_alphanumeric();
        b += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
}

/// RFC 3986 `reg-name`: unreserved, sub-delims and percent signs.
fn may_stand_in_name(b: u8) -> bool {
    const NAME: [bool; 256] = alphanumeric_and(b"-._~%!$&'()*+,;=");
    NAME[b as usize]
}

/// RFC 9110 5.6.2: what may stand in a token, such as a method.
pub(crate) fn is_token(b: u8) -> bool {
    const TOKEN: [bool; 256] = alphanumeric_and(b"!#$%&'*+-.^_`|~");
    TOKEN[b as usize]
}

/// Takes optional whitespace (RFC 9110 5.6.3: space and tab, nothing else) from both ends.
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_taken() {
        for host in ["localhost", "127.0.0.1:8080", "[::1]:8080", "[::1]", "a-b.example", "a:", "x_y", "%41"]
        {
            assert!(is_host_and_port(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn hosts_that_are_refused() {
        for host in [
            "",
            ":80",
            "a b",
            "a/b",
            "user@host",
            "a:b",
            "a:80:80",
            "a:123456",
            "[::1",
            "[]",
            "[::1]x",
            "한",
            "a?b",
            "a#b",
        ] {
            assert!(!is_host_and_port(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn lengths() {
        assert_eq!(length(b"0"), Ok(0));
        assert_eq!(length(b"00012"), Ok(12));
        assert_eq!(length(b"18446744073709551615"), Ok(u64::MAX));
        for bad in ["", "+1", "-1", "1,1", "1 1", "0x1", "18446744073709551616", "1a", "\u{661}"] {
            assert!(length(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_space_and_tab_are_trimmed() {
        assert_eq!(trim(b" \t a b\t "), b"a b");
        assert_eq!(trim(b"\x0ba"), b"\x0ba");
        assert_eq!(trim(b"  "), b"");
    }
}
