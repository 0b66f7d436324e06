//! One request head: from bytes to a [`Request`], or to the reason why not (RFC 9112 2, 3 and 5).
//!
//! httparse reads the header lines. Around it stand the checks that it leaves to its caller or is lenient
//! about: lines end with CRLF and nothing else, the request line has exactly two single spaces, and what
//! cannot become a valid head is refused as soon as that is certain, without waiting for its end.

use super::body::Body;
use super::chunked::Chunked;
use super::conditions::Conditions;
use super::encoding::Encodings;
use super::fields::{self, Expect, Fields};
use super::host::is_host_and_port;
use super::method::Method;
use super::target::{self, Target};
use super::{MAX_FIELDS, MAX_HEAD, MAX_REQUEST_LINE, Refusal, Status};

/// No method in the IANA registry is longer than 17 bytes; a longer word is no method.
const MAX_METHOD: usize = 32;

/// Header lines that a request usually has, at most.
const FEW_FIELDS: usize = 16;

/// A well-formed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// What is to be done.
    pub(crate) method: Method,
    /// With what, already resolved.
    pub(crate) target: Target,
    /// Whether the connection lives on after the answer.
    pub(crate) after: After,
    /// A body may follow that was not read.
    pub(crate) unread: bool,
    /// The codings that the client takes.
    pub(crate) encodings: Encodings,
    /// The client would rather have JSON than HTML.
    pub(crate) wants_json: bool,
    /// A proxy or the client has given it a name (X-Request-Id).
    pub(crate) has_id: bool,
    /// Conditions and ranges.
    pub(crate) conditions: Option<Box<Conditions>>,
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
    /// A request.
    Complete(Whole),
    /// Not a request: answer and close.
    Refused(Refusal),
}

/// A head that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) request: Request,
    /// How many bytes the head took.
    pub(crate) head: usize,
    /// The body that follows, which is read and discarded before the request is answered.
    pub(crate) body: Body,
    /// The client waits for `100 Continue` before it sends that.
    pub(crate) expects: bool,
}

/// Reads one request head from the beginning of `bytes`. `memory` is for its path.
pub(crate) fn parse(bytes: &[u8], memory: &mut Vec<u8>) -> Parsed {
    match try_parse(bytes, memory) {
        Ok(Some(whole)) => Parsed::Complete(whole),
        Ok(None) => Parsed::Partial,
        Err(refusal) => Parsed::Refused(refusal),
    }
}

fn try_parse(bytes: &[u8], memory: &mut Vec<u8>) -> Result<Option<Whole>, Refusal> {
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
    assess(&request_line, fields, head_len, memory).map(Some)
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

/// Where the head ends (the byte after the empty line) and how many header lines it has, or `None` if its end
/// is not there yet.
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

/// Refuses what no further byte can turn into a request line, because it does not begin with a method and a
/// space: a TLS handshake or a garbage line is answered at once instead of holding the connection until the
/// header timeout.
fn may_become_request_line(bytes: &[u8]) -> Result<(), Refusal> {
    if matches!(bytes, b"" | b"\r") {
        return Ok(());
    }
    // A method has been found or ruled out after one byte more than the longest has.
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

/// Reads the header lines, of which `bytes` holds all, up to and with the empty line, and which are `SLOTS`
/// at most.
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
fn assess(
    line: &RequestLine<'_>,
    fields: Fields,
    head: usize,
    memory: &mut Vec<u8>,
) -> Result<Whole, Refusal> {
    let old = line.minor == 0;
    // RFC 9112 3.2.
    if !fields.has_host && !old {
        return Err(Refusal::bad("an HTTP/1.1 request needs a Host field"));
    }
    let body = body(&fields, old)?;
    let method = Method::of(line.method);
    let target = named(method, line.target, memory)?;
    let mut after = match (fields.close, old, fields.keep_alive) {
        (true, _, _) | (false, true, false) => After::Close,
        (false, true, true) => After::KeepAndSay,
        (false, false, _) => After::Keep,
    };
    // CONNECT turns the connection into a tunnel; whatever comes next is not HTTP.
    if method == Method::Connect {
        after = After::Close;
    }
    // An HTTP/1.0 client knows of no expectation (RFC 9110 10.1.1).
    let expect = if old { Expect::Nothing } else { fields.expect };
    if expect == Expect::Unknown {
        return Err(Refusal::new(Status::ExpectationFailed, "nothing but 100-continue can be expected here"));
    }
    let mut request = Request {
        method,
        target,
        after,
        unread: method == Method::Connect,
        encodings: fields.encodings,
        wants_json: fields.wants_json,
        has_id: fields.has_id,
        conditions: fields.conditions,
    };
    let expects = expect == Expect::Continue && body != Body::None;
    // A client that waits is refused at once. It may still send its body, so the connection is closed.
    if expects && !method.is_served() {
        (request.after, request.unread) = (After::Close, true);
        return Ok(Whole { request, head, body: Body::None, expects: false });
    }
    Ok(Whole { request, head, body, expects })
}

/// What follows the head (RFC 9112 6.3), whatever the method.
fn body(fields: &Fields, old: bool) -> Result<Body, Refusal> {
    let Some(transfer) = fields.transfer else {
        return Body::sized(fields.content_length.unwrap_or(0));
    };
    // RFC 9112 6.1: with Content-Length beside it, or from HTTP/1.0, this is an attempt at request smuggling.
    if fields.content_length.is_some() {
        return Err(Refusal::bad("Transfer-Encoding and Content-Length in one request"));
    }
    if old {
        return Err(Refusal::bad("Transfer-Encoding in an HTTP/1.0 request"));
    }
    match transfer.refusal() {
        Some(refusal) => Err(refusal),
        None => Ok(Body::Chunked(Chunked::default())),
    }
}

/// What the target of a request with this method names (RFC 9112 3.2).
fn named(method: Method, target: &[u8], memory: &mut Vec<u8>) -> Result<Target, Refusal> {
    match method {
        Method::Connect if is_host_and_port(target) => Ok(Target::server()),
        Method::Connect => Err(Refusal::bad("the target of CONNECT is not a host with a port")),
        Method::Options if target == b"*" => Ok(Target::server()),
        _ => Target::resolve(target, memory),
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
