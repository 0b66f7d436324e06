//! What a receive brought when a buffer and a CQE are not one and the same: parts of buffers, as leases, in
//! order.
//!
//! - *Incremental buffers* (`IOU_PBUF_RING_INC`, Linux 6.12): the kernel goes on in a buffer where the last
//!   bytes ended, for whichever stream comes next, and says so (`IORING_CQE_F_BUF_MORE`). While it does the
//!   core has a [share](super::shares) of the buffer, as each lease has; the core's becomes the lease's on
//!   the last bytes. The last share takes the buffer home.
//! - *Bundles* (`IORING_RECVSEND_BUNDLE`, Linux 6.10): one CQE names the first of several buffers, which
//!   follow each other in the ring. Older kernels may post the last CQE of a receive behind that of another
//!   stream whose bytes came later (until commit 687b2bae0eff, 6.15), so each buffer's slot is remembered,
//!   and not counted. A look in vain may leave a buffer shorter than it was, in its descriptor, so that is
//!   where its length is read.
//!
//! `io_uring_register_buf_ring(3)`, `io_uring_prep_recv(3)`.

use std::cell::Cell;

use super::lease::Lease;
use super::ring::{BUFFER_SIZE, BufRing};

/// What is to be known of buffers that come in parts.
pub(super) struct Fragments {
    /// Of incremental buffers: bytes that the kernel has written where it goes on, else 0. Empty otherwise.
    filled: Box<[Cell<u16>]>,
    /// With bundles: where the buffer was last put into the ring. Empty otherwise.
    slot: Box<[Cell<u16>]>,
    /// The slot from which on it is not noted yet what lies where.
    noted: Cell<u16>,
}

impl Fragments {
    /// For so many buffers; `None` where each CQE brings one buffer whole.
    pub(super) fn new(incremental: bool, bundles: bool, buffers: usize) -> Option<Self> {
        let each = |on| vec![Cell::new(0); if on { buffers } else { 0 }].into_boxed_slice();
        (incremental || bundles).then(|| Self {
            filled: each(incremental),
            slot: each(bundles),
            noted: Cell::new(0),
        })
    }

    /// With bundles, notes what was put into the ring since the last time. At each CQE and at the end of each
    /// tick, so no slot was filled twice since: no buffer goes into the ring again before a CQE has named it.
    pub(super) fn note(&self, bufs: &BufRing) {
        while self.bundled() && self.noted.get() != bufs.tail() {
            let slot = self.noted.get();
            self.slot[usize::from(bufs.placed_at(slot).0)].set(slot);
            self.noted.set(slot.wrapping_add(1));
        }
    }

    /// Whether one CQE may name several buffers.
    pub(super) fn bundled(&self) -> bool {
        !self.slot.is_empty()
    }

    fn filled(&self, buffer: u16) -> u16 {
        self.filled.get(usize::from(buffer)).map_or(0, Cell::get)
    }

    fn fill(&self, buffer: u16, filled: u16) {
        if let Some(known) = self.filled.get(usize::from(buffer)) {
            known.set(filled);
        }
    }

    /// In how many buffers the kernel goes on.
    #[cfg(debug_assertions)]
    pub(super) fn begun(&self) -> u16 {
        self.filled.iter().filter(|filled| filled.get() > 0).count() as u16
    }

    /// The buffers in which the kernel was to go on. From now on it is not.
    pub(super) fn take_begun(&self) -> impl Iterator<Item = u16> {
        let begun = self.filled.iter().enumerate().filter(|(_, filled)| filled.take() > 0);
        begun.map(|(buffer, _)| buffer as u16)
    }
}

/// The leases on what came with one CQE, oldest first. What is not asked for is dropped.
pub(crate) struct Brought<'a> {
    bufs: &'a BufRing,
    fragments: &'a Fragments,
    buffer: u16,
    left: u32,
    goes_on: bool,
    /// Bytes that the kernel told of and no buffer holds.
    beyond: u32,
}

impl BufRing {
    /// Whether what comes for streams comes in [parts](self).
    pub(crate) fn come_in_fragments(&self) -> bool {
        self.fragments.is_some()
    }

    /// Whether it comes in bundles.
    pub(crate) fn come_in_bundles(&self) -> bool {
        self.fragments.as_ref().is_some_and(Fragments::bundled)
    }

    /// A CQE says that `bytes` bytes came, from buffer `first` on, and whether the kernel goes on behind
    /// them. `None` where each CQE brings one buffer whole.
    ///
    /// With no bytes nothing of the buffer was used up, so it is in the ring still, whatever the flags say:
    /// put there once more, it would be there twice. (6.18 names no buffer at the end of a stream; other
    /// kernels do.)
    pub(crate) fn brought(&self, first: u16, bytes: u32, goes_on: bool) -> Option<Brought<'_>> {
        let fragments = self.fragments.as_ref()?;
        fragments.note(self);
        Some(Brought { bufs: self, fragments, buffer: first, left: bytes, goes_on, beyond: 0 })
    }
}

impl Iterator for Brought<'_> {
    type Item = Lease;

    fn next(&mut self) -> Option<Lease> {
        if self.left == 0 {
            return None;
        }
        let filled = self.fragments.filled(self.buffer);
        let spare = if self.fragments.filled.is_empty() {
            let slot = self.fragments.slot[usize::from(self.buffer)].get();
            self.bufs.placed_at(slot).1.min(BUFFER_SIZE as u32)
        } else {
            BUFFER_SIZE as u32 - u32::from(filled)
        };
        let bytes = self.left.min(spare);
        self.left -= bytes;
        if bytes == 0 || (self.left > 0 && !self.fragments.bundled()) {
            // Told when it is dropped: whoever takes the leases may be in the midst of something.
            self.beyond = std::mem::take(&mut self.left);
        }
        let ends = self.left > 0 || !self.goes_on;
        self.fragments.fill(self.buffer, if ends { 0 } else { filled + bytes as u16 });
        let lease = self.bufs.lend(self.buffer, filled, bytes, ends);
        if self.left > 0 {
            let slot = self.fragments.slot[usize::from(self.buffer)].get();
            self.buffer = self.bufs.placed_at(slot.wrapping_add(1)).0;
        }
        Some(lease)
    }
}

impl Drop for Brought<'_> {
    fn drop(&mut self) {
        self.by_ref().for_each(drop);
        if self.beyond > 0 {
            told_of_more(self.beyond);
        }
    }
}

/// Out of line, as all events of `tracing` are that a completion passes by.
#[cold]
fn told_of_more(bytes: u32) {
    tracing::error!("the kernel tells of {bytes} bytes more than its buffers hold; report this");
}

#[cfg(all(test, not(loom)))]
mod tests;
