//! A core: one pinned thread, one ring, one share of its node's pool, and the tasks that live there.
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
//! A core that has work for another rings for it once a turn, by a message between the rings (`IORING_OP_MSG_RING`,
//! Linux 5.18) that leaves with the turn's own system call; a core that is awake is not rung at all. So a task that blocks its thread until
//! another core has done something [waits for ever](crate#what-holds-everywhere). Waking a sleeping CPU is what
//! costs: tens of microseconds on virtual machines. So it pays to send several things in one turn, and to send them to a
//! core that is awake. `runtime/examples/ping_pong.rs` shows the worst case, where each message finds its core asleep.
//!
//! The functions here speak of the core that the caller runs on. They panic on a thread that is no core's.

mod all;
pub(crate) mod ask;
mod dispatch;
mod event_loop;
pub(crate) mod groups;
pub(crate) mod growth;
pub(crate) mod handle;
pub(crate) mod inbox;
pub(crate) mod inside;
pub(crate) mod options;
pub(crate) mod peers;
pub(crate) mod pipe_pool;
pub(crate) mod placement;
pub(crate) mod sharded;
pub(crate) mod shared;
pub(crate) mod spin;
pub(crate) mod state;
pub(crate) mod submit;
pub(crate) mod turn;
pub(crate) mod unix_path;
pub(crate) mod zero_copy_peers;

use std::cell::Cell;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::ptr;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::blocking::pool::BlockingPool;
use crate::buf::blocks::BlockPool;
use crate::buf::ring::BufRing;
use crate::metrics::counters::Counters;
use crate::net::fairness::Fairness;
use crate::numa::CpuId;
use crate::op::table::OpTable;
use crate::ring::Ring;
use crate::task::queue::Tasks;
use crate::time::timers::Timers;
use growth::Growth;
use options::Options;
use peers::Peers;
use pipe_pool::PipePool;
use sharded::Shards;
use shared::CoreShared;
use spin::Spin;
use std::sync::Arc;
use std::time::Instant;
use zero_copy_peers::ZeroCopy;

pub use peers::{Neighbour, least_loaded_neighbour, neighbours};
pub use sharded::{Local, Sharded};
pub use submit::{SubmitError, submit_to};

/// Ready operations that a task may consume in one poll before it must let others run.
const POLL_BUDGET: u32 = 128;

/// Everything that a core owns. Lives on its thread's stack for as long as the core runs.
pub(crate) struct Core {
    pub(crate) shared: Arc<CoreShared>,
    pub(crate) options: Options,
    pub(crate) peers: Peers,
    pub(crate) shards: Shards,
    pub(crate) tasks: Tasks,
    pub(crate) budget: Budget,
    /// When the core last woke. Kept only while time is measured.
    pub(crate) busy_since: Cell<Instant>,
    pub(crate) spin: Spin,
    pub(crate) timers: Timers,
    pub(crate) pipes: Rc<PipePool>,
    pub(crate) bufs: BufRing,
    pub(crate) fairness: Fairness,
    pub(crate) blocks: Rc<BlockPool>,
    pub(crate) growth: Growth,
    pub(crate) blocking: Arc<BlockingPool>,
    pub(crate) zero_copy: ZeroCopy,
    pub(crate) ops: OpTable,
    pub(crate) ring: Ring,
}

thread_local! {
    static CURRENT: Cell<*const Core> = const { Cell::new(ptr::null()) };
}

/// Makes a core the current one of this thread, until dropped.
pub(crate) struct Entered<'a>(PhantomData<&'a Core>);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        CURRENT.set(ptr::null());
    }
}

impl Core {
    /// Makes this core the current one of the calling thread.
    pub(crate) fn enter(&self) -> Entered<'_> {
        CURRENT.set(self);
        Entered(PhantomData)
    }

    /// Runs `f` with the current core; `None` on a thread that has none.
    pub(crate) fn try_with<R>(f: impl FnOnce(&Core) -> R) -> Option<R> {
        let core = CURRENT.get();
        // SAFETY: the pointer is set by `enter` and reset when its guard, which borrows the core, is dropped; it
        // never leaves this thread.
        unsafe { core.as_ref() }.map(f)
    }

    /// Runs `f` with the current core.
    ///
    /// # Panics
    /// On a thread that is no core's.
    pub(crate) fn with<R>(f: impl FnOnce(&Core) -> R) -> R {
        match Self::try_with(f) {
            Some(result) => result,
            None => panic!("not on a core: call this from a future that an annulus::Runtime runs"),
        }
    }

    /// Whether the calling thread is a core's.
    pub(crate) fn is_here() -> bool {
        Self::try_with(|_| ()).is_some()
    }

    /// Whether `shared` is this thread's core.
    pub(crate) fn is_current(shared: &Arc<CoreShared>) -> bool {
        Self::try_with(|core| Arc::ptr_eq(&core.shared, shared)).unwrap_or(false)
    }
}

/// What is left of the current task's poll budget. Every operation that finds its result ready spends from it, so that
/// a task whose socket is always full cannot keep the core.
pub(crate) struct Budget(Cell<u32>);

impl Budget {
    pub(crate) fn new() -> Self {
        Self(Cell::new(POLL_BUDGET))
    }

    /// A new task is polled.
    pub(crate) fn refill(&self) {
        self.0.set(POLL_BUDGET);
    }

    /// An operation was ready.
    pub(crate) fn spend(&self) {
        self.0.set(self.0.get().saturating_sub(1));
    }

    /// Whether there is any.
    pub(crate) fn is_left(&self) -> bool {
        self.0.get() > 0
    }

    /// `Pending`, with the task woken for its next turn, when the budget is used up.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.get() > 0 {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

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

/// The number of the turn that the current core's loop is in, from 1 on. Whatever the tasks that are polled in one turn were asked
/// by the ring had been asked when the turn began: what one of them finds out about the world is new enough for all.
///
/// # Panics
/// On a thread that is no core's.
pub fn turn() -> u64 {
    Core::with(|core| core.shared.counters.turns.get())
}

/// The counters of the current core, as they were when its last turn ended.
///
/// # Panics
/// On a thread that is no core's.
pub fn counters() -> Counters {
    Core::with(|core| core.shared.counters.read(core.shared.index))
}

/// A handle on this runtime, for threads outside it: [`Handle::submit_to`](crate::Handle::submit_to) sends work in.
///
/// # Panics
/// On a thread that is no core's.
pub fn handle() -> crate::Handle {
    Core::with(|core| crate::Handle::new(Arc::clone(&core.shared.runtime), core.peers.members()))
}

/// Whether the runtime was asked to stop ([`Running::stop`](crate::Running::stop)).
///
/// # Panics
/// On a thread that is no core's.
pub fn is_stopping() -> bool {
    Core::with(|core| core.shared.runtime.is_stopping())
}

/// Completes when the runtime is asked to stop: the time to close listeners and let connections finish.
///
/// # Cancellation
/// Safe: dropping the future forgets the wait.
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
    /// Its place among those that wait.
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
            core.tasks.wait_for_stop(&mut self.waits, cx.waker());
            Poll::Pending
        })
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        if let Some(key) = self.waits {
            Core::try_with(|core| core.tasks.forget_stop(key));
        }
    }
}
