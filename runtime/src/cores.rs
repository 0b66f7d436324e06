//! A core: one pinned thread, one ring, one share of its node's pool, and its tasks.
//!
//! # Across cores
//!
//! Cores share nothing and send each other work, values, and connections:
//!
//! | to | there is | where it lies |
//! |---|---|---|
//! | run something on another core and have its output | [`submit_to`], from outside [`Handle::submit_to`](crate::Handle::submit_to) | in the other core's inbox |
//! | keep state that is split by core | [`Sharded`] | each part on its core |
//! | send many values to one core | [`channel::bounded`](crate::channel::bounded) | in the receiver's memory |
//! | send one value | [`channel::oneshot`](crate::channel::oneshot()) | with who made it |
//! | give a connection to a core that has less to do | [`Connection::hand_over`](crate::net::Connection::hand_over), [`neighbours`], [`least_loaded_neighbour`] | its bytes stay where they were received |
//!
//! A core that has work for another notifies it once a tick, by a message between the rings
//! (`IORING_OP_MSG_RING`, Linux 5.18) that leaves with the tick's own system call. A core that is awake is
//! not notified at all. So a task that blocks its thread until another core has done something [waits for
//! ever](crate#what-holds-everywhere). Waking a sleeping CPU is the main cost: tens of microseconds on
//! virtual machines. So it pays to send several things in one tick, and to send them to a core that is awake.
//! `runtime/examples/ping_pong.rs` shows the worst case, where each message finds its core asleep.
//!
//! The functions here are about the core that the caller runs on. They panic on a thread that is no core's.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::core::Core;
use crate::metrics::counters::Counters;
use crate::numa::CpuId;

pub use crate::core::peers::{Neighbour, least_loaded_neighbour, neighbours};
pub use crate::core::sharded::{Local, Sharded};
pub use crate::core::submit::{SubmitError, submit_to};

/// The index of the current core: 0 for the first of the core plan.
///
/// # Panics
/// On a thread that is no core's.
pub fn index() -> usize {
    Core::with(|core| core.shared.index)
}

/// How many cores this runtime has.
///
/// # Panics
/// On a thread that is no core's.
pub fn count() -> usize {
    Core::with(|core| core.shared.runtime.cores())
}

/// The CPU that the current core is pinned to.
///
/// # Panics
/// On a thread that is no core's.
pub fn cpu() -> CpuId {
    Core::with(|core| core.shared.cpu)
}

/// The number of the tick that the current core's loop is in, from 1 on. All requests that tasks get in one
/// tick had arrived when the tick began. So what one task finds out in it (about a file, for example) is
/// recent enough for all of them.
///
/// # Panics
/// On a thread that is no core's.
pub fn tick() -> u64 {
    Core::with(|core| core.shared.counters.turns.get())
}

/// The counters of the current core, as they were when its last tick ended.
///
/// # Panics
/// On a thread that is no core's.
pub fn counters() -> Counters {
    Core::with(|core| core.shared.counters.read(core.shared.index))
}

/// A handle on this runtime, for threads outside it: [`Handle::submit_to`](crate::Handle::submit_to) sends
/// work to a core.
///
/// # Panics
/// On a thread that is no core's.
pub fn handle() -> crate::Handle {
    crate::Handle::of_current()
}

/// Whether the runtime was asked to stop ([`Running::stop`](crate::Running::stop)).
///
/// # Panics
/// On a thread that is no core's.
pub fn is_stopping() -> bool {
    Core::with(|core| core.shared.runtime.is_stopping())
}

/// Completes when the runtime is asked to stop, so that listeners can be closed and connections can finish.
///
/// # Cancellation
/// Safe: dropping the future ends the wait.
///
/// # Panics
/// When polled on a thread that is no core's.
pub fn stopping() -> Stopping {
    Stopping { waits: None, _this_core: PhantomData }
}

/// The future of [`stopping`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Stopping {
    /// Its place among the waiting tasks.
    waits: Option<usize>,
    _this_core: PhantomData<*const ()>,
}

impl Future for Stopping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Core::with(|core| {
            if core.shared.runtime.is_stopping() {
                return Poll::Ready(());
            }
            core.tasks.stop.wait(&mut self.waits, cx.waker());
            Poll::Pending
        })
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        if let Some(key) = self.waits {
            Core::try_with(|core| core.tasks.stop.forget(key));
        }
    }
}
