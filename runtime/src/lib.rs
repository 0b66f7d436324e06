//! An io_uring-based, NUMA-aware, thread-per-core runtime for Linux servers that move bytes.
//!
//! One pinned thread, one ring and one node-local memory pool per core; zero-copy paths from file to socket and from
//! socket to socket. Linux 6.1 or later.

mod block_on;
pub mod blocking;
pub mod buf;
pub mod channel;
pub mod compat;
pub mod core;
mod error;
pub mod fs;
pub mod net;
mod op;
pub mod pipe;
mod ring;
mod runtime;
pub mod signal;
mod sync;
mod task;
pub mod time;
pub mod transfer;

pub use annulus_numa as numa;

pub use crate::core::counters::Counters;
pub use crate::core::histogram::Histogram;
pub use blocking::{BlockingError, BlockingHandle, spawn_blocking};
pub use error::{Error, ErrorKind, Ok, Result};
pub use ring::RingFeatures;
pub use ring::probe::{RingProbe, probe_ring};
pub use runtime::{
    Builder, CoreReport, Handle, Options, PlacementPolicy, RegionReport, Report, Running, Runtime, Stall,
    WorkerReport,
};
pub use task::{JoinError, JoinHandle, Scope, ScopedHandle, scope, spawn, yield_now};

/// The example of the README, compiled.
#[doc = include_str!("../../README.md")]
#[cfg(doctest)]
struct Readme;
