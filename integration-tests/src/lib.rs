//! Black-box tests of Annulus: helpers that the tests share.
//!
//! The tests drive the built program `annulus` from outside, as its users do: real files, real sockets, real
//! clients. They need `curl`, `taskset` (util-linux) and `numactl`, and a binary that was built before them:
//!
//! ```text
//! cargo build -p annulus-server && cargo test -p annulus-integration-tests
//! ```
//!
//! Root is exempt from the limits on pipes, locked memory and file modes, so they are also run as an ordinary
//! user:
//!
//! ```text
//! CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="setpriv --reuid nobody --regid nogroup --clear-groups" \
//!     cargo test -p annulus-integration-tests
//! ```
//!
//! # How the helpers fail
//! A helper that cannot do its job ends the test by a panic that says what failed, on what: a test has nobody
//! to hand an error to but the person who reads its output. Whatever may go wrong on the other side of a
//! socket, and is part of what a test looks at, comes back as an `io::Result`.
//!
//! # How the helpers wait
//! For events: a line, an end of file, a process that ends. Each wait has a watchdog ([`watch::LIMIT`]) so
//! that a server that hangs is a failed test and not a test run that never ends; no test passes or fails by
//! how long something took otherwise.

pub mod bin;
pub mod churn;
pub mod cpus;
pub mod curl;
pub mod digest;
pub mod dns;
pub mod examples;
pub mod files;
pub mod http;
pub mod lines;
pub mod namespace;
pub mod net;
pub mod numa_maps;
pub mod pattern;
pub mod peers;
pub mod prepare;
pub mod procfs;
pub mod server;
pub mod stats;
pub mod tls;
pub mod upstream;
pub mod watch;

/// The examples of the README of the whole, compiled.
#[doc = include_str!("../../README.md")]
#[cfg(doctest)]
struct Readme;
