//! Bulk from a file to a socket, and from socket to socket, without passing through user memory.
//!
//! There are two calls, [`send_file`] and [`relay`], and two roads ([`Road`]). Both calls use a pipe of the
//! core's pool. Counters tell how many bytes each road moved. [`splice`] and [`tee`] are single steps, by a
//! [pipe](crate::pipe) of the caller's.

pub(crate) mod pipe;
mod relay;
mod road;
mod send_file;
mod splice;

pub use relay::{Relay, RelayCause, RelayEnd, RelayLimits, relay, relay_within};
pub use road::{ParseRoadError, Road};
pub use send_file::{SendFileError, send_file};
pub use splice::{Source, Target, splice, tee};
