//! Bulk from a file to a socket, and from socket to socket, without passing through user memory.
//!
//! There are two kinds of calls, those like [`send_file`], and [`relay`], and two roads ([`Road`]). A relay,
//! and a file that is not in the page cache, use a pipe of the core's pool. Counters tell how many bytes each
//! road moved. [`splice`] and [`tee`] are single steps, by a [pipe](crate::pipe) of the caller's.

mod cold;
mod file_transfer;
pub(crate) mod pipe;
mod relay;
mod road;
mod send_file;
mod splice;
#[cfg(all(test, not(loom)))]
mod told;

pub use file_transfer::{Residency, SendFileError};
pub use relay::{Relay, RelayCause, RelayEnd, RelayLimits, relay, relay_within};
pub use road::{ParseRoadError, Road};
pub use send_file::{FileParts, send_cached, send_file, send_file_behind};
pub use splice::{Source, Target, splice, tee};
