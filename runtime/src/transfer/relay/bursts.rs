//! Whether a stream is bulk or small messages.

use crate::buf::ring::BUFFER_SIZE;

/// Bytes that fill a receive buffer. A burst of this many is bulk, and worth a pipe.
pub(super) const BULK: usize = BUFFER_SIZE;
/// After this many smaller bursts in a row a stream is no longer bulk.
const SMALL_BURSTS: u16 = 3;

/// How much comes at once, and whether that is still bulk.
#[derive(Default)]
pub(super) struct Bursts {
    /// Bytes of the current burst, up to [`BULK`].
    bytes: u16,
    small: u16,
    /// The last burst was bulk.
    was_bulk: bool,
}

impl Bursts {
    pub(super) fn add(&mut self, n: usize) {
        self.bytes = n.saturating_add(self.bytes.into()).min(BULK) as u16;
    }

    /// Whether more bulk is to be expected: this burst is, or the last one was.
    pub(super) fn is_bulk(&self) -> bool {
        self.was_bulk || usize::from(self.bytes) >= BULK
    }

    /// Ends a burst. True when there were too many small ones.
    pub(super) fn over(&mut self) -> bool {
        let is_small = usize::from(std::mem::take(&mut self.bytes)) < BULK;
        self.was_bulk = !is_small;
        self.small = if is_small { self.small + 1 } else { 0 };
        self.small >= SMALL_BURSTS
    }
}
