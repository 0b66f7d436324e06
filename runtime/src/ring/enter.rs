//! The one system call of a tick: submit, run deferred work, wait.

use std::io;
use std::time::Duration;

use super::Ring;
use crate::{Error, ErrorKind, Result};

// The io_uring crate does not export it (linux/io_uring.h).
const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_SQ_WAKEUP: u32 = 1 << 1;
const ENTER_SQ_WAIT: u32 = 1 << 2;
pub(super) const ENTER_NO_IOWAIT: u32 = 1 << 7;

/// How long an enter waits for a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It does not wait: it submits, runs deferred work, and returns.
    No,
    /// Until one completes, or at most this long.
    For(Duration),
    /// Until one completes.
    Forever,
}

/// How a core that sleeps gathers completions (`IORING_FEAT_MIN_TIMEOUT`, Linux 6.12): with fewer it wakes
/// only when the time is over, and after that with the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MinWait {
    pub(crate) micros: u32,
    /// More than one.
    pub(crate) completions: u32,
}

impl MinWait {
    /// For a core that has so many operations in flight, which may bring no more than a completion each.
    fn among(self, operations: usize) -> Option<Self> {
        let completions = self.completions.min(u32::try_from(operations).unwrap_or(u32::MAX));
        (completions > 1).then_some(Self { completions, ..self })
    }
}

impl Ring {
    /// Submits what is queued, runs deferred work and waits as told. Interruptions and time-outs are no
    /// errors: the caller checks the completion queue and decides again.
    pub(crate) fn enter(&self, wait: Wait) -> Result<()> {
        self.enter_gathering(wait, None).or_else(Self::failed)
    }

    /// As [`enter`](Self::enter), for a core that sleeps while `operations` are in flight: it gathers
    /// completions, where that was [asked for](MinWait). An error is for [`failed`](Self::failed) to judge.
    #[inline(always)]
    pub(crate) fn sleep(&self, wait: Wait, operations: impl FnOnce() -> usize) -> io::Result<()> {
        self.enter_gathering(wait, self.min_wait.and_then(|min_wait| min_wait.among(operations())))
    }

    #[inline(always)]
    fn enter_gathering(&self, wait: Wait, gather: Option<MinWait>) -> io::Result<()> {
        let wait = if self.early.borrow().is_empty() { wait } else { Wait::No };
        self.enter_once(wait, gather)
    }

    /// What an enter's error means. Its text is made here, because an [`Error`] would make the result of each
    /// enter large.
    #[cold]
    #[inline(never)]
    pub(crate) fn failed(error: io::Error) -> Result<()> {
        match error.raw_os_error() {
            Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => Err(Error::with_source(
                ErrorKind::Platform,
                "io_uring_enter is refused, most likely by the container's seccomp profile; allow it beside io_uring_setup and \
                 io_uring_register",
                error,
            )),
            _ => Err(Error::io("io_uring_enter failed", error)),
        }
    }

    #[inline(always)]
    pub(super) fn enter_once(&self, wait: Wait, gather: Option<MinWait>) -> io::Result<()> {
        let to_submit = self.queues.unsubmitted() as libc::c_uint;
        let mut flags = ENTER_GETEVENTS;
        if self.is_polled() {
            // The poller submits. An enter is only needed to wake it, to wait, and to fetch what overflowed.
            let nothing_to_wait_for = wait == Wait::No || self.has_completions();
            if self.queues.must_wake_poller() {
                self.counters.poller_wakes.add(1);
                flags |= ENTER_SQ_WAKEUP;
            } else if nothing_to_wait_for && !self.has_overflowed() {
                return Ok(());
            }
        }
        self.count_enter(to_submit);
        self.queues.enter(to_submit, wait, gather, flags)
    }

    fn count_enter(&self, to_submit: libc::c_uint) {
        self.counters.enters.add(1);
        self.counters.sqes_per_enter.record(to_submit.into());
    }

    /// Whether a kernel thread takes the submissions.
    pub(super) fn is_polled(&self) -> bool {
        self.features.sqpoll.is_some()
    }

    /// Waits until the submission poller has taken something (`IORING_ENTER_SQ_WAIT`, Linux 5.10).
    pub(super) fn wait_for_poller(&self) -> io::Result<()> {
        let wake = if self.queues.must_wake_poller() { ENTER_SQ_WAKEUP } else { 0 };
        self.counters.poller_wakes.add((wake != 0).into());
        self.count_enter(0);
        self.queues.enter(0, Wait::No, None, ENTER_SQ_WAIT | wake)
    }
}
