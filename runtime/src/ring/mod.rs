//! A core's ring: SQEs in, one system call a tick, CQEs out.
//!
//! All unsafe talk with the `io_uring` crate is in this folder. Enter is our own system call, because the crate's
//! remembers the registered descriptor in a borrowed value only and knows neither `NO_IOWAIT` nor how to run deferred
//! work without waiting.

pub(crate) mod probe;
mod recv_buffers;
mod register;
mod setup;
pub(crate) mod user_data;
mod view;
pub(crate) mod workers;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

pub(crate) use recv_buffers::{RecvOptions, bundled};
pub use setup::RingFeatures;
pub(crate) use setup::{BusyPoll, Poller, RingOptions, not_registered, rings_are_locked};
use user_data::{REPORT_USAGE, Tag};
use view::View;

use crate::metrics::counters::CoreCounters;
use crate::{Error, ErrorKind, Result};

// Not exported by the io_uring crate (linux/io_uring.h).
const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_SQ_WAKEUP: u32 = 1 << 1;
const ENTER_SQ_WAIT: u32 = 1 << 2;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const ENTER_NO_IOWAIT: u32 = 1 << 7;
/// `IORING_REGISTER_IOWQ_MAX_WORKERS` bounds chosen for a core: regular-file work, and everything that may wait.
/// Splices of file pages into pipes are of the second class too, since a pipe is their other end.
const IOWQ_MAX_WORKERS: [u32; 2] = [4, 8];

/// More than these the kernel does not give a ring (`IORING_MAX_ENTRIES`).
const MOST_ENTRIES: u32 = 32_768;

/// One completion, copied out of the queue so that handlers may use the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cqe {
    pub(crate) user_data: u64,
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

impl Cqe {
    /// More completions of this operation will come.
    pub(crate) fn more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// This is the notification of a zero-copy send, not its result.
    pub(crate) fn notif(self) -> bool {
        cqueue::notif(self.flags)
    }

    /// The provided buffer that holds what came.
    pub(crate) fn buffer(self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// The kernel goes on in that buffer, behind what came. Linux 6.12.
    pub(crate) fn buffer_goes_on(self) -> bool {
        cqueue::buffer_more(self.flags)
    }
}

/// How long an enter waits for a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all: submit, run deferred work, come back.
    No,
    /// Until one completes, or at most this long.
    For(Duration),
    /// Until one completes.
    Forever,
}

/// `struct io_uring_getevents_arg` of linux/io_uring.h.
#[repr(C)]
struct GetEventsArg {
    sigmask: u64,
    sigmask_sz: u32,
    min_wait_usec: u32,
    ts: u64,
}

/// The ring of one core. Neither `Send` nor `Sync`: `SINGLE_ISSUER` means this thread.
pub(crate) struct Ring {
    ring: IoUring,
    enter_fd: RawFd,
    enter_flags: u32,
    features: RingFeatures,
    views: Vec<(&'static str, View)>,
    /// CQEs that had to be taken out early, to make room in a full submission queue.
    early: RefCell<VecDeque<Cqe>>,
    counters: CoreCounters,
}

impl Ring {
    /// Makes the ring on the calling thread, which is the only one that will use it. `cpu` is where io-wq workers go.
    pub(crate) fn new(options: RingOptions, cpu: Option<u32>, counters: CoreCounters) -> Result<Self> {
        let (ring, no_sqarray) = setup::create(options)?;
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
            incremental_buffers: false,
            bundles: false,
            bundle_limit: false,
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
            features
                .lacks
                .push("NO_IOWAIT: the kernel does not offer it, so it is older than 6.15".to_owned());
        }
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
        let views = inspect(&ring);
        let mut enter_fd = ring.as_raw_fd();
        let mut enter_flags = if no_iowait { ENTER_NO_IOWAIT } else { 0 };
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
        let mut this = Self {
            ring,
            enter_fd,
            enter_flags,
            features,
            views,
            early: RefCell::new(VecDeque::new()),
            counters,
        };
        this.features.zc_report = this.knows_zc_report()?;
        Ok(this)
    }

    /// Whether a zero-copy send can be asked to report: one on no descriptor fails by `EBADF` where the flag is known,
    /// and by `EINVAL` before that where it is not. Linux 6.2.
    fn knows_zc_report(&self) -> Result<bool> {
        let probe = opcode::SendZc::new(types::Fd(-1), std::ptr::null(), 0)
            .zc_flags(REPORT_USAGE)
            .build()
            .user_data(Tag::Cancel.with(0));
        // SAFETY: a send of nothing on no descriptor; the kernel looks at no memory.
        unsafe { self.is_known(&probe) }
    }

    /// Whether the kernel takes an operation for one that it knows, whatever else is wrong with it.
    ///
    /// # Safety
    /// As for [`push`](Self::push).
    unsafe fn is_known(&self, probe: &squeue::Entry) -> Result<bool> {
        // SAFETY: handed on to the caller.
        unsafe { self.push(probe) };
        let mut result = None;
        while result.is_none() {
            self.enter(Wait::Forever)?;
            // A notification may follow; nobody listens to this tag.
            self.reap(|cqe| result = result.or(Some(cqe.result)));
        }
        Ok(result != Some(-libc::EINVAL))
    }

    /// Makes memory known to the kernel, so that operations on it need not pin its pages each time. False, with a line
    /// that says why, when it may not.
    pub(crate) fn register_buffers(&mut self, pieces: &[libc::iovec]) -> bool {
        // SAFETY: the memory is a core's blocks, mapped now. The kernel pins the pages themselves, so what is mapped there
        // later does not matter; and operations that name a registered buffer keep their block.
        match unsafe { self.ring.submitter().register_buffers(pieces) } {
            Ok(()) => self.features.fixed_buffers = true,
            Err(e) => tracing::info!(
                "blocks are not registered with the ring, so zero-copy sends pin their pages each time; raise \
                 RLIMIT_MEMLOCK (ulimit -l) if that is what it lacks: {e}"
            ),
        }
        self.features.fixed_buffers
    }

    /// What this ring has in force.
    pub(crate) fn features(&self) -> &RingFeatures {
        &self.features
    }

    /// Where its memory lies, by name, for the report.
    pub(crate) fn memory(&self) -> impl Iterator<Item = (&'static str, std::ops::Range<usize>)> {
        self.views.iter().map(|(name, view)| (*name, view.addresses()))
    }

    /// SQEs pushed since the ring was made.
    pub(crate) fn pushed(&self) -> u64 {
        self.counters.sqes.get()
    }

    /// The counters of the ring's core.
    pub(crate) fn counters(&self) -> &CoreCounters {
        &self.counters
    }

    /// The ring's descriptor, for messages from other rings.
    pub(crate) fn fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    /// The ring itself, for registrations.
    pub(crate) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.ring.submitter()
    }

    /// Queues one SQE; a full queue is flushed to the kernel first, so that nothing is ever turned away.
    ///
    /// # Safety
    /// What the entry points to stays valid and unmoved until its final CQE.
    pub(crate) unsafe fn push(&self, entry: &squeue::Entry) {
        // SAFETY: handed on to the caller.
        unsafe { self.push_all(std::slice::from_ref(entry)) }
    }

    /// Queues SQEs that belong together (a link chain must not be torn by the end of a submission).
    ///
    /// # Safety
    /// As for [`push`](Self::push), for each entry.
    pub(crate) unsafe fn push_all(&self, entries: &[squeue::Entry]) {
        loop {
            // SAFETY: one thread only (`Ring` is neither Send nor Sync) and no other queue value is alive here.
            let mut sq = unsafe { self.ring.submission_shared() };
            if sq.capacity() - sq.len() >= entries.len() {
                // SAFETY: the caller keeps what the entries point to.
                let pushed = unsafe { sq.push_multiple(entries) };
                debug_assert!(pushed.is_ok(), "there was room");
                self.counters.sqes.add(entries.len() as u64);
                return;
            }
            drop(sq);
            self.flush_queue();
        }
    }

    /// Whether a kernel thread takes the submissions.
    fn is_polled(&self) -> bool {
        self.features.sqpoll.is_some()
    }

    /// Whether the submission poller sleeps and has something to take.
    fn must_wake_poller(&self) -> bool {
        // SAFETY: as in `unsubmitted`. `need_wakeup` puts a sequentially consistent fence between our tail and its flag.
        let sq = unsafe { self.ring.submission_shared() };
        !sq.is_empty() && sq.need_wakeup()
    }

    /// Whether completions can be taken, or made by an enter.
    pub(crate) fn has_completions(&self) -> bool {
        // SAFETY: one thread only, and no other queue value is alive here.
        let (waiting, taskrun) =
            unsafe { (!self.ring.completion_shared().is_empty(), self.ring.submission_shared().taskrun()) };
        waiting || taskrun || !self.early.borrow().is_empty()
    }

    /// Completions that can be taken.
    #[cfg(test)]
    pub(crate) fn completions(&self) -> usize {
        // SAFETY: one thread only, and no other queue value is alive here.
        unsafe { self.ring.completion_shared() }.len() + self.early.borrow().len()
    }

    /// Hands the full submission queue to the kernel, putting completions aside if the kernel wants that first.
    fn flush_queue(&self) {
        let made = if self.is_polled() { self.wait_for_poller() } else { self.enter_once(Wait::No) };
        match made {
            Ok(()) => {}
            Err(e) => {
                // EBUSY: the completion queue has overflowed. EAGAIN: no memory just now. Both pass once CQEs are taken.
                assert!(
                    matches!(e.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN | libc::EINTR)),
                    "enter: {e}"
                );
                let mut batch = [const { MaybeUninit::uninit() }; 64];
                let mut early = self.early.borrow_mut();
                early.extend(self.fill(&mut batch).iter().map(copy));
            }
        }
    }

    /// Waits until the submission poller has taken something (`IORING_ENTER_SQ_WAIT`, Linux 5.10).
    fn wait_for_poller(&self) -> io::Result<()> {
        let wake = if self.must_wake_poller() { ENTER_SQ_WAKEUP } else { 0 };
        self.counters.poller_wakes.add((wake != 0).into());
        self.system_call(0, 0, self.enter_flags | ENTER_SQ_WAIT | wake, std::ptr::null(), 0)
    }

    /// SQEs that the kernel has not taken yet.
    fn unsubmitted(&self) -> usize {
        // SAFETY: one thread only, no other queue value is alive here.
        unsafe { self.ring.submission_shared() }.len()
    }

    /// Whether an enter would do anything: SQEs to hand over, deferred work to run, or overflowed CQEs to fetch.
    pub(crate) fn wants_enter(&self) -> bool {
        // SAFETY: as in `unsubmitted`.
        let sq = unsafe { self.ring.submission_shared() };
        !sq.is_empty() || sq.taskrun() || sq.cq_overflow()
    }

    /// Whether the kernel keeps completions for which the queue had no room.
    pub(crate) fn has_overflowed(&self) -> bool {
        // SAFETY: as in `unsubmitted`.
        unsafe { self.ring.submission_shared() }.cq_overflow()
    }

    /// Submits what is queued, runs deferred work and waits as told. Interruptions and time-outs are not errors:
    /// the caller looks at the completion queue and decides anew.
    pub(crate) fn enter(&self, wait: Wait) -> Result<()> {
        let wait = if self.early.borrow().is_empty() { wait } else { Wait::No };
        match self.enter_once(wait) {
            Ok(()) => Ok(()),
            Err(e) => match e.raw_os_error() {
                Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
                Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => Err(Error::with_source(
                    ErrorKind::Platform,
                    "io_uring_enter is refused, most likely by the container's seccomp profile; allow it beside io_uring_setup and \
                     io_uring_register",
                    e,
                )),
                _ => Err(Error::io("io_uring_enter failed", e)),
            },
        }
    }

    fn enter_once(&self, wait: Wait) -> io::Result<()> {
        let to_submit = self.unsubmitted() as libc::c_uint;
        let mut timespec = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let mut arg = GetEventsArg { sigmask: 0, sigmask_sz: 0, min_wait_usec: 0, ts: 0 };
        let mut flags = self.enter_flags | ENTER_GETEVENTS;
        if self.is_polled() {
            // The poller submits; what is left for an enter is to wake it, to wait, and to fetch what overflowed.
            let nothing_to_wait_for = wait == Wait::No || self.has_completions();
            if self.must_wake_poller() {
                self.counters.poller_wakes.add(1);
                flags |= ENTER_SQ_WAKEUP;
            } else if nothing_to_wait_for && !self.has_overflowed() {
                return Ok(());
            }
        }
        let (min_complete, arg_ptr, arg_len) = match wait {
            // Measured: min_complete = 0 costs 0.3 us; waiting for one with a zero time-out costs 16-18 us.
            Wait::No | Wait::For(Duration::ZERO) => (0, std::ptr::null(), 0),
            Wait::Forever => (1, std::ptr::null(), 0),
            Wait::For(d) => {
                timespec.tv_sec = d.as_secs().min(i64::MAX as u64) as i64;
                timespec.tv_nsec = i64::from(d.subsec_nanos());
                arg.ts = std::ptr::from_ref(&timespec).expose_provenance() as u64;
                flags |= ENTER_EXT_ARG;
                (1, std::ptr::from_ref(&arg).cast::<libc::c_void>(), size_of::<GetEventsArg>())
            }
        };
        self.system_call(to_submit, min_complete, flags, arg_ptr, arg_len)
    }

    /// io_uring_enter(2). `arg`, where there is one, is a `GetEventsArg` that outlives the call, as does all that it points to.
    fn system_call(
        &self,
        to_submit: libc::c_uint,
        min_complete: libc::c_uint,
        flags: u32,
        arg: *const libc::c_void,
        arg_len: usize,
    ) -> io::Result<()> {
        self.counters.enters.add(1);
        self.counters.sqes_per_enter.record(to_submit.into());
        // SAFETY: a descriptor that this value owns; `arg` is alive (see above), and the SQEs' own memory is kept by whoever
        // pushed them.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.enter_fd,
                to_submit,
                min_complete,
                flags,
                arg,
                arg_len,
            )
        };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes up to a batch of completions out of the queue, in order, and hands each to `handle`. Returns how many. Those
    /// that are left when `handle` panics are put aside for the next call.
    pub(crate) fn reap(&self, mut handle: impl FnMut(Cqe)) -> usize {
        let mut count = 0;
        loop {
            // The borrow ends before the handler runs: it may push, and pushing may put more aside.
            let next = self.early.borrow_mut().pop_front();
            let Some(cqe) = next else { break };
            handle(cqe);
            count += 1;
        }
        loop {
            let mut batch = [const { MaybeUninit::uninit() }; 64];
            let batch: &[_] = self.fill(&mut batch);
            if batch.is_empty() {
                return count;
            }
            count += batch.len();
            let mut left = Left { ring: self, cqes: batch.iter() };
            for entry in left.cqes.by_ref() {
                handle(copy(entry));
            }
            // What a handler made the kernel post meanwhile is the next tick's; an early CQE is older than the queue's.
            if batch.len() < 64 || !self.early.borrow().is_empty() {
                return count;
            }
        }
    }

    /// Puts completions aside that were taken before all that lie there.
    #[cold]
    fn put_back(&self, cqes: &[cqueue::Entry]) {
        let mut early = self.early.borrow_mut();
        cqes.iter().rev().for_each(|entry| early.push_front(copy(entry)));
    }

    fn fill<'a>(&self, batch: &'a mut [MaybeUninit<cqueue::Entry>]) -> &'a mut [cqueue::Entry] {
        // SAFETY: one thread only, and no other completion queue value is alive: this one ends with the call.
        unsafe { self.ring.completion_shared() }.fill(batch)
    }
}

/// Completions of a batch that were not handled yet.
struct Left<'a> {
    ring: &'a Ring,
    cqes: std::slice::Iter<'a, cqueue::Entry>,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        if !self.cqes.as_slice().is_empty() {
            self.ring.put_back(self.cqes.as_slice());
        }
    }
}

/// Maps the ring's memory once more for the report; a ring that cannot be looked at works all the same.
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

fn copy(entry: &cqueue::Entry) -> Cqe {
    Cqe { user_data: entry.user_data(), result: entry.result(), flags: entry.flags() }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.features.registered_fd
            && let Err(e) = register::unregister_ring_fd(self.ring.as_raw_fd(), self.enter_fd)
        {
            tracing::warn!("cannot unregister the ring's descriptor: {e}");
        }
    }
}
