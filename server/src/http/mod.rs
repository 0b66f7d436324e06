//! The HTTP/1.1 core: bytes and a clock in, a decision and bytes out. It has no socket, no file and no clock
//! of its own.
//!
//! It is kept free of I/O so that it can be tested and fuzzed without either. The parser is stricter than
//! most: wherever RFC 9112 lets a server choose between guessing and refusing, this one refuses. Requests are
//! smuggled where two parties guess differently about where one ends.
//!
//! - [`inbox`] turns received chunks into requests, one after the other; [`body`] and [`chunked`] find the
//!   end of bodies;
//! - [`request`] reads one request head, with [`fields`], [`host`], [`method`], [`target`], [`conditions`],
//!   [`range`] and [`encoding`] for its parts;
//! - [`record`] keeps what a head said, for the log;
//! - [`choice`] decides what of a file an answer holds;
//! - [`response`] writes response heads, with [`etag`], [`date`], [`mime`] and [`multipart`].

pub(crate) mod body;
mod bytes;
pub(crate) mod choice;
pub(crate) mod chunked;
pub(crate) mod conditions;
pub(crate) mod date;
pub(crate) mod encoding;
pub(crate) mod etag;
pub(crate) mod fields;
pub(crate) mod host;
pub(crate) mod inbox;
pub(crate) mod method;
pub(crate) mod mime;
pub(crate) mod multipart;
mod path_memory;
pub(crate) mod range;
pub(crate) mod record;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod status;
pub(crate) mod target;

#[cfg(any(test, fuzzing))]
pub(crate) mod drive;
#[cfg(test)]
mod properties;

pub(crate) use status::{Refusal, Status};

/// The longest request head that is read, in bytes: request line, header lines and the empty line.
///
/// RFC 9110 4.1 asks for targets of 8000 bytes at least, and browsers send cookies beside them; nginx takes
/// as much.
pub(crate) const MAX_HEAD: usize = 32 * 1024;

/// The longest request line, in bytes, line end included (RFC 9112 3 recommends 8000 at least).
pub(crate) const MAX_REQUEST_LINE: usize = 8 * 1024;

/// The most header lines in one request.
pub(crate) const MAX_FIELDS: usize = 128;

/// The longest request body that is read and discarded, in bytes. A longer one is refused with 413.
pub(crate) const MAX_DISCARDED_BODY: u64 = 1024 * 1024;
