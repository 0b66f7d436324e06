//! The HTTP/1.1 core: bytes and a clock in, a decision and bytes out. No socket, no file, no time of its own.
//!
//! It is kept free of I/O so that it can be tested, and later fuzzed, without either. The parser is stricter than
//! the field's habit: wherever RFC 9112 lets a server choose between guessing and refusing, this one refuses,
//! because two parties that guess differently about where a request ends are how requests are smuggled.
//!
//! - [`inbox`] turns received chunks into requests, one after the other;
//! - [`request`] reads one request head, with [`fields`], [`target`] and [`range`] for its parts;
//! - [`record`] keeps what a head said, for the log;
//! - [`response`] writes response heads, with [`date`] and [`mime`].

pub(crate) mod date;
pub(crate) mod fields;
pub(crate) mod inbox;
pub(crate) mod mime;
pub(crate) mod range;
pub(crate) mod record;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod status;
pub(crate) mod target;

#[cfg(test)]
mod properties;

pub(crate) use status::{Refusal, Status};

/// The longest request head that is read, in bytes: request line, header lines and the empty line.
///
/// RFC 9110 4.1 asks for targets of 8000 bytes at least, and browsers send cookies beside them.
pub(crate) const MAX_HEAD: usize = 16 * 1024;

/// The longest request line, in bytes, line end included (RFC 9112 3 recommends 8000 at least).
pub(crate) const MAX_REQUEST_LINE: usize = 8 * 1024;

/// The most header lines in one request.
pub(crate) const MAX_FIELDS: usize = 64;

/// The longest body of a GET or HEAD that is read and thrown away, in bytes. A longer one is refused with 413.
pub(crate) const MAX_DISCARDED_BODY: u64 = 64 * 1024;
