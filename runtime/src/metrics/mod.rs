//! What a core counts: written by its own thread, read by any.

mod counter;
pub(crate) use counter::Counter;
pub(crate) mod counters;
pub(crate) mod histogram;
