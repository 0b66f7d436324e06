//! What an active health check asks an upstream, and how its answer is judged.

use std::str::FromStr;

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Check {
    /// It connects.
    Tcp,
    /// It asks for this path by HTTP/1.1.
    Http(String),
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = text
            .strip_prefix("http:")
            .filter(|path| path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#'));
        match (text, path) {
            ("tcp", _) => Ok(Check::Tcp),
            (_, Some(path)) => Ok(Check::Http(path.to_owned())),
            _ => Err("write tcp, or http:/PATH".to_owned()),
        }
    }
}

/// Status codes that mean well: `N`, or `N-M`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StatusRange(u16, u16);

impl StatusRange {
    /// Whether a status code means well.
    pub(super) fn contains(self, status: u16) -> bool {
        (self.0..=self.1).contains(&status)
    }
}

impl FromStr for StatusRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let code = |text: &str| text.parse().ok().filter(|code| (100..=599).contains(code));
        match (code(from), code(to)) {
            (Some(from), Some(to)) if from <= to => Ok(StatusRange(from, to)),
            _ => Err("write a status code or a range of them, such as 200-399".to_owned()),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Status {
    Is(u16),
    NotYet,
    Never,
}

/// The code of a status line (RFC 9112, 4), as far as it has come.
pub(super) fn status(head: &[u8]) -> Status {
    const BEGIN: &[u8] = b"HTTP/1.";
    let begun = head.len().min(BEGIN.len());
    if head[..begun] != BEGIN[..begun] {
        return Status::Never;
    }
    // HTTP/1.1 200
    let Some(code) = head.get(9..12) else { return Status::NotYet };
    let code = std::str::from_utf8(code).ok().and_then(|code| code.parse().ok());
    match code {
        Some(code) if head[7].is_ascii_digit() && head[8] == b' ' => Status::Is(code),
        _ => Status::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_in_any_pieces() {
        let line = b"HTTP/1.1 204 No Content\r\n";
        for n in 0..line.len() {
            let due = if n < 12 { Status::NotYet } else { Status::Is(204) };
            assert_eq!(status(&line[..n]), due, "{n}");
        }
        for no in [&b"SSH-2.0"[..], b"HTTP/2 200 x", b"HTTP/1.1 2x0 ", b"HTTP/1.1_200 "] {
            assert_eq!(status(no), Status::Never, "{no:?}");
        }
    }

    #[test]
    fn ways_to_write_checks() {
        assert_eq!("tcp".parse(), Ok(Check::Tcp));
        assert_eq!("http:/a?b".parse(), Ok(Check::Http("/a?b".to_owned())));
        for no in ["", "http", "http:a", "http:/a b", "https:/"] {
            assert!(no.parse::<Check>().is_err(), "{no}");
        }
        assert_eq!("200-399".parse(), Ok(StatusRange(200, 399)));
        assert_eq!("204".parse(), Ok(StatusRange(204, 204)));
        for no in ["", "99", "300-200", "200-600", "x"] {
            assert!(no.parse::<StatusRange>().is_err(), "{no}");
        }
    }
}
