//! Received chunks become requests: one after the other, however the network cut them.

use super::record::Record;
use super::request::{self, Ask, Parsed, Request};
use super::{MAX_HEAD, Refusal};

/// What came of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// No whole request: receive more.
    More,
    /// A request.
    Request(Request),
    /// Answer, then close.
    Refused(Refusal),
}

/// What the next bytes belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// A request of which nothing has come yet.
    Nothing,
    /// The body of the last request.
    Body,
    /// A head that has begun.
    Head,
}

/// Bytes that a path may take without asking for memory anew.
const KEPT_ROOM: usize = 256;

/// The bytes that were received and not yet understood.
///
/// A request that came in one chunk, the usual case, is read where it lies. Only a rest (the beginning of a head, or
/// pipelined requests) is copied, so that the chunk's buffer can go back to the core at once: a client that
/// pipelines and then reads slowly holds ordinary memory, never one of the core's receive buffers.
///
/// Bounded: more bytes are asked for only while an incomplete head lies here, so that it never holds more than
/// [`MAX_HEAD`] and one chunk.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// The rest; what lies before `start` is done with.
    rest: Vec<u8>,
    start: usize,
    /// How many bytes of the last request's body are still to come and to be thrown away.
    discard: u64,
    /// Memory for the next request's path.
    room: Vec<u8>,
    /// What the last head said, if anybody wants to know.
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

    /// Takes one received chunk and reads the first request from it.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Next {
        let dropped = self.discard.min(chunk.len() as u64);
        self.discard -= dropped;
        let chunk = &chunk[dropped as usize..];
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
    pub(crate) fn reuse(&mut self, request: Request) {
        if let Ask::Get(resource) | Ask::Head(resource) = request.ask {
            self.room = resource.into_room();
            // What one long path needed is not kept for the connection's whole life.
            if self.room.capacity() > KEPT_ROOM {
                self.room = Vec::new();
            }
        }
    }

    /// Whether nothing of a next request has come yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.awaited() == Awaited::Nothing
    }

    /// What more bytes would belong to.
    pub(crate) fn awaited(&self) -> Awaited {
        match (self.discard > 0, self.rest.len() > self.start) {
            (true, _) => Awaited::Body,
            (false, true) => Awaited::Head,
            (false, false) => Awaited::Nothing,
        }
    }

    /// Reads one request from `bytes` and says how many of them are used up.
    fn read(&mut self, bytes: &[u8]) -> (Next, usize) {
        if bytes.is_empty() {
            return (Next::More, 0);
        }
        let parsed = request::parse(bytes, &mut self.room);
        if let Some(record) = &mut self.record {
            match &parsed {
                Parsed::Complete(_, head) => record.keep(&bytes[..*head]),
                Parsed::Partial | Parsed::Refused(_) => record.keep_garbage(bytes),
            }
        }
        match parsed {
            Parsed::Partial => (Next::More, 0),
            Parsed::Refused(refusal) => (Next::Refused(refusal), 0),
            Parsed::Complete(request, head) => {
                let here = request.body.min((bytes.len() - head) as u64);
                self.discard = request.body - here;
                (Next::Request(request), head + here as usize)
            }
        }
    }

    fn clear(&mut self) {
        self.start = 0;
        self.rest.clear();
        // What a burst of pipelined requests needed is not kept for the connection's whole life.
        if self.rest.capacity() > MAX_HEAD {
            self.rest = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::target::Resource;
    use super::*;

    fn asked(next: Next) -> String {
        match next {
            Next::Request(Request { ask: Ask::Get(Resource::File(path)), .. }) => path.display().to_string(),
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

    #[test]
    fn a_body_is_thrown_away_wherever_it_is_cut() {
        let bytes = b"GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\n\
                      GET /smuggled HTTP/1.1\r\nHost:\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n";
        let head = b"GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\n".len();
        let bytes = [&bytes[..head + 30], b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
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
}
