//! The ring that a core gets: its flags, the reason for each, and what happens on a kernel that lacks one.
//!
//! | flag | since | why |
//! |---|---|---|
//! | `SINGLE_ISSUER` | 6.0 | only the core's thread submits: the kernel drops its submission lock |
//! | `DEFER_TASKRUN` | 6.1 | completions are processed when we ask, in one batch, not by interrupting the thread |
//! | `TASKRUN_FLAG` | 5.19 | one load tells whether such work waits, so that a busy core need not enter to find out |
//! | `SUBMIT_ALL` | 5.18 | one bad SQE does not keep the rest of the batch back |
//! | `CLAMP`, `CQSIZE` | 5.6 | a CQ of four times the SQ: multishot operations complete more than they submit |
//! | `R_DISABLED` | 5.10 | what the ring may do is settled (`seal.rs`) before it does anything |
//! | `NO_SQARRAY` | 6.6 | one indirection less per SQE; **downgraded** where the kernel says `EINVAL` |
//!
//! With a submission poller ([`Poller`]) `SQPOLL` and `SQ_AFF` take the place of `DEFER_TASKRUN` and
//! `TASKRUN_FLAG`.
//!
//! The oldest kernel is Linux 6.1: without `DEFER_TASKRUN` a core does not start, and the error says so. Man
//! page: `io_uring_setup(2)`.

use std::io;
use std::time::Duration;

use io_uring::IoUring;
use io_uring::types::Napi;

use super::enter::MinWait;
use crate::{Error, ErrorKind, Result};

/// What the ring of a core has in force.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingFeatures {
    /// Entries of the submission queue.
    pub sq_entries: u32,
    /// Entries of the completion queue.
    pub cq_entries: u32,
    /// `IORING_SETUP_NO_SQARRAY` (Linux 6.6).
    pub no_sqarray: bool,
    /// The ring's descriptor is registered, which saves a descriptor look-up at each enter (Linux 5.18).
    pub registered_fd: bool,
    /// `IORING_ENTER_NO_IOWAIT`: an idle core is not counted as waiting for a disk (Linux 6.15).
    pub no_iowait: bool,
    /// io-wq workers are pinned to the core's CPU (`IORING_REGISTER_IOWQ_AFF`, Linux 5.14).
    pub iowq_pinned: bool,
    /// Upper bounds of io-wq workers, bounded and unbounded (`IORING_REGISTER_IOWQ_MAX_WORKERS`, Linux 5.15).
    pub iowq_max_workers: [u32; 2],
    /// The core's blocks are registered with the ring, so that zero-copy sends from them need not pin pages
    /// each time. Refused where `RLIMIT_MEMLOCK` is too small.
    pub fixed_buffers: bool,
    /// A zero-copy send reports whether the kernel copied after all (`IORING_SEND_ZC_REPORT_USAGE`, Linux
    /// 6.2, and later 6.1).
    pub zc_report: bool,
    /// The CPU of the kernel thread that takes the submissions (`IORING_SETUP_SQPOLL`), where that was
    /// [asked for](crate::Builder::sqpoll). Then `DEFER_TASKRUN` and `TASKRUN_FLAG` are left out.
    pub sqpoll: Option<u32>,
    /// Waits poll network devices, which was [asked for](crate::Builder::busy_poll) (`IORING_REGISTER_NAPI`,
    /// Linux 6.9).
    pub busy_poll: bool,
    /// A core that sleeps gathers completions, which was [asked for](crate::Builder::min_wait)
    /// (`IORING_FEAT_MIN_TIMEOUT`, Linux 6.12).
    pub min_wait: bool,
    /// Receive buffers are used up incrementally, which was [asked for](crate::Builder::incremental_buffers)
    /// (`IOU_PBUF_RING_INC`, Linux 6.12).
    pub incremental_buffers: bool,
    /// One completion may report several receive buffers, which was [asked for](crate::Builder::bundles)
    /// (`IORING_RECVSEND_BUNDLE`, Linux 6.10).
    pub bundles: bool,
    /// A bundled receive ends by itself when it has filled 64 buffers, taken or not (Linux 6.17).
    pub bundle_limit: bool,
    /// It takes the operations of this library and nothing else, which was [asked
    /// for](crate::Builder::seal_rings) (`IORING_REGISTER_RESTRICTIONS`, Linux 5.10).
    pub sealed: bool,
    /// What this kernel does not give, a line each with the reason.
    pub lacks: Vec<String>,
}

/// How a ring is to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RingOptions {
    /// Entries of the submission queue; the kernel rounds up to a power of two and clamps to 32,768.
    pub(crate) entries: u32,
    /// Entries of the completion queue, at least as many as of the submission queue.
    pub(crate) cq_entries: u32,
    /// The kernel thread that takes the submissions.
    pub(crate) poller: Option<Poller>,
    /// Whether waits poll network devices.
    pub(crate) busy_poll: Option<BusyPoll>,
    /// How its core gathers completions while it sleeps.
    pub(crate) min_wait: Option<MinWait>,
    /// Entries of the buffer ring that will be registered with it, because there must be memory for both.
    /// Zero for none.
    pub(crate) buffers: u16,
    /// Entries that were asked for, where a plan gives the ring fewer.
    pub(crate) asked: u32,
    /// Whether it takes the operations of this library only.
    pub(crate) sealed: bool,
}

/// The kernel thread that takes a ring's submissions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Poller {
    pub(crate) cpu: u32,
    /// Milliseconds without submissions after which it sleeps.
    pub(crate) idle_ms: u32,
}

/// How long a wait polls network devices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BusyPoll {
    pub(crate) micros: u32,
}

impl BusyPoll {
    /// Registers it. The kernel itself adds the devices of the sockets that receive.
    pub(super) fn register(self, ring: &IoUring) -> io::Result<()> {
        let mut napi = Napi::new().set_busy_poll_timeout(self.micros).set_prefer_busy_poll(true);
        ring.submitter().register_napi(&mut napi)
    }
}

impl RingOptions {
    /// A ring of this many submissions, and of four times as many completions up to the kernel's bound.
    pub(crate) fn for_entries(entries: u32) -> Self {
        let cq_entries = entries.saturating_mul(4).min(65_536);
        Self {
            entries,
            cq_entries,
            poller: None,
            busy_poll: None,
            min_wait: None,
            buffers: 0,
            asked: entries,
            sealed: false,
        }
    }

    /// The same with half as many entries.
    pub(crate) fn halved(self) -> Self {
        Self { entries: self.entries / 2, cq_entries: self.cq_entries.div_ceil(2), ..self }
    }

    /// Bytes that the kernel locks for the ring and its buffer ring, where it counts them. An SQE has 64
    /// bytes, a CQE and an entry of a buffer ring have 16, and the heads of the queues take less than a page
    /// (io_uring/io_uring.c, `rings_size`).
    pub(crate) fn locked_bytes(self) -> u64 {
        let pages = |bytes: u64| bytes.next_multiple_of(4096);
        let queued = |entries: u32| u64::from(entries.next_power_of_two());
        pages(queued(self.entries) * 64)
            + pages(queued(self.cq_entries) * 16 + 1024)
            + pages(u64::from(self.buffers) * 16)
    }
}

/// Whether this kernel counts rings as memory that their user has locked (Linux 6.14; until 5.11 as well,
/// which is below the floor).
pub(crate) fn rings_are_locked() -> bool {
    super::release::version(rustix::system::uname().release().to_bytes()) >= (6, 14)
}

/// A core accepts as few entries as these where there is no memory for more.
const FEWEST_ENTRIES: u32 = 64;

/// Makes the ring, with fewer entries where there is no memory for all. It must run on the pinned thread,
/// because the kernel takes the ring's pages from the node of the CPU that asks.
pub(super) fn create(mut options: RingOptions) -> Result<(IoUring, bool)> {
    let mut made = patiently(PATIENCE, || attempt(options));
    while options.entries / 2 >= FEWEST_ENTRIES
        && made.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::ENOMEM))
    {
        options = options.halved();
        made = patiently(PATIENCE / 10, || attempt(options));
    }
    made.map_err(|e| explain(e, options.poller))
}

/// One try. Also returns whether the ring lacks the array of indices.
fn attempt(options: RingOptions) -> io::Result<(IoUring, bool)> {
    let mut builder = IoUring::<io_uring::squeue::Entry, io_uring::cqueue::Entry>::builder();
    builder
        .dontfork()
        .setup_single_issuer()
        .setup_submit_all()
        .setup_r_disabled()
        .setup_clamp()
        .setup_cqsize(options.cq_entries);
    match options.poller {
        // The kernel refuses DEFER_TASKRUN and TASKRUN_FLAG beside SQPOLL. Its poller counts as the single
        // issuer.
        Some(poller) => builder.setup_sqpoll(poller.idle_ms).setup_sqpoll_cpu(poller.cpu),
        None => builder.setup_defer_taskrun().setup_taskrun_flag(),
    };
    let plain = builder.clone();
    let (ring, no_sqarray) = match builder.setup_no_sqarray().build(options.entries) {
        Ok(ring) => (ring, true),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            tracing::debug!("NO_SQARRAY refused: making the ring without it (Linux < 6.6)");
            (plain.build(options.entries)?, false)
        }
        Err(e) => return Err(e),
    };
    has_memory_for_buffers(&ring, options.buffers)?;
    Ok((ring, no_sqarray))
}

/// `ENOMEM` when there is no memory for a buffer ring as well. It tries with one in the kernel's own memory
/// (Linux 6.4), which counts as locked wherever ours does. Other errors appear again when the real one is
/// registered.
fn has_memory_for_buffers(ring: &IoUring, entries: u16) -> io::Result<()> {
    if entries == 0 {
        return Ok(());
    }
    let flags = io_uring::types::IOU_PBUF_RING_MMAP as u16;
    // SAFETY: no memory of ours is named, and the ring of buffers is empty.
    match unsafe { ring.submitter().register_buf_ring_with_flags(0, entries, 0, flags) } {
        Ok(()) => ring.submitter().unregister_buf_ring(0),
        Err(e) if e.raw_os_error() == Some(libc::ENOMEM) => Err(e),
        Err(_) => Ok(()),
    }
}

/// How long it waits for memory. Rings are charged to what their user may lock, and the kernel frees a closed
/// ring a moment after `close(2)` has returned, so a program that starts again at once finds its last run
/// still charged.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Tries again for so long while there is no memory.
pub(super) fn patiently<T>(patience: Duration, mut make: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    const PAUSE: Duration = Duration::from_millis(20);
    let mut left = patience;
    loop {
        match make() {
            Err(e) if e.raw_os_error() == Some(libc::ENOMEM) && !left.is_zero() => {
                std::thread::sleep(PAUSE);
                left = left.saturating_sub(PAUSE);
            }
            made => return made,
        }
    }
}

/// The error of a failed registration with the ring. Where policy refuses it, the platform cannot run us, as
/// at the set-up.
pub(crate) fn not_registered(what: &'static str, e: io::Error) -> Error {
    match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => Error::with_source(
            ErrorKind::Platform,
            format!(
                "{what}: io_uring_register is refused, most likely by the container's seccomp profile; allow it beside io_uring_setup and io_uring_enter"
            ),
            e,
        ),
        Some(libc::ENOMEM) => Error::with_source(
            ErrorKind::Platform,
            format!(
                "{what}: not enough memory may be locked; raise RLIMIT_MEMLOCK (ulimit -l), or let pools grow to less (pool_limit)"
            ),
            e,
        ),
        _ => Error::io(what, e),
    }
}

/// Turns the kernel's refusal into a line with cause and remedy.
fn explain(e: io::Error, poller: Option<Poller>) -> Error {
    if let (Some(poller), Some(libc::EINVAL | libc::EPERM)) = (poller, e.raw_os_error()) {
        let what = format!(
            "no ring with a submission poller on CPU {}; start without sqpoll, or name CPUs that are online and allowed",
            poller.cpu
        );
        return Error::with_source(ErrorKind::Platform, what, e);
    }
    let why = match e.raw_os_error() {
        Some(libc::EPERM) | Some(libc::EACCES) => refused_by_policy(),
        Some(libc::ENOSYS) => {
            "io_uring is not in this kernel, or a seccomp filter hides it; run on Linux 6.1 or later with io_uring_setup, io_uring_enter and io_uring_register allowed"
        }
        Some(libc::EINVAL) => {
            "this kernel lacks SINGLE_ISSUER or DEFER_TASKRUN; Annulus needs Linux 6.1 or later"
        }
        Some(libc::ENOMEM) => {
            "no memory for the ring, of few entries neither; raise RLIMIT_MEMLOCK (ulimit -l), which kernels from 6.14 on charge rings to, \
             or run on fewer cores"
        }
        Some(libc::EMFILE) | Some(libc::ENFILE) => {
            "no file descriptor left for the ring; raise RLIMIT_NOFILE (ulimit -n)"
        }
        _ => "cannot set up an io_uring",
    };
    Error::with_source(ErrorKind::Platform, why, e)
}

/// The reason for `EPERM`: the sysctl or a seccomp filter. The sysctl can be read; if it is not the reason,
/// the filter is.
fn refused_by_policy() -> &'static str {
    match std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").as_deref().map(str::trim) {
        Ok("2") => {
            "io_uring is switched off on this machine; an administrator turns it on by `sysctl kernel.io_uring_disabled=0`"
        }
        Ok("1") => {
            "io_uring is allowed only to privileged processes here; `sysctl kernel.io_uring_disabled=0`, or join the group in kernel.io_uring_group"
        }
        _ => {
            "io_uring is refused, most likely by the container's seccomp profile; allow io_uring_setup, io_uring_enter and io_uring_register"
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn no_memory() -> io::Error {
        io::Error::from_raw_os_error(libc::ENOMEM)
    }

    #[test]
    fn lack_of_memory_is_waited_out_and_nothing_else() {
        let mut tries = 0;
        let made = patiently(Duration::from_millis(60), || {
            tries += 1;
            if tries == 3 { Ok(tries) } else { Err(no_memory()) }
        });
        assert_eq!(made.unwrap(), 3);
        let mut tries = 0;
        let refused = patiently::<()>(PATIENCE, || {
            tries += 1;
            Err(io::Error::from_raw_os_error(libc::EPERM))
        });
        assert_eq!((refused.unwrap_err().raw_os_error(), tries), (Some(libc::EPERM), 1));
        assert!(patiently::<()>(Duration::ZERO, || Err(no_memory())).is_err());
    }

    #[test]
    fn half_of_a_ring_takes_about_half_of_the_memory() {
        let ring = RingOptions { buffers: 8192, ..RingOptions::for_entries(4096) };
        assert_eq!(ring.locked_bytes(), (256 << 10) + (256 << 10) + 4096 + (128 << 10));
        let half = ring.halved();
        assert_eq!((half.entries, half.cq_entries, half.asked), (2048, 8192, 4096));
        assert_eq!(half.locked_bytes(), (128 << 10) + (128 << 10) + 4096 + (128 << 10));
    }
}
