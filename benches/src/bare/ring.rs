//! One ring with the flags of today, its descriptor registered, one enter per turn of the loop.

use io_uring::{EnterFlags, IoUring, Submitter, cqueue, squeue, types};
use std::io;

/// A ring that lives as long as the process: its memory is leaked on purpose, so that nothing the kernel may
/// still write to is ever unmapped.
pub struct Ring {
    ring: &'static IoUring,
    /// The one submitter that knows the registered descriptor: `IoUring::submitter()` would forget it.
    submitter: Submitter<'static>,
    wait_flags: u32,
}

/// A completion, taken off the queue.
#[derive(Clone, Copy, Debug)]
pub struct Cqe {
    /// What the operation was pushed with.
    pub user_data: u64,
    /// Result, or the negated errno.
    pub res: i32,
    /// `IORING_CQE_F_*`.
    pub flags: u32,
}

impl Cqe {
    /// More completions of the same operation will follow.
    pub fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// This is the notification of a zero-copy send: its memory is ours again.
    pub fn notif(&self) -> bool {
        cqueue::notif(self.flags)
    }
}

impl Ring {
    /// Makes a ring of `entries` submissions and four times as many completions for the calling thread, which
    /// must be the only one to use it, and pins the thread's io-wq workers to `cpu`, at most `workers` of
    /// each class.
    ///
    /// # Errors
    /// io_uring_setup(2) or io_uring_register(2) refused; the text says which.
    pub fn new(entries: u32, cpu: u32, workers: u32) -> io::Result<Ring> {
        let build = |no_sqarray: bool| {
            let mut builder = IoUring::<squeue::Entry, cqueue::Entry>::builder();
            builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all().setup_clamp();
            builder.setup_cqsize(entries * 4).dontfork();
            if no_sqarray {
                builder.setup_no_sqarray();
            }
            builder.build(entries)
        };
        // NO_SQARRAY came with 6.6, and the floor is 6.1.
        let ring = build(true).or_else(|_| build(false)).map_err(|e| named("io_uring_setup", e))?;
        let ring: &'static IoUring = Box::leak(Box::new(ring));
        let mut submitter = ring.submitter();
        submitter.register_ring_fd().map_err(|e| named("IORING_REGISTER_RING_FDS", e))?;
        pin_workers(&submitter, cpu, workers)?;
        let mut wait_flags = EnterFlags::GETEVENTS;
        if ring.params().is_feature_no_iowait() {
            wait_flags |= EnterFlags::NO_IOWAIT;
        }
        Ok(Ring { ring, submitter, wait_flags: wait_flags.bits() })
    }

    /// Access to the registration calls.
    pub fn submitter(&self) -> &Submitter<'static> {
        &self.submitter
    }

    /// Queues `entries` so that they are submitted by one enter, as a chain of links must be.
    ///
    /// # Errors
    /// The queue was full and handing it to the kernel failed.
    ///
    /// # Safety
    /// All memory that the entries name must stay valid until their last completions. Here that holds because
    /// it is [`Blocks`](super::Blocks) or `'static`.
    pub unsafe fn push(&mut self, entries: &[squeue::Entry]) -> io::Result<()> {
        loop {
            // SAFETY: this thread owns the ring, and no other view of the queue is alive.
            let mut queue = unsafe { self.ring.submission_shared() };
            // SAFETY: passed on to the caller.
            if unsafe { queue.push_multiple(entries) }.is_ok() {
                return Ok(());
            }
            drop(queue);
            self.enter(0, 0)?;
        }
    }

    /// Submits what is queued and waits for one completion if `block`, else only collects what is there.
    ///
    /// # Errors
    /// io_uring_enter(2) failed for a reason that does not pass.
    pub fn turn(&mut self, block: bool) -> io::Result<()> {
        // With min_complete = 0 this costs 0.3 us when nothing is there; a wait with a zero timeout costs 16
        // us.
        self.enter(u32::from(block), self.wait_flags)
    }

    /// The next completion, if one is there.
    pub fn pop(&mut self) -> Option<Cqe> {
        // SAFETY: this thread owns the ring, and no other view of the queue is alive.
        let entry = unsafe { self.ring.completion_shared() }.next()?;
        Some(Cqe { user_data: entry.user_data(), res: entry.result(), flags: entry.flags() })
    }

    fn enter(&mut self, want: u32, flags: u32) -> io::Result<()> {
        // SAFETY: this thread owns the ring, and no other view of the queue is alive.
        let queued = unsafe { self.ring.submission_shared() }.len() as u32;
        // SAFETY: no argument is passed, and the counts are those of the queue.
        match unsafe { self.submitter.enter::<types::Timespec>(queued, want, flags, None) } {
            Ok(_) => Ok(()),
            // EINTR: a signal. EBUSY and EAGAIN: the completion queue must be emptied first, and the caller
            // does that.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => Ok(()),
            Err(e) => Err(named("io_uring_enter", e)),
        }
    }
}

fn pin_workers(submitter: &Submitter<'_>, cpu: u32, workers: u32) -> io::Result<()> {
    // SAFETY: cpu_set_t is plain bits, for which all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: CPU_SET ignores a CPU beyond the set, and the thread has been pinned to this one already.
    unsafe { libc::CPU_SET(cpu as usize, &mut set) };
    submitter.register_iowq_aff(&set).map_err(|e| named("IORING_REGISTER_IOWQ_AFF", e))?;
    let mut most = [workers, workers];
    submitter.register_iowq_max_workers(&mut most).map_err(|e| named("IORING_REGISTER_IOWQ_MAX_WORKERS", e))
}

/// The same error, with the call that failed in front.
pub(super) fn named(call: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{call}: {error}"))
}
