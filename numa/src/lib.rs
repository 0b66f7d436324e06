//! Machine topology, thread and memory placement, and node-local pools whose pages are proven to lie where
//! they should.
//!
//! Read in this order:
//! - [`topology`] says what the machine has and what this process may use of it.
//! - [`plan`] chooses the cores to run on.
//! - [`thread`] starts a thread that is pinned to its core, with its stack and thread-local storage on the
//!   right node.
//! - [`region`] makes memory on a node, and [`pool`] divides it among the node's cores.
//! - [`image`] copies the program itself to the node of a process that runs on one.
//! - [`verify`] asks where pages really lie.
//!
//! All that is public here is for programs that place threads and memory themselves, with or without the
//! runtime, which re-exports it as `annulus::numa`. The runtime is built on [`topology`], [`plan`],
//! [`region`], [`pool`], [`thread`], [`verify`] and the sets [`CpuSet`] and [`NodeSet`]. Reports, `annulus
//! doctor` and `annulus numa-bench` ask [`cgroup`], [`devices`], [`probe`] and [`measure`]. [`image`] is for
//! programs that run a process for each node. System calls are private (`sys`).
//!
//! It runs on 64-bit Linux 6.1 and later.
//!
//! # Features
//!
//! | feature, on by default | what it uses | without it |
//! |---|---|---|
//! | `hwloc` | libhwloc, for packages, cores and caches | `/sys/devices/system/cpu` says the same |
//! | `libnuma` | libnuma's allocator, for regions | mmap(2) and mbind(2), which that calls |
//!
//! To build with both, Debian needs `libhwloc-dev libnuma-dev libudev-dev` and pkg-config (hwlocality asks
//! the linker for libudev, which hwloc's static link line names). With `default-features = false` no C
//! library is needed.

pub mod cgroup;
mod contained;
pub mod devices;
pub mod error;
pub mod ids;
pub mod image;
pub mod measure;
pub mod plan;
pub mod pool;
pub mod probe;
pub mod region;
pub mod set;
mod sys;
pub mod thread;
pub mod topology;
pub mod verify;

pub use error::{Error, ErrorKind, Result};
pub use ids::{CpuId, NodeId};
pub use set::{CpuSet, NodeSet};

/// The example of this crate's README, compiled.
#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;
