//! A block that is out: what its holder can do.

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use super::whose::Holder;
use super::{Shared, SharedRegion, give_back};

/// A block that is out. Dropping it returns the block, from any thread.
pub(crate) struct BlockRef<R: SharedRegion> {
    pub(super) shared: NonNull<Shared<R>>,
    pub(super) index: u32,
    pub(super) region: PhantomData<R>,
}

// SAFETY: a `BlockRef` accesses the block, which it holds alone. Of `Shared` it accesses only what is
// immutable or atomic, and the region, which is `Send + Sync` and may be used and dropped on any thread.
unsafe impl<R: SharedRegion> Send for BlockRef<R> {}
// SAFETY: `&BlockRef` gives the block's number and address, and no access to its bytes.
unsafe impl<R: SharedRegion> Sync for BlockRef<R> {}

impl<R: SharedRegion> BlockRef<R> {
    /// The block's number.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Whether both are handles on the same block.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.shared == other.shared && self.index == other.index
    }

    /// The region and its core.
    pub(crate) fn region(&self) -> &R {
        // SAFETY: a block that is out keeps `Shared` alive.
        unsafe { &self.shared.as_ref().region }
    }

    /// A second handle on the same block.
    ///
    /// # Safety
    ///
    /// The caller counts the handles. It drops only the last one, and forgets the others. Nobody writes the
    /// block while there is more than one.
    pub(crate) unsafe fn duplicate(&self) -> BlockRef<R> {
        // SAFETY: a block that is out keeps `Shared` alive.
        unsafe { self.shared.as_ref() }.whose.goes(self.index, Holder::BlockRef, Holder::BlockRef);
        BlockRef { shared: self.shared, index: self.index, region: PhantomData }
    }

    /// The block's first byte. The pointer is valid for the block size, for as long as this `BlockRef`.
    pub(crate) fn as_ptr(&self) -> NonNull<u8> {
        // SAFETY: a block that is out keeps `Shared` alive, and its number is below `blocks` (`hand_out`).
        unsafe { self.shared.as_ref().links.block(self.index) }
    }
}

impl<R: SharedRegion> Drop for BlockRef<R> {
    fn drop(&mut self) {
        give_back(self.shared, self.index);
    }
}

impl<R: SharedRegion> fmt::Debug for BlockRef<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockRef").field("index", &self.index).finish()
    }
}
