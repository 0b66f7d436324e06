//! Calls from other threads to a core.
//!
//! Every core has one bounded [`Queue`] of calls, in its own memory. A sender writes into the receiver's
//! memory, never the other way round. A task that finds the queue full waits for a free place, and its core
//! goes on meanwhile. Answers do not use the inbox (each has a cell of its own), so a core that waits for an
//! answer never keeps another from sending to it.
//!
//! Calls in the queue when the core ends are dropped, and a dropped call tells its sender.

use std::os::fd::RawFd;

use super::Core;
use super::shared::CoreShared;
use crate::sync::queue::Queue;

/// Places in a core's inbox. Each is a pointer pair and a stamp (24 bytes).
const PLACES: usize = 512;
/// Calls that a core takes in each tick, even if it has much else to do, so that none waits for ever.
const AT_LEAST: usize = 16;

/// Work for a core. If it is dropped without being called, it tells its sender.
pub(crate) type RemoteCall = Box<dyn FnOnce() + Send>;

/// What a core shows to others once it is up.
pub(crate) struct Inbox {
    pub(crate) calls: Queue<RemoteCall>,
    /// The descriptor of the core's ring, valid until all cores of the runtime have ended.
    pub(crate) ring_fd: RawFd,
}

impl Inbox {
    /// Called on the core's own thread, so that the queue lies on its node.
    pub(crate) fn open(ring_fd: RawFd) -> Self {
        Self { calls: Queue::new(PLACES), ring_fd }
    }
}

impl CoreShared {
    /// Puts a call into this core's inbox as soon as it has a free place. If the core has ended, or ends
    /// before that, the call is dropped.
    pub(crate) async fn send(&self, call: RemoteCall) {
        if let Some(inbox) = self.inbox.get() {
            drop(inbox.calls.put(call, || self.notify()).await);
        }
    }
}

impl Core {
    /// Whether the inbox is empty. Between the doorbell's `prepare_sleep` and the sleep this is the decisive
    /// check: a sender notifies after its call is in the queue.
    pub(crate) fn has_no_calls(&self) -> bool {
        self.shared.inbox.get().is_none_or(|inbox| inbox.calls.is_empty())
    }

    /// Takes calls until `polls` tasks are ready, but at least [`AT_LEAST`]. The others stay in the queue,
    /// and a full queue slows the senders down.
    pub(crate) fn take_calls(&self, polls: usize) {
        let Some(inbox) = self.shared.inbox.get() else { return };
        if inbox.calls.is_empty() {
            return;
        }
        let most = polls.saturating_sub(self.tasks.ready_len()).max(AT_LEAST);
        let mut taken = 0;
        while taken < most {
            let Some(call) = inbox.calls.try_take() else { break };
            taken += 1;
            call();
        }
        inbox.calls.freed(taken);
        self.shared.counters.errands.add(taken as u64);
    }

    /// Closes the inbox: no more calls are taken, and the senders of those in the queue are told.
    pub(crate) fn close_inbox(&self) {
        if let Some(inbox) = self.shared.inbox.get() {
            inbox.calls.close();
        }
    }
}
