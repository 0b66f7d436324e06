//! A ring is made, and says what it has in force.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::{IoUring, opcode, squeue, types};

use super::enter::{ENTER_NO_IOWAIT, Wait};
use super::kernel::ENTER_REGISTERED_RING;
use super::seal::seal;
use super::setup::{self, RingFeatures, RingOptions, not_registered};
use super::user_data::{REPORT_USAGE, Tag};
use super::view::View;
use super::{Queues, Ring, register};
use crate::Result;
use crate::metrics::counters::CoreCounters;

/// `IORING_REGISTER_IOWQ_MAX_WORKERS` bounds chosen for a core: regular-file work, and everything that may
/// wait. Splices of file pages into pipes are of the second class too, since a pipe is their other end.
const IOWQ_MAX_WORKERS: [u32; 2] = [4, 8];

/// The kernel gives a ring no more entries than these (`IORING_MAX_ENTRIES`).
const MOST_ENTRIES: u32 = 32_768;

impl Ring {
    /// Makes the ring on the calling thread, which is the only one that will use it. `cpu` is the CPU for
    /// io-wq workers.
    pub(crate) fn new(options: RingOptions, cpu: Option<u32>, counters: CoreCounters) -> Result<Self> {
        #[cfg(all(any(test, feature = "played"), not(loom)))]
        if let Some(ring) = Self::played(&counters) {
            return Ok(ring);
        }
        let (ring, no_sqarray) = setup::create(options)?;
        let mut features = offered(&ring, options, no_sqarray);
        if let Some(busy_poll) = options.busy_poll {
            match busy_poll.register(&ring) {
                Ok(()) => features.busy_poll = true,
                Err(e) => {
                    tracing::warn!(
                        "waits do not poll network devices (IORING_REGISTER_NAPI, Linux 6.9): {e}"
                    );
                    features.lacks.push(format!("busy polling (Linux 6.9): {e}"));
                }
            }
        }
        ring.submitter().register_iowq_max_workers(&mut IOWQ_MAX_WORKERS.clone()).map_err(|e| {
            not_registered("cannot bound the ring's io-wq workers (IORING_REGISTER_IOWQ_MAX_WORKERS)", e)
        })?;
        if let Some(cpu) = cpu {
            features.iowq_pinned = register::pin_iowq(&ring, cpu);
        }
        let min_wait = options.min_wait.filter(|_| ring.params().is_feature_min_timeout());
        features.min_wait = min_wait.is_some();
        if options.min_wait.is_some() && min_wait.is_none() {
            tracing::warn!("a core wakes at each completion: this kernel knows no minimum wait (Linux 6.12)");
            features.lacks.push("a minimum wait: the kernel does not offer it (Linux 6.12)".to_owned());
        }
        let views = inspect(&ring);
        let mut enter_fd = ring.as_raw_fd();
        let mut enter_flags = if features.no_iowait { ENTER_NO_IOWAIT } else { 0 };
        match register::ring_fd(enter_fd) {
            Ok(index) => {
                enter_fd = index;
                enter_flags |= ENTER_REGISTERED_RING;
                features.registered_fd = true;
            }
            Err(e) => {
                tracing::debug!("ring descriptor not registered, each enter looks it up: {e}");
                features.lacks.push(format!("registered descriptor: {e}"));
            }
        }
        enable(&ring, options, &mut features)?;
        let early = RefCell::new(VecDeque::new());
        let queues = Queues::new(ring, enter_fd, enter_flags);
        let mut this = Self {
            queues,
            features,
            views,
            min_wait,
            early,
            counters,
            #[cfg(debug_assertions)]
            reaps: Default::default(),
        };
        this.features.zc_report = this.knows_zc_report()?;
        Ok(this)
    }

    /// Whether a zero-copy send can be asked to report. A send on no descriptor fails with `EBADF` where the
    /// flag is known, and earlier with `EINVAL` where it is not. Linux 6.2.
    fn knows_zc_report(&self) -> Result<bool> {
        let probe = opcode::SendZc::new(types::Fd(-1), std::ptr::null(), 0)
            .zc_flags(REPORT_USAGE)
            .build()
            .user_data(Tag::Cancel.with(0));
        // SAFETY: a send of nothing on no descriptor; the kernel reads no memory.
        unsafe { self.is_known(&probe) }
    }

    /// Whether the kernel knows an operation, whatever else is wrong with the entry.
    ///
    /// # Safety
    /// As for [`push`](Self::push).
    pub(super) unsafe fn is_known(&self, probe: &squeue::Entry) -> Result<bool> {
        // SAFETY: handed on to the caller.
        unsafe { self.push(probe) };
        let mut result = None;
        while result.is_none() {
            self.enter(Wait::Forever)?;
            // A notification may follow. Nobody waits for this tag.
            self.reap(|cqe| result = result.or(Some(cqe.result)));
        }
        Ok(result != Some(-libc::EINVAL))
    }

    /// Makes memory known to the kernel, so that operations on it need not pin its pages each time. False
    /// when the kernel refuses, with a line in the log that says why.
    pub(crate) fn register_buffers(&mut self, pieces: &[libc::iovec]) -> bool {
        // SAFETY: the memory is a core's blocks, mapped now. The kernel pins the pages themselves, so a later
        // mapping there does not matter. Operations that name a registered buffer keep their block.
        match unsafe { self.queues.submitter().register_buffers(pieces) } {
            Ok(()) => self.features.fixed_buffers = true,
            Err(e) => tracing::info!(
                "blocks are not registered with the ring, so zero-copy sends pin their pages each time; raise \
                 RLIMIT_MEMLOCK (ulimit -l) if that is what it lacks: {e}"
            ),
        }
        self.features.fixed_buffers
    }
}

/// Enables the ring, sealed if asked for: its thread is the one that may submit. One that cannot be sealed
/// works nevertheless.
fn enable(ring: &IoUring, options: RingOptions, features: &mut RingFeatures) -> Result<()> {
    match options.sealed.then(|| seal(ring)) {
        Some(Ok(())) => features.sealed = true,
        Some(Err(e)) => {
            tracing::warn!("a ring may do more than this library asks for: {e}");
            features.lacks.push(format!("restrictions of the ring: {e}"));
        }
        None => {}
    }
    ring.submitter().register_enable_rings().map_err(|e| not_registered("cannot enable the ring", e))
}

/// The features of a ring as the kernel made it, before anything is registered.
fn offered(ring: &IoUring, options: RingOptions, no_sqarray: bool) -> RingFeatures {
    let params = ring.params();
    let no_iowait = params.is_feature_no_iowait();
    let mut features = RingFeatures {
        sq_entries: params.sq_entries(),
        cq_entries: params.cq_entries(),
        no_sqarray,
        registered_fd: false,
        no_iowait,
        iowq_pinned: false,
        iowq_max_workers: IOWQ_MAX_WORKERS,
        fixed_buffers: false,
        zc_report: false,
        sqpoll: options.poller.map(|poller| poller.cpu),
        busy_poll: false,
        min_wait: false,
        incremental_buffers: false,
        bundles: false,
        bundle_limit: false,
        sealed: false,
        lacks: Vec::new(),
    };
    if !no_sqarray {
        features.lacks.push("NO_SQARRAY: EINVAL, so the kernel is older than 6.6".to_owned());
    }
    let asked = options.asked.next_power_of_two().min(MOST_ENTRIES);
    if features.sq_entries < asked {
        let few = format!(
            "{} of the {asked} entries asked for: memory that may be locked does not do for more on each core; raise \
             RLIMIT_MEMLOCK (ulimit -l)",
            asked - features.sq_entries
        );
        tracing::warn!("a ring of {} entries, without {few}", features.sq_entries);
        features.lacks.push(few);
    }
    if !no_iowait {
        features.lacks.push("NO_IOWAIT: the kernel does not offer it, so it is older than 6.15".to_owned());
    }
    features
}

/// Maps the ring's memory once more for the report. A ring whose memory cannot be mapped again still works.
fn inspect(ring: &IoUring) -> Vec<(&'static str, View)> {
    let params = ring.params();
    // SAFETY: the descriptor is the ring's own, which outlives the borrow.
    let fd = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
    let views = [
        ("completion ring", View::of_queues(fd, params.cq_entries())),
        ("submission ring", View::of_submissions(fd, params.sq_entries())),
    ];
    let made = views.into_iter().filter_map(|(name, view)| match view {
        Ok(view) => Some((name, view)),
        Err(e) => {
            tracing::warn!("the report will not say where the {name} lies: it cannot be mapped again: {e}");
            None
        }
    });
    made.collect()
}
