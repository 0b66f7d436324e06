//! The one system call of a tick: submit, run deferred work, wait.

use std::io;
use std::time::Duration;

use super::Ring;
use crate::{Error, ErrorKind, Result};

// Not exported by the io_uring crate (linux/io_uring.h).
const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_SQ_WAKEUP: u32 = 1 << 1;
const ENTER_SQ_WAIT: u32 = 1 << 2;
const ENTER_EXT_ARG: u32 = 1 << 3;
pub(super) const ENTER_REGISTERED_RING: u32 = 1 << 4;
pub(super) const ENTER_NO_IOWAIT: u32 = 1 << 7;

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

impl Ring {
    /// Submits what is queued, runs deferred work and waits as told. Interruptions and time-outs are not
    /// errors: the caller looks at the completion queue and decides anew.
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

    pub(super) fn enter_once(&self, wait: Wait) -> io::Result<()> {
        let to_submit = self.unsubmitted() as libc::c_uint;
        let mut timespec = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let mut arg = GetEventsArg { sigmask: 0, sigmask_sz: 0, min_wait_usec: 0, ts: 0 };
        let mut flags = self.enter_flags | ENTER_GETEVENTS;
        if self.is_polled() {
            // The poller submits; what is left for an enter is to wake it, to wait, and to fetch what
            // overflowed.
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

    /// io_uring_enter(2). `arg`, where there is one, is a `GetEventsArg` that outlives the call, as does all
    /// that it points to.
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
        // SAFETY: a descriptor that this value owns; `arg` is alive (see above), and the SQEs' own memory is
        // kept by whoever pushed them.
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

    /// Whether a kernel thread takes the submissions.
    pub(super) fn is_polled(&self) -> bool {
        self.features.sqpoll.is_some()
    }

    /// Whether the submission poller sleeps and has something to take.
    fn must_wake_poller(&self) -> bool {
        // SAFETY: as in `unsubmitted`. `need_wakeup` puts a sequentially consistent fence between our tail
        // and its flag.
        let sq = unsafe { self.ring.submission_shared() };
        !sq.is_empty() && sq.need_wakeup()
    }

    /// Waits until the submission poller has taken something (`IORING_ENTER_SQ_WAIT`, Linux 5.10).
    pub(super) fn wait_for_poller(&self) -> io::Result<()> {
        let wake = if self.must_wake_poller() { ENTER_SQ_WAKEUP } else { 0 };
        self.counters.poller_wakes.add((wake != 0).into());
        self.system_call(0, 0, self.enter_flags | ENTER_SQ_WAIT | wake, std::ptr::null(), 0)
    }
}
