//! Rings whose kernel is a [`Player`], for the library's own tests.
//!
//! A thread that has a player makes rings on it ([`set`]). All other threads make rings of the kernel, so one
//! test program can have both and compare their answers.

use std::cell::RefCell;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

use io_uring::{IoUring, cqueue, squeue};

use super::enter::{MinWait, Wait};
use super::kernel::Kernel;
use super::setup::RingFeatures;
use super::{Cqe, Ring};
use crate::metrics::counters::CoreCounters;

/// Plays the kernel for one ring.
pub(crate) trait Player {
    /// Queues SQEs that belong together. False: there are too few free entries for all of them.
    fn push(&self, entries: &[squeue::Entry]) -> bool;
    fn unsubmitted(&self) -> usize;
    fn completions(&self) -> usize;
    fn has_completions(&self) -> bool;
    fn has_overflowed(&self) -> bool;
    /// The oldest completion in the queue.
    fn next(&self) -> Option<Cqe>;
    fn enter(&self, to_submit: usize, wait: Wait) -> io::Result<()>;
    fn register_buf_ring(&self, address: u64, slots: u16, flags: u16) -> io::Result<()>;
    fn unregister_buf_ring(&self) -> io::Result<()>;
    /// Whether receives may bring several buffers at once.
    fn offers_bundles(&self) -> bool;
    /// The features of the ring.
    fn features(&self) -> RingFeatures;
    /// Whether no descriptor is left for what is made now.
    fn lacks_descriptors(&self) -> bool;
}

thread_local! {
    static PLAYER: RefCell<Option<Rc<dyn Player>>> = const { RefCell::new(None) };
}

/// Rings that this thread makes are played by `player` from now on.
pub(crate) fn set(player: Option<Rc<dyn Player>>) {
    PLAYER.set(player);
}

/// Whether rings of this thread are played.
pub(crate) fn is_on() -> bool {
    PLAYER.with_borrow(Option::is_some)
}

/// The error of a call that makes a descriptor, when this thread's player has none left for it.
///
/// # Errors
/// `EMFILE`.
pub(crate) fn descriptor() -> io::Result<()> {
    let player = PLAYER.with_borrow(Clone::clone);
    match player.is_some_and(|player| player.lacks_descriptors()) {
        true => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        false => Ok(()),
    }
}

impl Ring {
    /// A ring that the thread's player plays.
    pub(super) fn played(counters: &CoreCounters) -> Option<Self> {
        let player = PLAYER.with_borrow(Clone::clone)?;
        let features = player.features();
        let (queues, counters) = (Queues::Played(player), counters.clone());
        Some(Self {
            queues,
            features,
            views: Vec::new(),
            min_wait: None,
            early: RefCell::default(),
            counters,
            #[cfg(debug_assertions)]
            reaps: Default::default(),
        })
    }
}

/// The kernel's ring, or a played one.
pub(super) enum Queues {
    Kernel(Box<Kernel>),
    Played(Rc<dyn Player>),
}

impl Queues {
    pub(super) fn new(ring: IoUring, enter_fd: RawFd, enter_flags: u32) -> Self {
        Self::Kernel(Box::new(Kernel::new(ring, enter_fd, enter_flags)))
    }

    pub(super) fn fd(&self) -> RawFd {
        match self {
            Self::Kernel(kernel) => kernel.fd(),
            Self::Played(_) => -1,
        }
    }

    pub(super) fn submitter(&self) -> io_uring::Submitter<'_> {
        match self {
            Self::Kernel(kernel) => kernel.submitter(),
            Self::Played(_) => unreachable!("nothing is registered with a played ring but its buffers"),
        }
    }

    pub(super) fn offers_bundles(&self) -> bool {
        match self {
            Self::Kernel(kernel) => kernel.offers_bundles(),
            Self::Played(player) => player.offers_bundles(),
        }
    }

    /// # Safety
    /// As for [`Kernel::register_buf_ring`].
    pub(super) unsafe fn register_buf_ring(
        &self,
        address: u64,
        slots: u16,
        group: u16,
        flags: u16,
    ) -> io::Result<()> {
        match self {
            // SAFETY: handed on to the caller.
            Self::Kernel(kernel) => unsafe { kernel.register_buf_ring(address, slots, group, flags) },
            Self::Played(player) => player.register_buf_ring(address, slots, flags),
        }
    }

    pub(super) fn unregister_buf_ring(&self, group: u16) -> io::Result<()> {
        match self {
            Self::Kernel(kernel) => kernel.unregister_buf_ring(group),
            Self::Played(player) => player.unregister_buf_ring(),
        }
    }

    /// # Safety
    /// As for [`Kernel::push`].
    pub(super) unsafe fn push(&self, entries: &[squeue::Entry]) -> bool {
        match self {
            // SAFETY: handed on to the caller.
            Self::Kernel(kernel) => unsafe { kernel.push(entries) },
            Self::Played(player) => player.push(entries),
        }
    }

    /// # Safety
    /// As for [`Kernel::push`].
    pub(super) unsafe fn push_one(&self, entry: &squeue::Entry) -> bool {
        match self {
            // SAFETY: handed on to the caller.
            Self::Kernel(kernel) => unsafe { kernel.push_one(entry) },
            Self::Played(player) => player.push(std::slice::from_ref(entry)),
        }
    }

    pub(super) fn unsubmitted(&self) -> usize {
        match self {
            Self::Kernel(kernel) => kernel.unsubmitted(),
            Self::Played(player) => player.unsubmitted(),
        }
    }

    pub(super) fn completions(&self) -> usize {
        match self {
            Self::Kernel(kernel) => kernel.completions(),
            Self::Played(player) => player.completions(),
        }
    }

    pub(super) fn has_completions(&self) -> bool {
        match self {
            Self::Kernel(kernel) => kernel.has_completions(),
            Self::Played(player) => player.has_completions(),
        }
    }

    pub(super) fn wants_enter(&self) -> bool {
        match self {
            Self::Kernel(kernel) => kernel.wants_enter(),
            Self::Played(player) => {
                player.unsubmitted() > 0 || player.has_completions() || player.has_overflowed()
            }
        }
    }

    pub(super) fn has_overflowed(&self) -> bool {
        match self {
            Self::Kernel(kernel) => kernel.has_overflowed(),
            Self::Played(player) => player.has_overflowed(),
        }
    }

    pub(super) fn must_wake_poller(&self) -> bool {
        match self {
            Self::Kernel(kernel) => kernel.must_wake_poller(),
            Self::Played(_) => false,
        }
    }

    pub(super) fn next(&self) -> Option<cqueue::Entry> {
        let player = match self {
            Self::Kernel(kernel) => return kernel.next(),
            Self::Played(player) => player,
        };
        let cqe = player.next()?;
        let mut raw = [0; 4];
        raw[..2].copy_from_slice(&[cqe.user_data as u32, (cqe.user_data >> 32) as u32]);
        raw[2..].copy_from_slice(&[cqe.result as u32, cqe.flags]);
        // SAFETY: an entry is the kernel's structure of 16 bytes, integers without padding: the user's data,
        // the result and flags, little end first.
        Some(unsafe { std::mem::transmute::<[u32; 4], cqueue::Entry>(raw) })
    }

    pub(super) fn enter(
        &self,
        to_submit: libc::c_uint,
        wait: Wait,
        gather: Option<MinWait>,
        flags: u32,
    ) -> io::Result<()> {
        match self {
            Self::Kernel(kernel) => kernel.enter(to_submit, wait, gather, flags),
            Self::Played(player) => player.enter(to_submit as usize, wait),
        }
    }
}
