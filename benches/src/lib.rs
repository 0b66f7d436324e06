//! Yardsticks for Annulus: the same work done on a bare io_uring, a load driver that checks every byte before
//! it measures, and a harness that runs contestants beside each other and compares the CPU time each of them
//! spent.
//!
//! - [`bare`]: what the baseline servers share (ring, buffer ring, sockets); the servers are
//!   `src/bin/bare_*`.
//! - [`drive`]: the load driver; `src/bin/drive.rs` is its command line.
//! - [`cold`], [`memory`], [`cputime`]: the page cache, memory and CPU time of others.
//! - [`micro`]: operations of a runtime that are too small for a load driver.
//! - [`stats`], [`histogram`], [`pooled`]: what rounds say, and how surely.
//! - [`contest`]: the table of contestants and the rounds; `src/bin/compare.rs` is its command line.
//!
//! Contestants that are other runtimes build in `benches/peers`, a workspace of its own.

pub mod answer_args;
pub mod bare;
pub mod cold;
pub mod contest;
pub mod cputime;
pub mod drive;
pub mod histogram;
pub mod memory;
pub mod micro;
pub mod pattern;
pub mod pin;
pub mod pooled;
pub mod size;
pub mod stats;
