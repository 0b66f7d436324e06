//! Request bodies: where they end. Nobody here wants one; they are read and thrown away, so that the next head is found.

use super::chunked::Chunked;
use super::{MAX_DISCARDED_BODY, Refusal, Status};

/// What follows a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// Nothing.
    None,
    /// So many bytes, more than none.
    Sized(u64),
    /// Chunks (RFC 9112 7.1).
    Chunked(Chunked),
}

/// How much of some bytes belonged to a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// All of them, and more are to come.
    All,
    /// So many, which were the last.
    End(usize),
}

/// The body is longer than anybody needs whose request takes none.
pub(crate) const TOO_LONG: Refusal = Refusal::new(Status::ContentTooLarge, "the request body is too long");

impl Body {
    /// A body of this length.
    ///
    /// # Errors
    /// It is longer than what is read and thrown away.
    pub(crate) fn sized(length: u64) -> Result<Self, Refusal> {
        match length {
            0 => Ok(Body::None),
            1..=MAX_DISCARDED_BODY => Ok(Body::Sized(length)),
            _ => Err(TOO_LONG),
        }
    }

    /// Takes what `bytes` hold of it.
    ///
    /// # Errors
    /// It is too long, or is not made of chunks.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<Taken, Refusal> {
        match self {
            Body::None => Ok(Taken::End(0)),
            Body::Sized(left) if *left > bytes.len() as u64 => {
                *left -= bytes.len() as u64;
                Ok(Taken::All)
            }
            Body::Sized(left) => Ok(Taken::End(*left as usize)),
            Body::Chunked(chunked) => chunked.take(bytes),
        }
    }
}
