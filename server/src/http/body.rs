//! Request bodies: where they end. No request here needs one; they are read and discarded, so that the next
//! head is found.

use super::chunked::{Chunked, TOO_LONG, Taken};
use super::{MAX_DISCARDED_BODY, Refusal};

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

impl Body {
    /// A body of this length.
    ///
    /// # Errors
    /// It is longer than what is read and discarded.
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
