//! An io_uring-based, NUMA-aware, thread-per-core runtime for Linux servers that move bytes.
pub use annulus_numa as numa;
