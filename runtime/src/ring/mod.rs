//! A core's ring: SQEs in, one system call a tick, CQEs out.
//!
//! All unsafe calls into the `io_uring` crate are in this folder, those on the queues in [`kernel`]. The
//! enter system call is our own, because the crate's keeps the registered descriptor only in a borrowed
//! value, and knows neither `NO_IOWAIT` nor how to run deferred work without waiting.

mod enter;
mod kernel;
mod make;
#[cfg(all(any(test, feature = "played"), not(loom)))]
pub(crate) mod played;
pub(crate) mod probe;
mod recv_buffers;
mod register;
mod release;
mod seal;
mod setup;
pub(crate) mod user_data;
mod view;
pub(crate) mod workers;

#[cfg(debug_assertions)]
use std::cell::Cell;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

use io_uring::{cqueue, squeue};

pub(crate) use enter::{MinWait, Wait};
#[cfg(not(all(any(test, feature = "played"), not(loom))))]
use kernel::Kernel as Queues;
#[cfg(all(any(test, feature = "played"), not(loom)))]
use played::Queues;
pub(crate) use recv_buffers::{RecvOptions, bundled};
pub use setup::RingFeatures;
pub(crate) use setup::{BusyPoll, Poller, RingOptions, not_registered, rings_are_locked};
use view::View;

use crate::metrics::counters::CoreCounters;

/// Completions that are put aside at once.
const AT_ONCE: usize = 64;

/// One completion, copied out of the queue so that handlers may use the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cqe {
    pub(crate) user_data: u64,
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

impl Cqe {
    /// Whether more completions of this operation will come.
    pub(crate) fn more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// Whether this is the notification of a zero-copy send, and not its result.
    pub(crate) fn notif(self) -> bool {
        cqueue::notif(self.flags)
    }

    /// The provided buffer that holds the received bytes.
    pub(crate) fn buffer(self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// Whether the kernel goes on in that buffer, after the received bytes. Linux 6.12.
    pub(crate) fn buffer_goes_on(self) -> bool {
        cqueue::buffer_more(self.flags)
    }
}

/// The ring of one core. It is neither `Send` nor `Sync`, because `SINGLE_ISSUER` means this thread.
pub(crate) struct Ring {
    queues: Queues,
    features: RingFeatures,
    views: Vec<(&'static str, View)>,
    /// How the core's sleep gathers completions, if it does.
    min_wait: Option<MinWait>,
    /// CQEs that had to be taken out early, to free a full submission queue.
    early: RefCell<VecDeque<Cqe>>,
    counters: CoreCounters,
    /// Whether completions are being handled.
    #[cfg(debug_assertions)]
    reaps: Cell<bool>,
}

impl Ring {
    /// What this ring has in force.
    pub(crate) fn features(&self) -> &RingFeatures {
        &self.features
    }

    /// The ranges of its memory, by name, for the report.
    pub(crate) fn memory(&self) -> impl Iterator<Item = (&'static str, std::ops::Range<usize>)> {
        self.views.iter().map(|(name, view)| (*name, view.addresses()))
    }

    /// How many SQEs were pushed since the ring was made.
    pub(crate) fn pushed(&self) -> u64 {
        self.counters.sqes.get()
    }

    /// The counters of the ring's core.
    pub(crate) fn counters(&self) -> &CoreCounters {
        &self.counters
    }

    /// The ring's descriptor, for messages from other rings.
    pub(crate) fn fd(&self) -> RawFd {
        self.queues.fd()
    }

    /// The ring itself, to register things with.
    pub(super) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.queues.submitter()
    }

    /// Unregisters a ring of buffers.
    pub(crate) fn unregister_buf_ring(&self, group: u16) -> io::Result<()> {
        self.queues.unregister_buf_ring(group)
    }

    /// Queues one SQE. A full queue is first flushed to the kernel, so no SQE is ever refused.
    ///
    /// # Safety
    /// What the entry points to stays valid and unmoved until its final CQE.
    #[inline(always)]
    pub(crate) unsafe fn push(&self, entry: &squeue::Entry) {
        // SAFETY: the caller keeps what the entry points to.
        while !unsafe { self.queues.push_one(entry) } {
            self.flush_queue();
        }
        self.counters.sqes.add(1);
    }

    /// Queues SQEs that belong together, because the end of a submission must not tear a link chain.
    ///
    /// # Safety
    /// As for [`push`](Self::push), for each entry.
    pub(crate) unsafe fn push_all(&self, entries: &[squeue::Entry]) {
        // SAFETY: the caller keeps what the entries point to.
        while !unsafe { self.queues.push(entries) } {
            self.flush_queue();
        }
        self.counters.sqes.add(entries.len() as u64);
    }

    /// Whether completions can be taken, or made by an enter.
    pub(crate) fn has_completions(&self) -> bool {
        self.queues.has_completions() || !self.early.borrow().is_empty()
    }

    /// Completions that can be taken.
    #[inline(always)]
    pub(crate) fn completions(&self) -> usize {
        self.queues.completions() + self.early.borrow().len()
    }

    /// Hands the full submission queue to the kernel. It puts completions aside if the kernel demands that
    /// first.
    #[cold]
    #[inline(never)]
    fn flush_queue(&self) {
        let made = if self.is_polled() { self.wait_for_poller() } else { self.enter_once(Wait::No, None) };
        match made {
            Ok(()) => {}
            Err(e) => {
                // EBUSY: the completion queue has overflowed. EAGAIN: there is no memory at the moment. Both
                // pass once CQEs are taken.
                assert!(
                    matches!(e.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN | libc::EINTR)),
                    "enter: {e}"
                );
                let mut early = self.early.borrow_mut();
                early.extend(
                    std::iter::from_fn(|| self.queues.next()).take(AT_ONCE).map(|entry| copy(&entry)),
                );
            }
        }
    }

    /// Whether an enter would do anything: SQEs to hand over, deferred work to run, or overflowed CQEs to
    /// fetch.
    pub(crate) fn wants_enter(&self) -> bool {
        self.queues.wants_enter()
    }

    /// Whether the kernel keeps completions that did not fit the queue.
    pub(crate) fn has_overflowed(&self) -> bool {
        self.queues.has_overflowed()
    }

    /// Takes the completions that are there out of the queue, one by one and in order, and hands each to
    /// `handle`. Returns how many. Those that handlers make the kernel post meanwhile belong to the next
    /// tick. If `handle` panics, those that are left stay where they are.
    ///
    /// `handle` must not call this: a later completion would be handled before the end of this one.
    ///
    /// # Panics
    /// In debug builds, if it does.
    #[inline(always)]
    pub(crate) fn reap(&self, mut handle: impl FnMut(Cqe)) -> usize {
        #[cfg(debug_assertions)]
        let _reaps = Reaps::begin(&self.reaps);
        let there = self.completions();
        let mut taken = 0;
        while taken < there {
            let Some(cqe) = self.next() else { break };
            handle(cqe);
            taken += 1;
        }
        taken
    }

    /// The oldest completion. One that was put aside is older than those in the queue, and a handler may have
    /// put some aside.
    #[inline(always)]
    fn next(&self) -> Option<Cqe> {
        if self.early.borrow().is_empty() {
            return self.queues.next().map(|entry| copy(&entry));
        }
        self.next_early()
    }

    /// The borrow ends with the call, because handlers may push, and pushing may put more aside.
    #[cold]
    #[inline(never)]
    fn next_early(&self) -> Option<Cqe> {
        self.early.borrow_mut().pop_front()
    }
}

/// Completions are handled until it is dropped.
#[cfg(debug_assertions)]
struct Reaps<'a>(&'a Cell<bool>);

#[cfg(debug_assertions)]
impl<'a> Reaps<'a> {
    fn begin(reaps: &'a Cell<bool>) -> Self {
        assert!(!reaps.replace(true), "completions are handled while others are being handled");
        Self(reaps)
    }
}

#[cfg(debug_assertions)]
impl Drop for Reaps<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

fn copy(entry: &cqueue::Entry) -> Cqe {
    Cqe { user_data: entry.user_data(), result: entry.result(), flags: entry.flags() }
}

#[cfg(all(test, debug_assertions, not(loom)))]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use io_uring::{opcode, types};

    use super::*;

    /// So nothing is to be gained by looking for completions before an enter, or by putting the enter off
    /// while some are found.
    ///
    /// Seen to fail: with an enter before the look.
    #[test]
    fn completions_come_by_enters_and_not_between_them() {
        let ring = Ring::new(RingOptions::for_entries(8), None, CoreCounters::default()).unwrap();
        let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let poll = opcode::PollAdd::new(types::Fd(far.as_raw_fd()), libc::POLLIN as u32).build();
        // SAFETY: a poll points to nothing, and the descriptor is open until it has ended.
        unsafe { ring.push(&poll) };
        ring.enter(Wait::No).unwrap();
        near.write_all(b"here").unwrap();
        assert!(ring.has_completions(), "the kernel says that it has some to make");
        assert_eq!(ring.completions(), 0);
        ring.enter(Wait::No).unwrap();
        assert_eq!(ring.completions(), 1);
    }

    /// Seen to fail: without the assertion, which let the second one take nothing.
    #[test]
    fn completions_are_not_handled_while_others_are() {
        let ring = Ring::new(RingOptions::for_entries(8), None, CoreCounters::default()).unwrap();
        let nop = || {
            // SAFETY: the entry points to nothing.
            unsafe { ring.push(&opcode::Nop::new().build()) };
            ring.enter(Wait::Forever).unwrap();
        };
        nop();
        let nested = || ring.reap(|_| assert_eq!(ring.reap(|_| {}), 0));
        assert!(catch_unwind(AssertUnwindSafe(nested)).is_err());
        nop();
        assert_eq!(ring.reap(|_| {}), 1);
    }
}
