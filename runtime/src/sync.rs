//! The atomics of the parts that loom checks: the standard ones, or loom's under `--cfg loom`.
//!
//! Only the wake path and the return path of blocks use this module. Loom's atomics work inside a loom
//! model and nowhere else, so under `--cfg loom` only the tests whose path contains `loom` can run:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p annulus --release --lib loom
//! ```

#[cfg(loom)]
pub(crate) use loom::sync::atomic;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic;
