//! The holder of each block, asserted where assertions are on.

#[cfg(all(debug_assertions, not(loom)))]
use std::sync::atomic::{AtomicU8, Ordering};

/// The holder of a block.
#[derive(Clone, Copy)]
pub(super) enum Holder {
    /// The owner: it is free.
    Owner,
    /// The code that it was handed out to.
    BlockRef,
    /// The list: it was returned on another thread, and the owner has not drained it yet.
    List,
}

/// Follows each block in debug builds. In other builds it is empty. Loom follows the blocks by its own cells.
pub(super) struct Whose {
    #[cfg(all(debug_assertions, not(loom)))]
    holders: Box<[AtomicU8]>,
}

impl Whose {
    pub(super) fn new(blocks: u32) -> Whose {
        #[cfg(not(all(debug_assertions, not(loom))))]
        let _ = blocks;
        Whose {
            #[cfg(all(debug_assertions, not(loom)))]
            holders: (0..blocks).map(|_| AtomicU8::new(Holder::Owner as u8)).collect(),
        }
    }

    /// Block `index` goes from one holder to another, or stays.
    ///
    /// # Panics
    /// In debug builds, if `from` does not hold it.
    #[inline(always)]
    pub(super) fn goes(&self, index: u32, from: Holder, to: Holder) {
        #[cfg(all(debug_assertions, not(loom)))]
        {
            // Relaxed: the operation that passes the block on orders this too.
            let (from, to, order) = (from as u8, to as u8, Ordering::Relaxed);
            let changed = self.holders[index as usize].compare_exchange(from, to, order, order);
            assert!(changed.is_ok(), "block {index} is {changed:?} where {from} was meant (see `Holder`)");
        }
        #[cfg(not(all(debug_assertions, not(loom))))]
        let _ = (index, from, to);
    }
}
