//! What a core owns, and which core the current thread is.

mod all;
pub(crate) mod ask;
mod by_distance;
pub(crate) mod current_poll;
mod dispatch;
mod event_loop;
pub(crate) mod fairness;
mod get_block;
pub(crate) mod groups;
pub(crate) mod growth;
pub(crate) mod handle;
pub(crate) mod inbox;
pub(crate) mod inside;
pub(crate) mod notes;
pub(crate) mod options;
pub(crate) mod peers;
mod pipe_budget;
pub(crate) mod pipe_pool;
pub(crate) mod placement;
pub(crate) mod remote_hosts;
pub(crate) mod sharded;
pub(crate) mod shards;
pub(crate) mod shared;
pub(crate) mod spin;
pub(crate) mod state;
pub(crate) mod submit;
pub(crate) mod unix_path;

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::blocking::pool::BlockingPool;
use crate::buf::blocks::BlockPool;
use crate::buf::ring::BufRing;
use crate::current::{self, Current};
use crate::op::table::OpTable;
use crate::ring::Ring;
use crate::task::Tasks;
use crate::time::timers::Timers;
use fairness::Fairness;
use growth::Growth;
use notes::Notes;
use options::Options;
use peers::PeerCores;
use pipe_pool::PipePool;
use remote_hosts::ZeroCopy;
use shards::Shards;
use shared::CoreShared;
use spin::Spin;
use std::sync::Arc;
use std::time::Instant;

/// Ready operations that a task may consume in one poll before it must let others run.
const POLL_BUDGET: u32 = 128;

/// Everything that a core owns. It is on the stack of the core's thread while the core runs.
pub(crate) struct Core {
    pub(crate) shared: Arc<CoreShared>,
    pub(crate) options: Options,
    pub(crate) peers: PeerCores,
    pub(crate) shards: Shards,
    pub(crate) tasks: Tasks,
    pub(crate) budget: Budget,
    /// When the core last woke. It is kept only while time is measured.
    pub(crate) busy_since: Cell<Instant>,
    /// Kept only while it is to be known what tasks wait for.
    pub(crate) notes: Notes,
    pub(crate) spin: Spin,
    pub(crate) timers: Timers,
    pub(crate) pipes: Rc<PipePool>,
    pub(crate) bufs: BufRing,
    pub(crate) fairness: Fairness<Core>,
    pub(crate) blocks: Rc<BlockPool>,
    pub(crate) growth: Growth,
    pub(crate) blocking: Arc<BlockingPool>,
    pub(crate) zero_copy: ZeroCopy,
    pub(crate) ops: OpTable<Core>,
    pub(crate) ring: Ring,
}

thread_local! {
    static CURRENT: Current<Core> = const { Current::none() };
}

/// Makes a core the current one of this thread, with its buffers and its blocks, until dropped.
pub(crate) struct Entered<'a> {
    _core: current::Entered<'a, Core>,
    _bufs: current::Entered<'a, BufRing>,
    _blocks: current::Entered<'a, Rc<BlockPool>>,
}

impl Core {
    /// Makes this core the current one of the calling thread.
    pub(crate) fn enter(&self) -> Entered<'_> {
        Entered {
            _core: Current::enter(&CURRENT, self),
            _bufs: self.bufs.enter(),
            _blocks: BlockPool::enter(&self.blocks),
        }
    }

    /// Runs `f` with the current core; `None` on a thread that has none.
    #[inline(always)]
    pub(crate) fn try_with<R>(f: impl FnOnce(&Core) -> R) -> Option<R> {
        Current::try_with(&CURRENT, f)
    }

    /// Runs `f` with the current core.
    ///
    /// # Panics
    /// On a thread that is no core's.
    #[inline(always)]
    pub(crate) fn with<R>(f: impl FnOnce(&Core) -> R) -> R {
        #[cold]
        #[inline(never)]
        fn off_core() -> ! {
            panic!("not on a core: call this from a future that an annulus::Runtime runs")
        }
        Current::with(&CURRENT, f, off_core)
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

/// What is left of the current task's poll budget. Every operation that finds its result ready takes from it,
/// so that a task whose socket is always ready cannot keep the core.
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
        self.spend_for(0);
    }

    /// An operation was ready, and the core has moved so many bytes for it.
    pub(crate) fn spend_for(&self, bytes: usize) {
        const BYTES_OF_ONE: usize = (1 << 20) / POLL_BUDGET as usize;
        let spent = u32::try_from(1 + bytes / BYTES_OF_ONE).unwrap_or(POLL_BUDGET);
        self.0.set(self.0.get().saturating_sub(spent));
    }

    /// Whether any budget is left.
    pub(crate) fn is_left(&self) -> bool {
        self.0.get() > 0
    }

    /// `Pending` if the budget is used up; the task is then woken for the next tick.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.get() > 0 {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
