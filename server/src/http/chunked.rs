//! Chunked bodies (RFC 9112 7.1): finds their end, byte by byte, however the network cut them.
//!
//! As strict as the head's parser: lines end with CRLF, sizes are hexadecimal digits and nothing else.
//! Extensions and trailer lines are skipped, and bounded like all else.

use super::{MAX_DISCARDED_BODY, Refusal, Status};

/// All extensions and trailer lines of one body, in bytes. No known client sends more, and without a bound a
/// body of one byte could be endless.
const MAX_ASIDES: u32 = 8 * 1024;

/// How much of some bytes belonged to a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// All of them, and more are to come.
    All,
    /// So many, which were the last.
    End(usize),
}

/// The body is longer than what is read and discarded.
pub(crate) const TOO_LONG: Refusal = Refusal::new(Status::ContentTooLarge, "the request body is too long");

/// How far a chunked body has been read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Chunked {
    state: State,
    /// Bytes of content so far.
    content: u64,
    /// Bytes of extensions and trailers so far.
    asides: u32,
}

/// What comes next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// The first digit of a chunk's size.
    #[default]
    Size,
    /// More digits, or the line's end; the size so far.
    Digits(u64),
    /// The rest of a size line.
    Extension(u64),
    /// LF after a size line.
    SizeLf(u64),
    /// Content of a chunk.
    Content(u64),
    /// CR, then LF, after the content of a chunk.
    ContentCr,
    ContentLf,
    /// The beginning of a trailer line, or the empty one.
    Trailer,
    /// The rest of a trailer line.
    TrailerLine,
    TrailerLf,
    /// LF of the empty line.
    LastLf,
}

const BAD: Refusal = Refusal::bad("a chunked body is not made of chunks");
const TOO_MUCH: Refusal = Refusal::bad("a chunked body has too many extensions or trailer lines");

impl Chunked {
    /// Takes what `bytes` hold of the body.
    ///
    /// # Errors
    /// The content is too long, or what comes are no chunks.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<Taken, Refusal> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let State::Content(left) = self.state {
                let here = left.min((bytes.len() - at) as u64);
                at += here as usize;
                self.state = if here == left { State::ContentCr } else { State::Content(left - here) };
                continue;
            }
            at += 1;
            if self.state == State::LastLf {
                return if byte == b'\n' { Ok(Taken::End(at)) } else { Err(BAD) };
            }
            self.state = self.step(byte)?;
        }
        Ok(Taken::All)
    }

    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        Ok(match (self.state, byte) {
            (State::Size, digit) => State::Digits(hex(digit).ok_or(BAD)?),
            (State::Digits(size), b'\r') => State::SizeLf(size),
            (State::Digits(size), b';' | b' ' | b'\t') => State::Extension(size),
            (State::Digits(size), digit) => {
                let digit = hex(digit).ok_or(BAD)?;
                // What is beyond this is beyond the limit as well.
                State::Digits(size.checked_mul(16).ok_or(TOO_LONG)? + digit)
            }
            (State::Extension(size), b'\r') => State::SizeLf(size),
            (State::Extension(size), byte) => {
                self.aside(byte)?;
                State::Extension(size)
            }
            (State::SizeLf(0), b'\n') => State::Trailer,
            (State::SizeLf(size), b'\n') => {
                self.content = self.content.saturating_add(size);
                if self.content > MAX_DISCARDED_BODY {
                    return Err(TOO_LONG);
                }
                State::Content(size)
            }
            (State::ContentCr, b'\r') => State::ContentLf,
            (State::ContentLf, b'\n') => State::Size,
            (State::Trailer, b'\r') => State::LastLf,
            (State::Trailer | State::TrailerLine, byte) if byte != b'\r' => {
                self.aside(byte)?;
                State::TrailerLine
            }
            (State::TrailerLine, _) => State::TrailerLf,
            (State::TrailerLf, b'\n') => State::Trailer,
            _ => return Err(BAD),
        })
    }

    /// A byte of what is skipped.
    fn aside(&mut self, byte: u8) -> Result<(), Refusal> {
        self.asides += 1;
        if self.asides > MAX_ASIDES {
            return Err(TOO_MUCH);
        }
        if byte == b'\t' || !byte.is_ascii_control() { Ok(()) } else { Err(BAD) }
    }
}

fn hex(digit: u8) -> Option<u64> {
    char::from(digit).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Status;
    use super::*;

    fn take(text: &str) -> Result<Taken, Refusal> {
        Chunked::default().take(text.as_bytes())
    }

    #[test]
    fn bodies_and_their_ends() {
        for (text, end) in [
            ("0\r\n\r\n", 5),
            ("3\r\nabc\r\n0\r\n\r\nGET", 13),
            ("a;x=\"y\"\r\n0123456789\r\n00\r\nX: y\r\nZ: \r\n\r\n", 38),
            ("1 ;a\r\nx\r\n0\r\n\r\n", 14),
        ] {
            assert_eq!(take(text), Ok(Taken::End(end)), "{text:?}");
            for cut in 0..end {
                let mut chunked = Chunked::default();
                assert_eq!(chunked.take(&text.as_bytes()[..cut]), Ok(Taken::All), "{text:?} {cut}");
                assert_eq!(
                    chunked.take(&text.as_bytes()[cut..]),
                    Ok(Taken::End(end - cut)),
                    "{text:?} {cut}"
                );
            }
        }
    }

    #[test]
    fn what_is_refused() {
        for text in [
            "\r\n",
            ";\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            "1\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "0\n",
            "0\r\n\n",
            "0\r\nX: y\n",
            "0\r\n\rx",
            "1;\0\r\n",
            "1\r\r",
            " 1\r\n",
            "1_0\r\n",
        ] {
            assert_eq!(take(text).map_err(|r| r.status), Err(Status::BadRequest), "{text:?}");
        }
        for text in ["ffffffffffffffffffff\r\n", "100001\r\n", "fffffffffffffffff\r\n"] {
            assert_eq!(take(text).map_err(|r| r.status), Err(Status::ContentTooLarge), "{text:?}");
        }
        let many = "1;aaaaaaaaaaaaaaaa\r\nx\r\n".repeat(600);
        assert_eq!(take(&many), Err(TOO_MUCH));
        let much = format!("fffff\r\n{}\r\n2\r\n", "x".repeat(0xfffff));
        assert_eq!(take(&much), Err(TOO_LONG));
    }

    proptest! {
        /// What is made of chunks ends where it ends, whatever follows.
        #[test]
        fn made_bodies_end_where_they_end(sizes in prop::collection::vec(1..100usize, 0..8), cut in any::<prop::sample::Index>()) {
            let mut body: Vec<u8> = sizes
                .iter()
                .flat_map(|size| [format!("{size:X}\r\n").into_bytes(), vec![b'\n'; *size], b"\r\n".to_vec()].concat())
                .collect();
            body.extend_from_slice(b"0\r\n\r\n");
            let end = body.len();
            body.extend_from_slice(b"0\r\n\r\n");
            let cut = cut.index(end);
            let mut chunked = Chunked::default();
            prop_assert_eq!(chunked.take(&body[..cut]), Ok(Taken::All));
            prop_assert_eq!(chunked.take(&body[cut..]), Ok(Taken::End(end - cut)));
        }

        #[test]
        fn no_bytes_are_too_odd(bytes in any::<Vec<u8>>()) {
            if let Ok(Taken::End(end)) = Chunked::default().take(&bytes) {
                prop_assert!(end <= bytes.len());
            }
        }
    }
}
