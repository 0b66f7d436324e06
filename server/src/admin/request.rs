//! A request of an operator: bytes in, what is asked for out. Small limits: what operators send is small.

/// The longest head, in bytes.
const MAX_HEAD: usize = 8 << 10;
/// The longest body, in bytes. It is read and ignored: the target says everything.
const MAX_BODY: usize = 1 << 10;
/// The most header lines.
const MAX_FIELDS: usize = 64;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// The target without its query.
    pub(super) path: String,
    pub(super) host: String,
    pub(super) accept: String,
    /// What a browser says about the page that sends it.
    pub(super) origin: Option<String>,
}

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Not all of it.
    Partial,
    /// A request.
    Complete(Request),
    /// Something else: this status, and why.
    Refused(u16, &'static str),
}

/// Reads a request from the beginning of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let len = match head.parse(bytes) {
        Ok(httparse::Status::Complete(len)) if len <= MAX_HEAD => len,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Parsed::Partial,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Parsed::Refused(431, "the head is too large"),
        Err(_) => return Parsed::Refused(400, "this is not an HTTP request"),
    };
    let field = |name: &str| {
        let mut found = head.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        let value = found.next().map(|field| String::from_utf8_lossy(field.value).into_owned());
        (value, found.next().is_some())
    };
    let (length, twice) = field("content-length");
    if field("transfer-encoding").0.is_some() || twice {
        return Parsed::Refused(400, "a body without one length is not taken");
    }
    let body = match length.map(|length| length.trim().parse::<usize>()) {
        None => 0,
        Some(Ok(length)) if length <= MAX_BODY => length,
        Some(Ok(_)) => return Parsed::Refused(413, "the body is too large"),
        Some(Err(_)) => return Parsed::Refused(400, "Content-Length is no number"),
    };
    if bytes.len() < len + body {
        return Parsed::Partial;
    }
    let target = head.path.unwrap_or_default();
    Parsed::Complete(Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: target.split(['?', '#']).next().unwrap_or_default().to_owned(),
        host: field("host").0.unwrap_or_default(),
        accept: field("accept").0.unwrap_or_default(),
        origin: field("origin").0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_in_parts() {
        let text =
            b"POST /upstreams/a:1/out?x HTTP/1.1\r\nHost: h\r\nAccept: */*\r\nContent-Length: 3\r\n\r\nabc";
        for len in 0..text.len() {
            assert_eq!(parse(&text[..len]), Parsed::Partial, "{len}");
        }
        let Parsed::Complete(request) = parse(text) else { panic!() };
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/upstreams/a:1/out"));
        assert_eq!((request.host.as_str(), request.accept.as_str(), request.origin), ("h", "*/*", None));
    }

    #[test]
    fn what_is_too_large_or_no_request() {
        let of = |text: &str| match parse(text.as_bytes()) {
            Parsed::Refused(status, _) => status,
            other => panic!("{text:?}: {other:?}"),
        };
        assert_eq!(of("\x16\x03\x01"), 400);
        assert_eq!(of(&format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(MAX_HEAD))), 431);
        assert_eq!(of(&format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS + 1))), 431);
        assert_eq!(of("POST / HTTP/1.1\r\nContent-Length: 5000\r\n\r\n"), 413);
        assert_eq!(of("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"), 400);
        assert_eq!(of("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    }
}
