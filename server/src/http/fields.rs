//! The header fields that decide about framing, host, persistence, and what is wanted of a file (RFC 9110,
//! RFC 9112 6 and 9).

use super::Refusal;
use super::Status;
use super::bytes::{alphanumeric_and, trim};
use super::conditions::{self, Conditions};
use super::encoding::Encodings;
use super::host::is_host_and_port;
use super::range::Ranges;

/// What the header lines of one request say, as far as this server uses it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    /// There is exactly one Host line, and it is well-formed.
    pub(crate) has_host: bool,
    /// The one Content-Length, in bytes.
    pub(crate) content_length: Option<u64>,
    /// What Transfer-Encoding says.
    pub(crate) transfer: Option<Transfer>,
    /// Connection names `close`.
    pub(crate) close: bool,
    /// Connection names `keep-alive`.
    pub(crate) keep_alive: bool,
    /// What Expect says.
    pub(crate) expect: Expect,
    /// The codings that the client takes.
    pub(crate) encodings: Encodings,
    /// The client would rather have JSON than HTML.
    pub(crate) wants_json: bool,
    /// A proxy or the client has given the request a name (X-Request-Id).
    pub(crate) has_id: bool,
    /// Conditions and ranges.
    pub(crate) conditions: Option<Box<Conditions>>,
}

/// RFC 9112 6.1: how a body is framed that has no length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// `chunked` and nothing else.
    Chunked,
    /// Chunked is not the last coding, or named twice: the body's end is undefined.
    Broken,
    /// Another coding, with chunked last.
    Unknown,
}

/// RFC 9110 10.1.1: what Expect says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Expect {
    #[default]
    Nothing,
    /// `100-continue`.
    Continue,
    /// An unknown expectation.
    Unknown,
}

impl Fields {
    /// Goes through the header lines once.
    pub(crate) fn gather(lines: &[httparse::Header<'_>]) -> Result<Self, Refusal> {
        let mut fields = Fields::default();
        let (mut ranges, mut codings, mut accepts) = (0, 0, false);
        for line in lines {
            let (name, value) = (line.name, trim(line.value));
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            // By length first: most lines are none of these, and one comparison shows it.
            match name.len() {
                4 if is("host") => fields.take_host(value)?,
                5 if is("range") => {
                    ranges += 1;
                    fields.conditions().ranges = Ranges::parse(value);
                }
                6 if is("expect") => fields.take_expect(value),
                6 if is("accept") => fields.wants_json |= prefers_json(value),
                8 if is("if-match") => conditions::join(&mut fields.conditions().if_match, value),
                8 if is("if-range") => fields.conditions().if_range.take(value),
                10 if is("connection") => fields.take_connection(value),
                12 if is("x-request-id") => fields.has_id = true,
                13 if is("if-none-match") => conditions::join(&mut fields.conditions().if_none_match, value),
                14 if is("content-length") => fields.take_length(value)?,
                15 if is("accept-encoding") => accepts = true,
                17 if is("transfer-encoding") => codings += 1,
                17 if is("if-modified-since") => fields.conditions().if_modified_since.take(value),
                19 if is("if-unmodified-since") => fields.conditions().if_unmodified_since.take(value),
                _ => {}
            }
        }
        // Several lines of these two are one list (RFC 9110 5.3).
        if accepts {
            fields.encodings = Encodings::parse(values(lines, "accept-encoding"));
        }
        if codings > 0 {
            fields.transfer = Some(Transfer::of(values(lines, "transfer-encoding")));
        }
        // Two lines of Range cannot be joined, as each names its unit.
        if ranges > 1 {
            fields.conditions().ranges = None;
        }
        Ok(fields)
    }

    fn conditions(&mut self) -> &mut Conditions {
        self.conditions.get_or_insert_default()
    }

    fn take_host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.has_host {
            return Err(Refusal::bad("more than one Host field"));
        }
        if !value.is_empty() && !is_host_and_port(value) {
            return Err(Refusal::bad("the Host field is not a host with an optional port"));
        }
        self.has_host = true;
        Ok(())
    }

    fn take_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        // Equal repeats could be folded into one (RFC 9112 6.3), but no honest client sends them.
        match self.content_length.replace(length(value)?) {
            Some(_) => Err(Refusal::bad("more than one Content-Length field")),
            None => Ok(()),
        }
    }

    fn take_connection(&mut self, value: &[u8]) {
        for option in value.split(|&b| b == b',').map(trim) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn take_expect(&mut self, value: &[u8]) {
        for one in value.split(|&b| b == b',').map(trim).filter(|one| !one.is_empty()) {
            self.expect = match self.expect {
                Expect::Nothing | Expect::Continue if one.eq_ignore_ascii_case(b"100-continue") => {
                    Expect::Continue
                }
                _ => Expect::Unknown,
            };
        }
    }
}

impl Transfer {
    fn of<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let (mut chunked, mut others, mut last) = (0, 0, false);
        let codings = values.flat_map(|value| value.split(|&b| b == b',')).map(trim);
        for coding in codings.filter(|coding| !coding.is_empty()) {
            last = coding.eq_ignore_ascii_case(b"chunked");
            *(if last { &mut chunked } else { &mut others }) += 1;
        }
        match (chunked, others, last) {
            (1, 0, true) => Transfer::Chunked,
            (1, _, true) => Transfer::Unknown,
            _ => Transfer::Broken,
        }
    }

    /// Why it cannot be read.
    pub(crate) fn refusal(self) -> Option<Refusal> {
        match self {
            Transfer::Chunked => None,
            Transfer::Broken => {
                Some(Refusal::bad("chunked is not the last transfer coding, or not named once"))
            }
            Transfer::Unknown => Some(Refusal::new(
                Status::NotImplemented,
                "no transfer coding but chunked is understood here",
            )),
        }
    }
}

/// The values of all lines with this name.
fn values<'a>(lines: &'a [httparse::Header<'_>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    lines.iter().filter(move |line| line.name.eq_ignore_ascii_case(name)).map(|line| line.value)
}

/// Whether an Accept field names JSON, and HTML not at all or with less weight.
fn prefers_json(value: &[u8]) -> bool {
    let mut weights = [0, 0];
    for range in value.split(|&b| b == b',') {
        let mut parts = range.split(|&b| b == b';').map(trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(super::encoding::quality).unwrap_or(1000);
        for (known, held) in ["application/json", "text/html"].iter().zip(&mut weights) {
            if name.eq_ignore_ascii_case(known.as_bytes()) {
                *held = weight;
            }
        }
    }
    weights[0] > weights[1]
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

/// RFC 9110 5.6.2: what may stand in a token, such as a method.
pub(crate) fn is_token(b: u8) -> bool {
    const TOKEN: [bool; 256] = alphanumeric_and(b"!#$%&'*+-.^_`|~");
    TOKEN[b as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn transfer_codings() {
        let of = |lines: &[&str]| Transfer::of(lines.iter().map(|line| line.as_bytes()));
        for lines in [&["chunked"][..], &["Chunked "], &[",chunked,"], &["", "chunked"]] {
            assert_eq!(of(lines), Transfer::Chunked, "{lines:?}");
        }
        for lines in [&["gzip, chunked"][..], &["identity", "chunked"]] {
            assert_eq!(of(lines), Transfer::Unknown, "{lines:?}");
        }
        for lines in [
            &[""][..],
            &["gzip"],
            &["chunked, gzip"],
            &["chunked, chunked"],
            &["chunked", "chunked"],
            &["chunked;a"],
            &["xchunked"],
        ] {
            assert_eq!(of(lines), Transfer::Broken, "{lines:?}");
        }
    }

    #[test]
    fn who_wants_json() {
        for value in ["application/json", "text/html;q=0.9, Application/JSON", "*/*, application/json;q=0.1"]
        {
            assert!(prefers_json(value.as_bytes()), "{value}");
        }
        for value in [
            "",
            "*/*",
            "text/html,application/json",
            "application/json;q=0",
            "application/json;q=0.5,text/html;q=0.6",
        ] {
            assert!(!prefers_json(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn only_space_and_tab_are_trimmed() {
        assert_eq!(trim(b" \t a b\t "), b"a b");
        assert_eq!(trim(b"\x0ba"), b"\x0ba");
        assert_eq!(trim(b"  "), b"");
    }
}
