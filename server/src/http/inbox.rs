//! Received chunks become requests: one after the other, however the network cut them.

use super::Refusal;
use super::body::Body;
use super::chunked::Taken;
use super::path_memory;
use super::record::Record;
use super::request::{self, Parsed, Request, Whole};

/// What came of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// No whole request: receive more.
    More,
    /// The same, and the client waits for `100 Continue` before it sends the body. Said once for a request.
    Continue,
    /// A request. Its body, if it has one, was read.
    Request(Request),
    /// Answer, then close.
    Refused(Refusal),
}

/// What the next bytes belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// A request of which nothing has come yet.
    Nothing,
    /// The body of a request.
    Body,
    /// A head that has begun.
    Head,
}

/// Bytes that a rest may take without asking for memory again: a browser's head that came in two pieces.
const KEPT_REST: usize = 1024;

/// The bytes that were received and not yet parsed.
///
/// A request that came in one chunk, the usual case, is read where it lies. Only a rest (the beginning of a
/// head, or pipelined requests) is copied, so that the chunk's buffer can go back to the core at once: a
/// client that pipelines and then reads slowly holds ordinary memory, never one of the core's receive
/// buffers.
///
/// Bounded: more bytes are asked for only while an incomplete head lies here, so that it never holds more
/// than [`MAX_HEAD`](super::MAX_HEAD) and one chunk.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// The rest; what lies before `start` is done with.
    rest: Vec<u8>,
    start: usize,
    /// A request whose body has not come whole: few have one.
    pending: Option<Box<(Request, Body)>>,
    /// What the last head said, if it is kept.
    record: Option<Box<Record>>,
}

impl Inbox {
    /// One that keeps what heads say, if `records`.
    pub(crate) fn new(records: bool) -> Self {
        Inbox { record: records.then(Box::default), ..Inbox::default() }
    }

    /// What the last head said, or as much of it as came; `None` if that is not kept.
    pub(crate) fn record(&self) -> Option<&Record> {
        self.record.as_deref()
    }

    /// Takes bytes that were received before, for [`next`](Self::next) to read.
    pub(crate) fn hold(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }

    /// Takes one received chunk and reads the first request from it.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Next {
        if self.rest.len() > self.start {
            self.rest.drain(..self.start);
            self.start = 0;
            self.rest.extend_from_slice(chunk);
            return self.next();
        }
        self.clear();
        let (next, taken) = self.read(chunk);
        self.rest.extend_from_slice(&chunk[taken..]);
        next
    }

    /// Reads the next request from the rest, without new bytes.
    pub(crate) fn next(&mut self) -> Next {
        let rest = std::mem::take(&mut self.rest);
        let (next, taken) = self.read(&rest[self.start..]);
        self.rest = rest;
        self.start += taken;
        if self.start == self.rest.len() {
            self.clear();
        }
        next
    }

    /// Takes back the memory of a request that was answered.
    pub(crate) fn reuse(request: Request) {
        path_memory::give(request.target.into_memory());
    }

    /// Whether nothing of a next request has come yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.awaited() == Awaited::Nothing
    }

    /// What more bytes would belong to.
    pub(crate) fn awaited(&self) -> Awaited {
        match (&self.pending, self.rest.len() > self.start) {
            (Some(_), _) => Awaited::Body,
            (None, true) => Awaited::Head,
            (None, false) => Awaited::Nothing,
        }
    }

    /// Reads one request from `bytes` and says how many of them are used up.
    fn read(&mut self, bytes: &[u8]) -> (Next, usize) {
        if bytes.is_empty() {
            return (Next::More, 0);
        }
        if self.pending.is_some() {
            return self.read_body(bytes);
        }
        let mut memory = path_memory::take();
        let parsed = request::parse(bytes, &mut memory);
        // Where no request came of it, it is still there.
        path_memory::give(memory);
        // The log names a request by its X-Request-Id, also where nothing else is kept.
        if matches!(&parsed, Parsed::Complete(whole) if whole.request.has_id) {
            self.record.get_or_insert_default();
        }
        if let Some(record) = &mut self.record {
            match &parsed {
                Parsed::Complete(whole) => record.keep(&bytes[..whole.head]),
                Parsed::Partial | Parsed::Refused(_) => record.keep_garbage(bytes),
            }
        }
        match parsed {
            Parsed::Partial => (Next::More, 0),
            Parsed::Refused(refusal) => (Next::Refused(refusal), 0),
            Parsed::Complete(Whole { request, head, body: Body::None, .. }) => (Next::Request(request), head),
            Parsed::Complete(Whole { request, head, body, expects }) => {
                self.pending = Some(Box::new((request, body)));
                // A client that sends its body does not wait for `100 Continue`.
                if expects && head == bytes.len() {
                    return (Next::Continue, head);
                }
                let (next, taken) = self.read_body(&bytes[head..]);
                (next, head + taken)
            }
        }
    }

    /// Discards what `bytes` hold of the awaited body.
    fn read_body(&mut self, bytes: &[u8]) -> (Next, usize) {
        let Some(mut pending) = self.pending.take() else { return (Next::More, 0) };
        match pending.1.take(bytes) {
            Ok(Taken::All) => {
                self.pending = Some(pending);
                (Next::More, bytes.len())
            }
            Ok(Taken::End(end)) => (Next::Request(pending.0), end),
            Err(refusal) => (Next::Refused(refusal), 0),
        }
    }

    fn clear(&mut self) {
        self.start = 0;
        self.rest.clear();
        // The memory of a burst of pipelined requests is not kept for the connection's whole life.
        if self.rest.capacity() > KEPT_REST {
            self.rest = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::method::Method;
    use super::*;

    fn asked(next: Next) -> String {
        match next {
            Next::Request(request) if request.method == Method::Get => {
                request.target.path().display().to_string()
            }
            other => panic!("not a GET of a file: {other:?}"),
        }
    }

    #[test]
    fn pipelined_requests_come_out_in_order() {
        let mut inbox = Inbox::default();
        let bytes =
            b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\nGET /c HTTP/1.1\r\nHo";
        assert_eq!(asked(inbox.push(bytes)), "a");
        assert_eq!(asked(inbox.next()), "b");
        assert_eq!(inbox.next(), Next::More);
        assert!(!inbox.is_empty());
        assert_eq!(asked(inbox.push(b"st: x\r\n\r\n")), "c");
        assert!(inbox.is_empty());
    }

    /// The request is handed on once its body has come.
    fn a_body_is_thrown_away_wherever_it_is_cut(bytes: &str) {
        let bytes = bytes.as_bytes();
        for cut in 0..=bytes.len() {
            let mut inbox = Inbox::default();
            let mut seen = Vec::new();
            for chunk in [&bytes[..cut], &bytes[cut..]] {
                let mut next = inbox.push(chunk);
                while next != Next::More {
                    seen.push(asked(next));
                    next = inbox.next();
                }
            }
            assert_eq!(seen, ["a", "b"], "cut at {cut}");
            assert!(inbox.is_empty());
        }
    }

    #[test]
    fn bodies_are_thrown_away() {
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost:\r\n\r\n";
        let (len, next) = (smuggled.len(), "GET /b HTTP/1.1\r\nHost: x\r\n\r\n");
        let head = "GET /a HTTP/1.1\r\nHost: x\r\n";
        a_body_is_thrown_away_wherever_it_is_cut(&format!(
            "{head}Content-Length: {len}\r\n\r\n{smuggled}{next}"
        ));
        a_body_is_thrown_away_wherever_it_is_cut(&format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n{len:x}\r\n{smuggled}\r\n0\r\nX: y\r\n\r\n{next}"
        ));
    }

    #[test]
    fn who_waits_before_a_body_is_told_once_to_go_on() {
        let head = b"GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
        let mut inbox = Inbox::default();
        assert_eq!(inbox.push(head), Next::Continue);
        assert_eq!(inbox.awaited(), Awaited::Body);
        assert_eq!(inbox.next(), Next::More);
        assert_eq!(inbox.push(b"ab"), Next::More);
        assert_eq!(asked(inbox.push(b"c")), "a");
        // A client that does not wait needs no `100 Continue`.
        let mut inbox = Inbox::default();
        assert_eq!(asked(inbox.push(&[&head[..], b"abc"].concat())), "a");
    }
}
