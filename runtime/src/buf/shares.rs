//! Who still uses a buffer: a count that any thread may lower, and whose last share takes the buffer home.
//!
//! A share is a lease, or the core's own: the core has one for as long as the kernel goes on in the buffer, or chunks in it
//! wait to be taken. Only who has a share makes another, so a count of one never rises behind the back of who has it.

use crate::sync::atomic::{AtomicU32, Ordering};

/// The shares of one buffer.
pub(crate) struct Shares(AtomicU32);

impl Shares {
    /// None: the buffer is at home.
    pub(super) fn none() -> Self {
        Self(AtomicU32::new(0))
    }

    /// The first, of a buffer that nobody else knows: no ordering is needed.
    pub(super) fn begin(&self) {
        self.0.store(1, Ordering::Relaxed);
    }

    /// One more. The caller's own keeps the count above zero meanwhile.
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives the caller's share up. True: it was the last, and the caller takes the buffer home.
    #[must_use = "who has the last share takes the buffer home"]
    pub(super) fn give_up(&self) -> bool {
        // The usual case, a buffer with one share, needs no locked instruction. Acquire: what others did with the buffer
        // happened before it goes back.
        self.0.load(Ordering::Acquire) == 1 || self.0.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
