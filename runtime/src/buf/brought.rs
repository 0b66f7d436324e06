//! The leases on what one CQE brought, where a CQE need not bring exactly one whole buffer: see
//! [`fragments`](super::fragments).

use super::fragments::Fragments;
use super::lease::Lease;
use super::ring::{BUFFER_SIZE, BufRing};
use crate::contained::told;

/// The leases on what came with one CQE, oldest first. Those that nobody takes are dropped.
pub(crate) struct Brought<'a> {
    bufs: &'a BufRing,
    fragments: &'a Fragments,
    buffer: u16,
    left: u32,
    goes_on: bool,
    /// Bytes that the kernel reported and no buffer holds.
    beyond: u32,
}

impl BufRing {
    /// Whether streams receive [fragments](super::fragments) of buffers.
    pub(crate) fn come_in_fragments(&self) -> bool {
        self.fragments.is_some()
    }

    /// Whether they receive bundles.
    pub(crate) fn come_in_bundles(&self) -> bool {
        self.fragments.as_ref().is_some_and(Fragments::bundled)
    }

    /// A CQE says that `bytes` bytes came, from buffer `first` on, and whether the kernel goes on behind
    /// them. `None` where each CQE brings one whole buffer.
    ///
    /// With no bytes the buffer is still in the ring, whatever the flags say, because nothing of it was used.
    /// It must not be put there a second time. (6.18 names no buffer at the end of a stream; other kernels
    /// do.)
    pub(crate) fn brought(&self, first: u16, bytes: u32, goes_on: bool) -> Option<Brought<'_>> {
        let fragments = self.fragments.as_ref()?;
        fragments.note(self.tail(), |slot| self.placed_at(slot).0);
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
        let spare = match self.fragments.slot_of(self.buffer) {
            Some(slot) => self.bufs.placed_at(slot).1.min(BUFFER_SIZE as u32),
            None => BUFFER_SIZE as u32 - u32::from(filled),
        };
        let bytes = self.left.min(spare);
        self.left -= bytes;
        if bytes == 0 || (self.left > 0 && !self.fragments.bundled()) {
            // The event is logged on drop, because whoever takes the leases may be in the middle of a change.
            self.beyond = std::mem::take(&mut self.left);
        }
        let ends = self.left > 0 || !self.goes_on;
        self.fragments.fill(self.buffer, if ends { 0 } else { filled + bytes as u16 });
        let lease = self.bufs.lend(self.buffer, filled, bytes, ends);
        if self.left > 0 {
            let slot = self.fragments.slot(self.buffer);
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

/// Out of line, as are all `tracing` events on the path of a completion.
#[cold]
fn told_of_more(bytes: u32) {
    // A destructor tells it, and its thread may be panicking.
    told(|| tracing::error!("the kernel tells of {bytes} bytes more than its buffers hold; report this"));
}

#[cfg(all(test, not(loom)))]
mod tests;
