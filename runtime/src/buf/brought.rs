//! The leases on what one CQE brought, where it need not bring one buffer whole: see
//! [`fragments`](super::fragments).

use super::fragments::Fragments;
use super::lease::Lease;
use super::ring::{BUFFER_SIZE, BufRing};
use crate::contained::told;

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
    /// Whether what comes for streams comes in [parts](super::fragments).
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
            // Told when it is dropped: whoever takes the leases may be in the midst of something.
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

/// Out of line, as all events of `tracing` are that a completion passes by.
#[cold]
fn told_of_more(bytes: u32) {
    // A destructor tells it, and its thread may be panicking.
    told(|| tracing::error!("the kernel tells of {bytes} bytes more than its buffers hold; report this"));
}

#[cfg(all(test, not(loom)))]
mod tests;
