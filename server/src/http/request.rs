//! One request head: from bytes to a [`Request`], or to the reason why not (RFC 9112 2, 3 and 5).
//!
//! httparse reads the header lines. Around it stand the checks that it leaves to its caller or is lenient about:
//! lines end with CRLF and nothing else, the request line has exactly two single spaces, and what cannot become a
//! valid head is refused as soon as that is certain, without waiting for its end.

use super::fields::{self, Fields};
use super::range::Part;
use super::target::{self, Resource};
use super::{MAX_DISCARDED_BODY, MAX_FIELDS, MAX_HEAD, MAX_REQUEST_LINE, Refusal, Status};

/// No method in the IANA registry is longer than 17 bytes; what is longer is not a method.
const MAX_METHOD: usize = 32;

/// Header lines that a request usually has, at most.
const FEW_FIELDS: usize = 16;

/// A well-formed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// What is asked for, already resolved; what the target of [`Method::Other`] says is not looked at.
    pub(crate) ask: Ask,
    /// Whether the connection lives on after the answer.
    pub(crate) after: After,
    /// How many bytes of body follow the head, as far as anybody knows (nobody does before a chunked one has ended).
    /// Where the connection stays open, they are thrown away before the next head.
    pub(crate) body: u64,
    /// That only a part of the file is wanted, and when. Always `None` for HEAD, for which nothing says what that means (RFC
    /// 9110 14.2).
    pub(crate) part: Option<Part>,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// GET this.
    Get(Resource),
    /// HEAD of this: the same answer without its body.
    Head(Resource),
    /// Any other method: 405.
    Other,
}

/// What becomes of the connection after the answer (RFC 9112 9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// It stays open, as HTTP/1.1 has it when nobody says otherwise.
    Keep,
    /// It stays open, and an HTTP/1.0 client that asked for it has to be told so.
    KeepAndSay,
    /// It is closed, and the answer says so.
    Close,
}

/// What the bytes so far amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// The beginning of a head that may still become valid: more bytes, please.
    Partial,
    /// A request, and how many bytes its head took.
    Complete(Request, usize),
    /// Not a request: answer and close.
    Refused(Refusal),
}

/// Reads one request head from the beginning of `bytes`. `room` is memory for its path.
pub(crate) fn parse(bytes: &[u8], room: &mut Vec<u8>) -> Parsed {
    match try_parse(bytes, room) {
        Ok(Some((request, taken))) => Parsed::Complete(request, taken),
        Ok(None) => Parsed::Partial,
        Err(refusal) => Parsed::Refused(refusal),
    }
}

fn try_parse(bytes: &[u8], room: &mut Vec<u8>) -> Result<Option<(Request, usize)>, Refusal> {
    // RFC 9112 2.2: empty lines before a request line are ignored. They count against the head's limit.
    let start = empty_lines(bytes);
    if start > MAX_HEAD {
        return Err(Refusal::bad("nothing but empty lines"));
    }
    may_become_request_line(&bytes[start..])?;
    let Some(line_len) = line(&bytes[start..], MAX_REQUEST_LINE, Status::UriTooLong)? else {
        return Ok(None);
    };
    let request_line = RequestLine::parse(&bytes[start..start + line_len])?;

    let fields_start = start + line_len + 2;
    let Some((head_len, lines)) = head_end(bytes, fields_start)? else {
        return Ok(None);
    };
    let bytes = &bytes[fields_start..head_len];
    // Most heads have a few lines, and slots have to be written before they are used.
    let fields = if lines <= FEW_FIELDS {
        parse_fields::<FEW_FIELDS>(bytes)
    } else {
        parse_fields::<MAX_FIELDS>(bytes)
    }?;
    Ok(Some((assess(&request_line, &fields, room)?, head_len)))
}

/// How many bytes of CRLF pairs `bytes` begins with.
fn empty_lines(bytes: &[u8]) -> usize {
    bytes.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2
}

/// The length of the line that `bytes` begins with, without its CRLF, or `None` if its end is not there yet.
fn line(bytes: &[u8], limit: usize, too_long: Status) -> Result<Option<usize>, Refusal> {
    match memchr::memchr(b'\n', &bytes[..bytes.len().min(limit)]) {
        Some(0) => Err(Refusal::bad("a line ends with LF alone")),
        Some(lf) if bytes[lf - 1] == b'\r' => Ok(Some(lf - 1)),
        Some(_) => Err(Refusal::bad("a line ends with LF alone")),
        None if bytes.len() >= limit => {
            Err(Refusal::new(too_long, "the request line or a header line is too long"))
        }
        None => Ok(None),
    }
}

/// Where the head ends (the byte after the empty line) and how many header lines it has, or `None` if its end is not there
/// yet.
fn head_end(bytes: &[u8], fields_start: usize) -> Result<Option<(usize, usize)>, Refusal> {
    let mut at = fields_start;
    for lines in 0..=MAX_FIELDS {
        match line(&bytes[at..], MAX_HEAD.saturating_sub(at), Status::HeadersTooLarge)? {
            Some(0) => return Ok(Some((at + 2, lines))),
            Some(len) => at += len + 2,
            None => return Ok(None),
        }
    }
    Err(Refusal::new(Status::HeadersTooLarge, "too many header lines"))
}

/// Refuses what no further byte can turn into a request line, because it does not begin with a method and a space:
/// a TLS handshake or a garbage line is answered at once instead of holding the connection until the header timeout.
fn may_become_request_line(bytes: &[u8]) -> Result<(), Refusal> {
    if matches!(bytes, b"" | b"\r") {
        return Ok(());
    }
    // One byte more than a method may have tells all there is to tell.
    let bytes = &bytes[..bytes.len().min(MAX_METHOD + 1)];
    let method = bytes.iter().position(|&b| b == b' ').map_or(bytes, |space| &bytes[..space]);
    if method.is_empty() || method.len() > MAX_METHOD || !method.iter().all(|&b| fields::is_token(b)) {
        return Err(Refusal::bad("this is not an HTTP request line"));
    }
    Ok(())
}

/// The request line, taken apart but not yet judged.
#[derive(Debug)]
struct RequestLine<'a> {
    method: &'a [u8],
    target: &'a [u8],
    /// The digit after `HTTP/1.`
    minor: u8,
}

const NOT_THREE_PARTS: Refusal =
    Refusal::bad("the request line is not: method, space, target, space, version");

impl<'a> RequestLine<'a> {
    /// `method SP target SP HTTP/d.d`, with exactly these two spaces (RFC 9112 3).
    fn parse(line: &'a [u8]) -> Result<Self, Refusal> {
        let spaces = (memchr::memchr(b' ', line), memchr::memrchr(b' ', line));
        let (Some(first), Some(last)) = spaces else { return Err(NOT_THREE_PARTS) };
        if first == last {
            return Err(NOT_THREE_PARTS);
        }
        let (method, target, version) = (&line[..first], &line[first + 1..last], &line[last + 1..]);
        if memchr::memchr(b' ', target).is_some() {
            return Err(NOT_THREE_PARTS);
        }
        let [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] = *version else {
            return Err(Refusal::bad("the request line does not end with an HTTP version"));
        };
        if !major.is_ascii_digit() || !minor.is_ascii_digit() {
            return Err(Refusal::bad("the request line does not end with an HTTP version"));
        }
        if major != b'1' {
            return Err(Refusal::new(
                Status::VersionNotSupported,
                "only HTTP/1.0 and HTTP/1.1 are spoken here",
            ));
        }
        if target.is_empty() || !target.iter().all(|&b| target::may_stand_in_target(b)) {
            return Err(Refusal::bad(
                "the request target is empty or holds a character that may not stand there",
            ));
        }
        // RFC 9112 2.3 and RFC 9110 2.5: a higher minor version is treated as the highest one known.
        Ok(RequestLine { method, target, minor: minor - b'0' })
    }
}

/// Reads the header lines, of which `bytes` holds all, up to and with the empty line, and which are `SLOTS` at most.
fn parse_fields<const SLOTS: usize>(bytes: &[u8]) -> Result<Fields, Refusal> {
    let mut slots = [httparse::EMPTY_HEADER; SLOTS];
    match httparse::parse_headers(bytes, &mut slots) {
        Ok(httparse::Status::Complete((taken, lines))) if taken == bytes.len() => Fields::gather(lines),
        Ok(_) => Err(Refusal::bad("the header lines do not end where the empty line is")),
        Err(httparse::Error::TooManyHeaders) => {
            Err(Refusal::new(Status::HeadersTooLarge, "too many header lines"))
        }
        Err(httparse::Error::HeaderName) => Err(Refusal::bad(
            "a header line does not begin with a name and a colon, or is folded onto a second line",
        )),
        Err(httparse::Error::HeaderValue) => Err(Refusal::bad("a header value holds a control character")),
        Err(_) => Err(Refusal::bad("a header line cannot be read")),
    }
}

/// Puts request line and fields together and decides what they mean.
fn assess(line: &RequestLine<'_>, fields: &Fields, room: &mut Vec<u8>) -> Result<Request, Refusal> {
    let old = line.minor == 0;
    // RFC 9112 3.2.
    if !fields.has_host && !old {
        return Err(Refusal::bad("an HTTP/1.1 request needs a Host field"));
    }
    let simple = matches!(line.method, b"GET" | b"HEAD");
    if fields.has_transfer_encoding {
        // RFC 9112 6.1: with Content-Length beside it, or from HTTP/1.0, this is how smuggling looks.
        if fields.content_length.is_some() {
            return Err(Refusal::bad("Transfer-Encoding and Content-Length in one request"));
        }
        if old {
            return Err(Refusal::bad("Transfer-Encoding in an HTTP/1.0 request"));
        }
        if simple {
            return Err(Refusal::bad("GET and HEAD with Transfer-Encoding are not taken"));
        }
    }
    let body = fields.content_length.unwrap_or(0);
    let ask = match line.method {
        b"GET" => Ask::Get(target::resolve(line.target, room)?),
        b"HEAD" => Ask::Head(target::resolve(line.target, room)?),
        _ => Ask::Other,
    };
    if simple && body > MAX_DISCARDED_BODY {
        return Err(Refusal::new(Status::ContentTooLarge, "GET and HEAD take no body worth the name"));
    }
    let mut after = match (fields.close, old, fields.keep_alive) {
        (true, _, _) | (false, true, false) => After::Close,
        (false, true, true) => After::KeepAndSay,
        (false, false, _) => After::Keep,
    };
    // A client that waits for "100 Continue" may send its body after the final answer or not: nobody can tell.
    // And the body of a request that is refused for its method is not read at all.
    if (body > 0 && (fields.expect_continue || !simple)) || fields.has_transfer_encoding {
        after = After::Close;
    }
    // CONNECT turns the connection into a tunnel; whatever comes next is not HTTP.
    if line.method == b"CONNECT" {
        after = After::Close;
    }
    let part = fields.part.filter(|_| matches!(ask, Ask::Get(_)));
    Ok(Request { ask, after, body, part })
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
