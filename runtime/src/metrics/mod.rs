//! What a core counts. Its own thread writes the counts, and any thread may read them.

mod counter;
pub(crate) use counter::Counter;
pub(crate) mod counters;
pub(crate) mod histogram;
