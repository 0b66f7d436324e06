//! An io_uring-based, NUMA-aware, thread-per-core runtime for Linux servers that move bytes.
//!
//! One pinned thread, one ring and one node-local memory pool per core; zero-copy paths from file to socket
//! and from socket to socket. Linux 6.1 or later, 64 bit. Where `io_uring` is refused, as in a container with
//! the default profile, it does not run, and [`probe_ring`] says so before anything starts: [what to
//! do](guide::refused).
//!
//! # From nothing to an echo server
//!
//! `cargo new echo`, and in its `Cargo.toml`:
//!
//! ```toml
//! [dependencies]
//! annulus = { version = "0.1", default-features = false } # from a checkout: path = "../annulus/runtime"
//! ```
//!
//! A Rust toolchain is enough for that. With the default features it is built with libhwloc and libnuma:
//! [what a build needs](guide::building).
//!
//! `src/main.rs`, the whole of it:
//!
//! ```no_run
//! use annulus::{Runtime, net::TcpListener};
//!
//! fn main() -> annulus::Result<()> {
//!     Runtime::builder().build()?.run(|| async {            // once per core, on that core; need not be Send
//!         let listener = TcpListener::bind("127.0.0.1:7000")?; // this core's member of the group
//!         loop {
//!             let stream = listener.accept().await?;
//!             annulus::spawn(async move {
//!                 while let Some(chunk) = stream.recv().await? { // a lease on this core's node-local memory
//!                     stream.send_all(chunk).await?;        // sent from where it lies
//!                 }
//!                 annulus::Ok(())
//!             })
//!             .detach();
//!         }
//!     })
//! }
//! ```
//!
//! `cargo run`, and in another terminal `nc 127.0.0.1 7000`. It runs on every CPU that the process may use;
//! [`Builder::cores`] chooses. A program that has a main thread of its own calls [`Runtime::start`] instead
//! of `run`.
//!
//! # Where things are
//!
//! | you want | look at |
//! |---|---|
//! | to begin | [the book](guide), [`main`](macro@main), [`test`](macro@test), [`Runtime::block_on`] |
//! | to start, configure, stop, inspect | [`Runtime`], [`Builder`], [`Running`], [`Report`], [`Counters`] |
//! | tasks | [`spawn`], [`JoinHandle`], [`TaskTracker`], [`scope`], [`yield_now`] |
//! | sockets | [`net`] |
//! | files, pipes, any other descriptor | [`fs`], [`pipe`], [`fd`] |
//! | bytes moved without a copy | [`transfer`] |
//! | buffers | [`buf`] |
//! | children | [`process`] |
//! | what `io_uring` can do and this crate does not ask for | [`operation`] |
//! | time | [`time`] |
//! | other cores, other threads | [`cores`], [`Handle`], [`spawn_blocking`] |
//! | where memory and threads lie | [`numa`] |
//! | TLS, HTTP/2, axum, WebSocket | [`guide::tls`] |
//! | to build it, with C libraries or without | [`guide::building`] |
//! | to find your way from tokio, monoio, glommio, compio or Seastar; what of other crates works here; what things weigh | [`guide`] |
//!
//! # Seeing inside
//!
//! | you want to know | ask | what it costs while you do not |
//! |---|---|---|
//! | what will be, and what is in force | [`Runtime::report`], [`Running::report`] | nothing |
//! | what the cores do | [`Running::counters`], [`cores::counters`] | they are always on: plain loads and stores |
//! | which task keeps its core from all else | [`Running::stalls`], [`Builder::report_stalls`] | 5 to 10 instructions a poll |
//! | what a future waits for | [`waits::watched`], with [`Builder::measure_waits`] | nothing |
//! | how long polls take, and how busy a core is | [`Builder::measure_polls`], [`Builder::measure_time`] | a branch a poll |
//! | where time goes, task by task | a `tracing` subscriber: a span `core` (level info) around each core, with its index and CPU, and under the target `annulus::polls` a span `poll` (level trace) around each poll, with the place where its task was spawned | some 5 instructions a tick of the loop (and what a tick is for takes thousands), nothing a poll |
//!
//! The instructions were counted by `scripts/instructions`, beside some 140 for a poll that yields, 520 for
//! a task spawned and awaited, and 2,800 for 100 bytes to another task and back.
//!
//! # What holds everywhere
//!
//! - **A core's things stay on their core.** Tasks, sockets and files are not `Send`. Values that are `Send`
//!   cross by [`cores::submit_to`] and channels. Functions of this crate panic on a thread that is no core's,
//!   and say so.
//! - **Dropping a future is always sound**, and each says under "Cancellation" what it means. Receiving and
//!   accepting lose nothing by it.
//! - **Memory given to the kernel stays where it is** until the operation's last completion. What an
//!   operation still brings after its future was dropped (its buffer, a descriptor, a connection) is dropped
//!   then, on its own core, in a later tick. A panic of its destructor is logged.
//! - **A core must not block, least of all on itself.** Requests of its tasks to the kernel, the close of a
//!   connection that they drop and the wake of another core leave at the end of the core's tick, when the
//!   tasks that are ready have been polled. A task that blocks its thread until something comes of that
//!   ([`std::thread::JoinHandle::join`], a `recv` of `std::sync::mpsc`, a `read` of a peer's socket) waits
//!   for ever. Await it, or let [`spawn_blocking`] wait.
//! - **Errors** ([`Error`]) say what failed, on what, and what to do; operations that took a buffer give it
//!   back with the error ([`buf::BufError`]).
//! - **The end is clean** ([`Running::stop`], [`Running::cut`]): tasks are dropped on their own cores, every
//!   operation is cancelled and its last completion awaited, and only then is memory released.
//! - **The end comes whatever panics.** A panic in a task is contained in it, also one of its destructors,
//!   output and payload. A panic of the application's code elsewhere on a core (a waker, a subscriber of
//!   `tracing`) ends all cores, and [`Runtime::run`] names it. The standard library aborts the process over a
//!   panic hook that panics, a thread-local value whose destructor panics, and a second panic of destructors
//!   that a first one runs.

mod block_on;
pub mod blocking;
pub mod buf;
mod calls;
pub mod channel;
mod clock;
pub mod compat;
mod contained;
mod core;
pub mod cores;
mod current;
mod error;
pub mod fd;
pub mod fs;
pub mod guide;
mod launch;
mod limits;
mod metrics;
pub mod net;
mod op;
pub mod operation;
pub mod pipe;
mod place;
#[cfg(all(any(test, feature = "played"), not(loom)))]
#[doc(hidden)]
#[cfg_attr(not(test), allow(dead_code, reason = "only tests of the library use all of it"))]
pub mod played;
mod privilege;
pub mod process;
mod ring;
pub mod signal;
mod sync;
mod task;
#[cfg(all(test, not(loom)))]
mod testing;
pub mod time;
pub mod transfer;
pub mod waits;

pub use annulus_numa as numa;

pub use crate::core::handle::Handle;
pub use crate::core::options::Options;
pub use crate::core::placement::PlacementPolicy;
pub use crate::metrics::counters::Counters;
pub use crate::metrics::histogram::Histogram;
pub use blocking::{BlockingError, BlockingHandle, spawn_blocking};
pub use calls::refused_calls;
pub use error::{Error, ErrorKind, Ok, Result};
#[doc(hidden)]
pub use launch::entry as __entry;
pub use launch::entry::{main, test};
pub use launch::{
    Builder, CoreReport, Forecast, Observer, RegionReport, Report, Running, Runtime, Stall, WorkerReport,
};
pub use ring::RingFeatures;
pub use ring::probe::{RingProbe, probe_ring};
pub use task::{AllEnded, JoinError, JoinHandle, Scope, ScopedHandle, TaskTracker, scope, spawn, yield_now};

/// The examples of this crate's README, compiled.
#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;
