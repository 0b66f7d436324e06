//! What other threads may access of a core: its mailbox, its doorbell, its counters.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock};

use super::Core;
use super::current_poll::CurrentPoll;
use super::inbox::Inbox;
use crate::buf::memory::WakeOwner;
use crate::contained::told;
use crate::core::growth::Recorded;
use crate::core::state::RuntimeShared;
use crate::error::os;
use crate::metrics::counters::CoreCounters;
use crate::numa::CpuId;
use crate::sync::mailbox::{Doorbell, WakeList};
use crate::task::Woken;

/// The part of a core that outlives its thread. Tasks and wakers keep it. It is on pages of its own, which
/// the core moves to its node, because the thread that starts the runtime makes it.
#[repr(align(4096))]
pub(crate) struct CoreShared {
    pub(crate) index: usize,
    pub(crate) cpu: CpuId,
    pub(crate) runtime: Arc<RuntimeShared>,
    pub(crate) counters: CoreCounters,
    /// Which task is being polled.
    pub(crate) current_poll: CurrentPoll,
    pub(crate) woken: WakeList<Woken>,
    /// What the core shows to others. It is set when the core is up, before any core begins.
    pub(crate) inbox: OnceLock<Inbox>,
    pub(crate) growth: Recorded,
    doorbell: Doorbell,
    /// The eventfd that the core's ring polls.
    eventfd: OwnedFd,
}

impl WakeOwner for CoreShared {
    fn wake(&self) {
        self.notify();
    }
}

impl CoreShared {
    pub(crate) fn new(index: usize, cpu: CpuId, runtime: Arc<RuntimeShared>) -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self {
            index,
            cpu,
            runtime,
            counters: CoreCounters::default(),
            current_poll: CurrentPoll::new(),
            woken: WakeList::new(),
            inbox: OnceLock::new(),
            growth: Recorded::default(),
            doorbell: Doorbell::new(),
            eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(os)?,
        })
    }

    /// The memory that it occupies.
    pub(crate) fn addresses(&self) -> Range<usize> {
        let start = std::ptr::from_ref(self).addr();
        start..start + size_of::<Self>()
    }

    pub(crate) fn eventfd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }

    /// The receiver's side of the doorbell.
    pub(crate) fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }

    /// Notifies the core of work that was queued before this call: from another core of the runtime [at the
    /// end of that core's tick](super::peers), from elsewhere at once.
    pub(crate) fn notify(&self) {
        let later = Core::try_with(|here| here.peers.notify_later(self)).unwrap_or(false);
        if !later && self.doorbell.notify() {
            self.signal();
        }
    }

    /// Ends the core's sleep by a write to its eventfd.
    pub(crate) fn signal(&self) {
        // The counter cannot overflow: that would take 2^64 - 1 notifications. A failure here would lose a
        // wake, and there is no caller to tell: it is a broken invariant, not an outside cause.
        match rustix::io::write(&self.eventfd, &1u64.to_ne_bytes()) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
            Err(e) => self.cannot_be_woken(e),
        }
    }

    #[cold]
    #[inline(never)]
    fn cannot_be_woken(&self, e: rustix::io::Errno) {
        // Wakers call this, on any thread and in destructors: it must not panic.
        told(|| tracing::error!("core {} cannot be woken: write to its eventfd: {e}", self.index));
    }

    /// Wakes a task of this core from another thread. After the core's end this does nothing: the future has
    /// been dropped.
    pub(crate) fn wake(&self, task: Woken) {
        if self.woken.push(task).is_ok() {
            Core::try_with(|here| here.peers.count_wake(&here.shared.counters, self));
            self.notify();
        }
    }
}
