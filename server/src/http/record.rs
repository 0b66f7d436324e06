//! What a request's head said, as it was sent: kept for the access log, and only where there is one.

/// The parts that are kept, in their order in memory.
#[derive(Debug, Clone, Copy)]
enum Part {
    Method,
    Target,
    Version,
    Host,
    Referer,
    UserAgent,
    RequestId,
}

const PARTS: usize = 7;

/// Memory that is kept from one request to the next, in bytes.
const KEPT_ROOM: usize = 1024;
/// How much is kept of bytes that are no request, in bytes.
const GARBAGE: usize = 64;

/// Copies of the parts of one head. The memory is used again for the next.
#[derive(Debug, Default)]
pub(crate) struct Record {
    bytes: Vec<u8>,
    /// Where each part ends.
    ends: [usize; PARTS],
    /// The lines of X-Forwarded-For and of Forwarded, each with commas between.
    forwarded: [Vec<u8>; 2],
}

impl Record {
    /// Keeps the parts of a well-formed head.
    pub(crate) fn keep(&mut self, head: &[u8]) {
        self.forwarded.iter_mut().for_each(Vec::clear);
        let mut parts = [&b""[..]; PARTS];
        let mut lines = Lines(head);
        // Empty lines before the request line are ignored (RFC 9112 2.2).
        let line = lines.by_ref().find(|line| !line.is_empty()).unwrap_or_default();
        let mut words = line.splitn(3, |&byte| byte == b' ');
        for part in [Part::Method, Part::Target, Part::Version] {
            parts[part as usize] = words.next().unwrap_or_default();
        }
        for line in lines.take_while(|line| !line.is_empty()) {
            // The first letter tells most of the others apart.
            let part = match line[0] | 0x20 {
                b'h' => value(line, b"host:").map(|value| (Part::Host, value)),
                b'r' => value(line, b"referer:").map(|value| (Part::Referer, value)),
                b'u' => value(line, b"user-agent:").map(|value| (Part::UserAgent, value)),
                b'x' => match value(line, b"x-forwarded-for:") {
                    // Several lines are one list (RFC 9110 5.3).
                    Some(value) => {
                        listed(&mut self.forwarded[0], value);
                        None
                    }
                    None => value(line, b"x-request-id:").map(|value| (Part::RequestId, value)),
                },
                b'f' => {
                    if let Some(value) = value(line, b"forwarded:") {
                        listed(&mut self.forwarded[1], value);
                    }
                    None
                }
                _ => None,
            };
            if let Some((part, value)) = part {
                parts[part as usize] = value.trim_ascii();
            }
        }
        self.fill(parts);
    }

    /// Keeps the beginning of what is no request, as its target.
    pub(crate) fn keep_garbage(&mut self, bytes: &[u8]) {
        let line = bytes.trim_ascii_start();
        let end = memchr::memchr(b'\r', line).unwrap_or(line.len()).min(GARBAGE);
        let mut parts = [&b""[..]; PARTS];
        parts[Part::Target as usize] = &line[..end];
        self.fill(parts);
    }

    fn fill(&mut self, parts: [&[u8]; PARTS]) {
        if self.bytes.capacity() > KEPT_ROOM {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        for (part, end) in parts.iter().zip(&mut self.ends) {
            self.bytes.extend_from_slice(part);
            *end = self.bytes.len();
        }
    }

    fn part(&self, part: Part) -> &[u8] {
        let at = part as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start..self.ends[at]]
    }

    /// The method; empty for what is no request.
    pub(crate) fn method(&self) -> &[u8] {
        self.part(Part::Method)
    }

    /// The target, or the beginning of what is no request.
    pub(crate) fn target(&self) -> &[u8] {
        self.part(Part::Target)
    }

    /// Such as `HTTP/1.1`.
    pub(crate) fn version(&self) -> &[u8] {
        self.part(Part::Version)
    }

    /// The Host field.
    pub(crate) fn host(&self) -> &[u8] {
        self.part(Part::Host)
    }

    /// The host that is asked: that of an absolute target, which outranks the Host field (RFC 9112 3.2.2).
    pub(crate) fn authority(&self) -> &[u8] {
        let target = self.target();
        let Some(scheme) = memchr::memmem::find(target, b"://").filter(|_| !target.starts_with(b"/")) else {
            return self.host();
        };
        let rest = &target[scheme + 3..];
        &rest[..rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len())]
    }

    /// The Referer field.
    pub(crate) fn referer(&self) -> &[u8] {
        self.part(Part::Referer)
    }

    /// The User-Agent field.
    pub(crate) fn user_agent(&self) -> &[u8] {
        self.part(Part::UserAgent)
    }

    /// All lines of X-Forwarded-For, with commas between.
    pub(crate) fn x_forwarded_for(&self) -> &[u8] {
        &self.forwarded[0]
    }

    /// All lines of Forwarded, with commas between.
    pub(crate) fn forwarded(&self) -> &[u8] {
        &self.forwarded[1]
    }

    /// The X-Request-Id field.
    pub(crate) fn request_id(&self) -> &[u8] {
        self.part(Part::RequestId)
    }
}

/// The lines of a head, without their ends.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', self.0).unwrap_or(self.0.len());
        let line = &self.0[..end];
        self.0 = self.0.get(end + 1..).unwrap_or_default();
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

/// The value of a field, if the line begins with its `name`, which ends with a colon.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (own, value) = line.split_at_checked(name.len())?;
    own.eq_ignore_ascii_case(name).then_some(value)
}

/// Appends a line to a list.
fn listed(list: &mut Vec<u8>, line: &[u8]) {
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(line.trim_ascii());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_head() {
        let mut record = Record::default();
        record.keep(b"\r\nGET /a HTTP/1.1\r\nHOST: h\r\nAccept: x\r\nuser-agent:  curl \r\nX-Request-ID: 7\r\n\r\nReferer: body");
        assert_eq!((record.method(), record.target()), (&b"GET"[..], &b"/a"[..]));
        assert_eq!((record.x_forwarded_for(), record.forwarded()), (&b""[..], &b""[..]));
        let lines =
            b"GET / HTTP/1.1\r\nx-forwarded-for: a\r\nForwarded: for=b\r\nX-Forwarded-For:  c \r\n\r\n";
        let mut listed = Record::default();
        listed.keep(lines);
        assert_eq!((listed.x_forwarded_for(), listed.forwarded()), (&b"a, c"[..], &b"for=b"[..]));
        assert_eq!((record.version(), record.host()), (&b"HTTP/1.1"[..], &b"h"[..]));
        assert_eq!(
            (record.user_agent(), record.referer(), record.request_id()),
            (&b"curl"[..], &b""[..], &b"7"[..])
        );
        record.keep_garbage(b"\r\n\x16\x03\x01\r\nx");
        assert_eq!((record.method(), record.target()), (&b""[..], &b"\x16\x03\x01"[..]));
        assert_eq!(record.user_agent(), b"");
        for (target, host) in [("/x://y", "h"), ("http://a:80/b", "a:80"), ("HTTP://a?q", "a"), ("*", "h")] {
            record.keep(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
            assert_eq!(record.authority(), host.as_bytes(), "{target}");
        }
    }
}
