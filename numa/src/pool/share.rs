//! One core's part of a pool, and the pieces that are carved out of it.

use std::{
    ptr::NonNull,
    sync::{Arc, atomic::Ordering},
};

use super::{Record, record};
use crate::{NodeId, region::Region};

/// One core's part of its node's pool. The core's thread gets it and carves it into what it needs. It keeps
/// the region alive.
#[derive(Debug)]
pub struct Share {
    region: Arc<Region>,
    index: usize,
}

impl Share {
    pub(super) fn new(region: Arc<Region>, index: usize) -> Self {
        Self { region, index }
    }

    /// The next `len` bytes, zeroed, at an address that is a multiple of `align` (a power of two). None when
    /// the share has too few bytes left, when `len` is 0, or when `align` is no power of two. Carved memory
    /// never comes back to the share; [`Blocks`](super::Blocks) is for memory that comes and goes.
    pub fn carve(&mut self, len: usize, align: usize) -> Option<Carved> {
        if len == 0 || !align.is_power_of_two() {
            return None;
        }
        let base = self.region.as_ptr().addr();
        // Relaxed: `&mut self` is the only writer; it is an atomic because the header lies in shared memory.
        let record = self.record();
        let next = record.next.load(Ordering::Relaxed);
        let start = (base + next).checked_next_multiple_of(align)? - base;
        let end = start.checked_add(len).filter(|&end| end <= record.end)?;
        record.next.store(end, Ordering::Relaxed);
        // SAFETY: `start..end` is inside the share, hence inside the region.
        let ptr = unsafe { NonNull::new_unchecked(self.region.as_ptr().add(start)) };
        Some(Carved { ptr, len, region: Arc::clone(&self.region) })
    }

    /// Its addresses, carved or not.
    pub fn addresses(&self) -> std::ops::Range<usize> {
        let base = self.region.as_ptr().addr();
        base + self.record().start..base + self.record().end
    }

    /// Bytes of the share, carved or not.
    #[expect(clippy::len_without_is_empty, reason = "a share is never empty")]
    pub fn len(&self) -> usize {
        self.record().end - self.record().start
    }

    /// Bytes that have not been carved.
    pub fn left(&self) -> usize {
        self.record().end - self.record().next.load(Ordering::Relaxed)
    }

    /// The node that the memory is asked from.
    pub fn node(&self) -> NodeId {
        self.region.node()
    }

    /// The region that the share is part of.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    fn record(&self) -> &Record {
        // SAFETY: a share is only made by a pool whose header has a record of this index, and keeps the
        // region alive.
        unsafe { record(&self.region, self.index).as_ref() }
    }
}

/// A piece of node memory that belongs to the holder of this value: nobody else has any byte of it.
#[derive(Debug)]
pub struct Carved {
    /// Its first byte.
    ptr: NonNull<u8>,
    /// Its length in bytes.
    len: usize,
    /// Keeps the memory mapped.
    region: Arc<Region>,
}

// SAFETY: the bytes belong to the holder alone, as with a Box<[u8]>.
unsafe impl Send for Carved {}

impl Carved {
    /// A whole region as one piece. A pool grows by such pieces.
    pub fn whole(region: Region) -> Self {
        // SAFETY: a region's pointer is never null.
        let ptr = unsafe { NonNull::new_unchecked(region.as_ptr()) };
        Self { ptr, len: region.len(), region: region.shared() }
    }

    /// Its first byte. Valid for reads and writes of `len` bytes as long as [`region`](Self::region) lives.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// Its length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "nothing empty is carved")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The region it is part of; a clone keeps the memory mapped.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }
}
