//! Files.

mod file;
mod open;
mod residency;

pub use file::{File, FileKind, Stat};
pub use open::{Dir, OpenOptions};
pub(crate) use residency::{cached, has_cachestat};
