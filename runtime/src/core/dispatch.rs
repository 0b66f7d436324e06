//! Which handler a CQE goes to, and the SQEs that belong to no operation: the doorbell's poll and closes.

use std::io;

use io_uring::{opcode, squeue, types};

use super::Core;
use super::peers::BY_RING;
use crate::op::waits_for::WaitsFor;
use crate::ring::Cqe;
use crate::ring::user_data::Tag;

impl Core {
    /// One CQE.
    #[inline(always)]
    pub(crate) fn dispatch(&self, cqe: Cqe) {
        // A failed head (it was cancelled) stands for the operation behind it, which then posts no CQE.
        match Tag::operation(cqe.user_data) {
            Some(bits) => self.ops.complete(self, bits, cqe),
            None => self.dispatch_other(cqe),
        }
    }

    /// One that belongs to no operation.
    #[inline(never)]
    fn dispatch_other(&self, cqe: Cqe) {
        match Tag::split(cqe.user_data) {
            // Only failures come: the outcome is in the cancelled operation's own CQE.
            Some((Tag::Cancel, _)) => {}
            // Its only purpose was to end the sleep, and it has.
            Some((Tag::Doorbell, BY_RING)) => {}
            Some((Tag::Doorbell, _)) => {
                if !cqe.more() && !self.tasks.is_ending() {
                    self.arm_doorbell();
                }
            }
            tag => self.dispatch_failure(tag, cqe),
        }
    }

    /// The same, and a note of what it is that wakes tasks.
    pub(crate) fn dispatch_noted(&self, cqe: Cqe) {
        let waits_for = Tag::operation(cqe.user_data).and_then(|bits| self.ops.waits_for(bits));
        let [workers, _] = self.ring.features().iowq_max_workers;
        let given = self.shared.counters.iowq_punts.get();
        self.notes.completes(waits_for.unwrap_or((WaitsFor::Others, false)), given, workers.into());
        self.dispatch(cqe);
    }

    /// Logs an unexpected completion. Out of line: its events would cost all others.
    #[cold]
    fn dispatch_failure(&self, tag: Option<(Tag, u64)>, cqe: Cqe) {
        let why = io::Error::from_raw_os_error(-cqe.result);
        match tag {
            Some((Tag::Close, fd)) => tracing::warn!("close of descriptor {fd}: {why}"),
            Some((Tag::Signal, peer)) => {
                // First: a subscriber that panics must not keep the other core asleep.
                self.peers.ring_refused(peer as usize);
                tracing::info!(
                    "core {peer} is woken by its eventfd: its ring takes no message (IORING_OP_MSG_RING): {why}"
                );
            }
            _ => tracing::error!("a CQE that nobody asked for: {cqe:?}"),
        }
    }

    /// Lets the ring watch the doorbell's eventfd. Multishot polls report each write (they are
    /// edge-triggered), so the counter need never be read.
    pub(crate) fn arm_doorbell(&self) {
        let entry = opcode::PollAdd::new(types::Fd(self.shared.eventfd()), libc::POLLIN as u32)
            .multi(true)
            .build()
            .user_data(Tag::Doorbell.with(0));
        // SAFETY: a poll points to nothing, and the eventfd lives as long as the core's shared part.
        unsafe { self.ring.push(&entry) };
    }

    /// Closes a descriptor that nobody waits for, through the ring.
    pub(crate) fn close(&self, fd: std::os::fd::OwnedFd) {
        use std::os::fd::IntoRawFd;
        let fd = fd.into_raw_fd();
        let entry = opcode::Close::new(types::Fd(fd))
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Tag::Close.with(fd as u64));
        // SAFETY: a close points to nothing; the descriptor is ours and is given up here.
        unsafe { self.ring.push(&entry) };
    }
}
