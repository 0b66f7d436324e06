//! What a receive brought where a CQE need not bring exactly one buffer: fragments of buffers, as leases, in
//! order.
//!
//! - *Incremental buffers* (`IOU_PBUF_RING_INC`, Linux 6.12): the kernel goes on in a buffer where the last
//!   bytes ended, for whichever stream receives next, and says so (`IORING_CQE_F_BUF_MORE`). Meanwhile the
//!   core has a [share](super::shares) of the buffer, as each lease has. The core's share passes to the lease
//!   on the last bytes. The last share to go frees the buffer.
//! - *Bundles* (`IORING_RECVSEND_BUNDLE`, Linux 6.10): one CQE names the first of several buffers, which
//!   follow each other in the ring. Before 6.15 (commit 687b2bae0eff) the kernel may post the last CQE of a
//!   receive behind that of another stream whose bytes came later. So each buffer's slot is remembered, and
//!   not counted. A bundled receive that finds nothing may leave a buffer shorter than it was, in its
//!   descriptor. So its length is read there.
//!
//! `io_uring_register_buf_ring(3)`, `io_uring_prep_recv(3)`.

use std::cell::Cell;

/// What is kept about buffers that are received in fragments.
pub(super) struct Fragments {
    /// For incremental buffers: the bytes that the kernel has written in a buffer where it goes on, else 0.
    /// Empty otherwise.
    filled: Box<[Cell<u16>]>,
    /// For bundles: the slot that the buffer was last put into. Empty otherwise.
    slot: Box<[Cell<u16>]>,
    /// The first slot whose buffer has not been noted yet.
    noted: Cell<u16>,
}

impl Fragments {
    /// State for this many buffers; `None` where each CQE brings one whole buffer.
    pub(super) fn new(incremental: bool, bundles: bool, buffers: usize) -> Option<Self> {
        let each = |on| vec![Cell::new(0); if on { buffers } else { 0 }].into_boxed_slice();
        (incremental || bundles).then(|| Self {
            filled: each(incremental),
            slot: each(bundles),
            noted: Cell::new(0),
        })
    }

    /// For bundles, notes what was put into the ring since the last call. It is called at each CQE and at the
    /// end of each tick, and no buffer goes into the ring again before a CQE has named it. So no slot was
    /// filled twice since the last call. `tail` is the slot that is filled next, and `placed_at` says which
    /// buffer lies in a slot.
    pub(super) fn note(&self, tail: u16, placed_at: impl Fn(u16) -> u16) {
        while self.bundled() && self.noted.get() != tail {
            let slot = self.noted.get();
            self.slot[usize::from(placed_at(slot))].set(slot);
            self.noted.set(slot.wrapping_add(1));
        }
    }

    /// Whether one CQE may name several buffers.
    pub(super) fn bundled(&self) -> bool {
        !self.slot.is_empty()
    }

    pub(super) fn filled(&self, buffer: u16) -> u16 {
        self.filled.get(usize::from(buffer)).map_or(0, Cell::get)
    }

    pub(super) fn fill(&self, buffer: u16, filled: u16) {
        if let Some(known) = self.filled.get(usize::from(buffer)) {
            known.set(filled);
        }
    }

    /// The slot that a buffer was last put into; `None` for incremental buffers.
    pub(super) fn slot_of(&self, buffer: u16) -> Option<u16> {
        self.filled.is_empty().then(|| self.slot[usize::from(buffer)].get())
    }

    /// The slot that a buffer of a bundle was last put into.
    pub(super) fn slot(&self, buffer: u16) -> u16 {
        self.slot[usize::from(buffer)].get()
    }

    /// The number of buffers in which the kernel goes on.
    #[cfg(debug_assertions)]
    pub(super) fn begun(&self) -> u16 {
        self.filled.iter().filter(|filled| filled.get() > 0).count() as u16
    }

    /// The buffers in which the kernel would have gone on. From now on it does not.
    pub(super) fn take_begun(&self) -> impl Iterator<Item = u16> {
        let begun = self.filled.iter().enumerate().filter(|(_, filled)| filled.take() > 0);
        begun.map(|(buffer, _)| buffer as u16)
    }
}
