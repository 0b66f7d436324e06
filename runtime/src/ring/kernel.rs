//! The kernel's side of a ring: its two queues in shared memory, and the system calls on it.
//!
//! [`Ring`](super::Ring) decides when to call the kernel, and this makes the calls. Tests of the library put
//! a [player](super::played) in its place. Elsewhere [`Ring`](super::Ring) knows only this type, so that
//! costs nothing.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::{IoUring, cqueue, squeue};

use super::enter::{MinWait, Wait};
use super::register;
use crate::contained::told;

// The io_uring crate does not export it (linux/io_uring.h).
const ENTER_EXT_ARG: u32 = 1 << 3;
pub(super) const ENTER_REGISTERED_RING: u32 = 1 << 4;

/// `struct io_uring_getevents_arg` of linux/io_uring.h.
#[repr(C)]
struct GetEventsArg {
    sigmask: u64,
    sigmask_sz: u32,
    min_wait_usec: u32,
    ts: u64,
}

/// A wait that gathers and has no end of its own would end with the minimum wait, although nothing has
/// completed (io_cqring_min_timer_wakeup() in io_uring/io_uring.c). So it ends once a day.
const LONGEST_GATHERING: Duration = Duration::from_secs(24 * 3600);

/// A ring of the kernel.
pub(super) struct Kernel {
    ring: IoUring,
    /// The ring's descriptor, or its number among those that the thread has registered.
    enter_fd: RawFd,
    /// The flags of every enter.
    enter_flags: u32,
}

impl Kernel {
    /// A ring. `enter_fd` is a registered descriptor if `enter_flags` say so.
    pub(super) fn new(ring: IoUring, enter_fd: RawFd, enter_flags: u32) -> Self {
        Self { ring, enter_fd, enter_flags }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    /// For registrations.
    pub(super) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.ring.submitter()
    }

    /// Whether receives may bring several buffers at once (Linux 6.10).
    pub(super) fn offers_bundles(&self) -> bool {
        self.ring.params().is_feature_recvsend_bundle()
    }

    /// Registers a ring of buffers.
    ///
    /// # Safety
    /// The memory at `address` holds `slots` entries, is page-aligned, and stays until the group is
    /// unregistered.
    pub(super) unsafe fn register_buf_ring(
        &self,
        address: u64,
        slots: u16,
        group: u16,
        flags: u16,
    ) -> io::Result<()> {
        // SAFETY: handed on to the caller.
        unsafe { self.ring.submitter().register_buf_ring_with_flags(address, slots, group, flags) }
    }

    pub(super) fn unregister_buf_ring(&self, group: u16) -> io::Result<()> {
        self.ring.submitter().unregister_buf_ring(group)
    }

    /// Queues SQEs that belong together. False: the queue has too few free entries for all of them.
    ///
    /// # Safety
    /// What the entries point to stays valid and unmoved until its final CQE.
    #[inline(always)]
    pub(super) unsafe fn push(&self, entries: &[squeue::Entry]) -> bool {
        // SAFETY: one thread only (`Ring` is neither Send nor Sync) and no other queue value is alive here.
        let mut sq = unsafe { self.ring.submission_shared() };
        if sq.capacity() - sq.len() < entries.len() {
            return false;
        }
        // SAFETY: the caller keeps what the entries point to.
        let pushed = unsafe { sq.push_multiple(entries) };
        debug_assert!(pushed.is_ok(), "the queue had space");
        true
    }

    /// Queues one SQE. False: the queue is full.
    ///
    /// # Safety
    /// As for [`push`](Self::push).
    #[inline(always)]
    pub(super) unsafe fn push_one(&self, entry: &squeue::Entry) -> bool {
        // SAFETY: as in `push`; the caller keeps what the entry points to.
        unsafe { self.ring.submission_shared().push(entry) }.is_ok()
    }

    /// How many SQEs the kernel has not taken yet.
    #[inline(always)]
    pub(super) fn unsubmitted(&self) -> usize {
        // SAFETY: as in `push`.
        unsafe { self.ring.submission_shared() }.len()
    }

    /// How many completions are in the queue.
    #[inline(always)]
    pub(super) fn completions(&self) -> usize {
        // SAFETY: as in `push`.
        unsafe { self.ring.completion_shared() }.len()
    }

    /// Whether completions can be taken, or made by an enter.
    #[inline(always)]
    pub(super) fn has_completions(&self) -> bool {
        // SAFETY: as in `push`.
        let (waiting, taskrun) =
            unsafe { (!self.ring.completion_shared().is_empty(), self.ring.submission_shared().taskrun()) };
        waiting || taskrun
    }

    /// Whether an enter would do anything: SQEs to hand over, deferred work to run, or overflowed CQEs to
    /// fetch.
    #[inline(always)]
    pub(super) fn wants_enter(&self) -> bool {
        // SAFETY: as in `push`.
        let sq = unsafe { self.ring.submission_shared() };
        !sq.is_empty() || sq.taskrun() || sq.cq_overflow()
    }

    /// Whether the kernel keeps completions that did not fit the queue.
    #[inline(always)]
    pub(super) fn has_overflowed(&self) -> bool {
        // SAFETY: as in `push`.
        unsafe { self.ring.submission_shared() }.cq_overflow()
    }

    /// Whether the submission poller sleeps and has something to take.
    pub(super) fn must_wake_poller(&self) -> bool {
        // SAFETY: as in `push`. `need_wakeup` puts a sequentially consistent fence between our tail and its
        // flag.
        let sq = unsafe { self.ring.submission_shared() };
        !sq.is_empty() && sq.need_wakeup()
    }

    /// Takes the oldest completion out of the queue.
    #[inline(always)]
    pub(super) fn next(&self) -> Option<cqueue::Entry> {
        // SAFETY: one thread only, and no other completion queue value is alive: this one ends with the call.
        unsafe { self.ring.completion_shared() }.next()
    }

    /// io_uring_enter(2), with `flags` in addition to those of every enter. A wait gathers completions, if
    /// `gather` says so.
    #[inline(always)]
    pub(super) fn enter(
        &self,
        to_submit: libc::c_uint,
        wait: Wait,
        gather: Option<MinWait>,
        flags: u32,
    ) -> io::Result<()> {
        let flags = self.enter_flags | flags;
        match wait {
            // Measured: min_complete = 0 costs 0.3 us; waiting for one with a zero time-out costs 16-18 us.
            Wait::No | Wait::For(Duration::ZERO) => self.enter_with(to_submit, 0, flags, None),
            Wait::Forever if gather.is_none() => self.enter_with(to_submit, 1, flags, None),
            Wait::Forever => self.enter_until(to_submit, LONGEST_GATHERING, gather, flags),
            Wait::For(time) => self.enter_until(to_submit, time, gather, flags),
        }
    }

    /// An enter that waits for some time.
    #[inline(never)]
    fn enter_until(
        &self,
        to_submit: libc::c_uint,
        time: Duration,
        gather: Option<MinWait>,
        flags: u32,
    ) -> io::Result<()> {
        let timespec = libc::timespec {
            tv_sec: time.as_secs().min(i64::MAX as u64) as i64,
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        // Else it would outlast the wait.
        let longest = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let arg = GetEventsArg {
            sigmask: 0,
            sigmask_sz: 0,
            min_wait_usec: gather.map_or(0, |gather| gather.micros.min(longest)),
            ts: std::ptr::from_ref(&timespec).expose_provenance() as u64,
        };
        let min_complete = gather.map_or(1, |gather| gather.completions);
        self.enter_with(to_submit, min_complete, flags | ENTER_EXT_ARG, Some(&arg))
    }

    #[inline(always)]
    fn enter_with(
        &self,
        to_submit: libc::c_uint,
        min_complete: libc::c_uint,
        flags: u32,
        arg: Option<&GetEventsArg>,
    ) -> io::Result<()> {
        let arg_len = if arg.is_some() { size_of::<GetEventsArg>() } else { 0 };
        // SAFETY: a descriptor that this value owns; `arg` and what it points to are alive, and the SQEs' own
        // memory is kept by whoever pushed them.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.enter_fd,
                to_submit,
                min_complete,
                flags,
                arg.map_or(std::ptr::null(), std::ptr::from_ref),
                arg_len,
            )
        };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if self.enter_flags & ENTER_REGISTERED_RING != 0
            && let Err(e) = register::unregister_ring_fd(self.ring.as_raw_fd(), self.enter_fd)
        {
            told(|| tracing::warn!("cannot unregister the ring's descriptor: {e}"));
        }
    }
}
