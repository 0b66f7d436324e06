//! The HTTP that a bare server speaks: it counts request heads and answers each with the same bytes.

/// Counts heads (ended by an empty line) in a stream that comes in pieces cut anywhere.
///
/// Request bodies are not understood: clients of the benches send GET without one.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadCounter {
    /// How many bytes of `\r\n\r\n` the stream ends with.
    matched: u8,
}

impl HeadCounter {
    /// How many heads end in `bytes`, the next piece of the stream.
    pub fn feed(&mut self, bytes: &[u8]) -> u32 {
        const END: [u8; 4] = *b"\r\n\r\n";
        let mut heads = 0;
        let mut matched = self.matched;
        for &byte in bytes {
            if byte == END[usize::from(matched)] {
                matched += 1;
                if matched == 4 {
                    matched = 0;
                    heads += 1;
                }
            } else {
                matched = u8::from(byte == b'\r');
            }
        }
        self.matched = matched;
        heads
    }
}

/// The head of a 200 answer with a body of `body` bytes, about as long as those of other servers.
pub fn response_head(body: u64) -> Vec<u8> {
    let text = [
        "HTTP/1.1 200 OK",
        "Server: bare",
        "Date: Thu, 01 Jan 2026 00:00:00 GMT",
        "Content-Type: application/octet-stream",
        &format!("Content-Length: {body}"),
        "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT",
        "Connection: keep-alive",
        "Accept-Ranges: bytes",
        "",
        "",
    ];
    text.join("\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\n\r\n";

    #[test]
    fn pipelined_heads_are_all_counted() {
        assert_eq!(HeadCounter::default().feed(TWO), 2);
    }

    #[test]
    fn any_cut_gives_the_same_count() {
        for first in 0..=TWO.len() {
            for second in first..=TWO.len() {
                let mut counter = HeadCounter::default();
                let sum = counter.feed(&TWO[..first])
                    + counter.feed(&TWO[first..second])
                    + counter.feed(&TWO[second..]);
                assert_eq!(sum, 2, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn near_misses_do_not_count() {
        for (text, heads) in [
            (&b"\r\n\n\r\n"[..], 0),
            (b"\r\r\n\r\n", 1),
            (b"\r\n\r\r\n\r\n", 1),
            (b"\n\r\n\r\n", 1),
            (b"\r\n\r\n\r\n\r\n", 2),
            (b"\r\n\r", 0),
        ] {
            assert_eq!(HeadCounter::default().feed(text), heads, "{text:?}");
        }
    }
}
