//! The numbers that returned blocks carry in their own first bytes.

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

/// Where the blocks lie, and the links in their first bytes.
///
/// Blocks lie in extents of equal length. An extent is one piece of memory, and its address is in a table
/// that is large enough for every extent that there can be. So blocks can be added while others are out, and
/// none of them moves.
///
/// Loom can only watch memory of its own kind. Under loom the links lie in cells beside the blocks, one for
/// each block, and the model fails on every access that the list does not order.
pub(super) struct Links {
    /// The first byte of each extent; null for one that has not been added.
    extents: Box<[AtomicPtr<u8>]>,
    /// An extent has two to the power of this many blocks.
    shift: u32,
    block_size: usize,
    #[cfg(loom)]
    cells: Box<[loom::cell::UnsafeCell<u32>]>,
}

impl Links {
    /// Numbers for `extents` times `per_extent` (a power of two) blocks. No block exists yet.
    pub(super) fn new(block_size: usize, per_extent: u32, extents: u32) -> Links {
        #[cfg(loom)]
        let cells = (0..per_extent * extents).map(|_| loom::cell::UnsafeCell::new(0)).collect();
        Links {
            extents: (0..extents).map(|_| AtomicPtr::new(ptr::null_mut())).collect(),
            shift: per_extent.ilog2(),
            block_size,
            #[cfg(loom)]
            cells,
        }
    }

    /// Sets the address of the blocks from `first` on, which is the first block of an extent.
    pub(super) fn add(&self, first: u32, base: NonNull<u8>) {
        debug_assert!(first.trailing_zeros() >= self.shift, "block {first} is no extent's first");
        // Relaxed, here and below: the holder of a block got it after its extent was added.
        let extent = &self.extents[(first >> self.shift) as usize];
        debug_assert!(extent.load(Ordering::Relaxed).is_null(), "block {first} was added before");
        extent.store(base.as_ptr(), Ordering::Relaxed);
    }

    /// # Safety
    ///
    /// Block `index` exists, and its memory has not been freed.
    pub(super) unsafe fn block(&self, index: u32) -> NonNull<u8> {
        let base = self.extents[(index >> self.shift) as usize].load(Ordering::Relaxed);
        debug_assert!(!base.is_null(), "block {index} was not added");
        let within = (index & ((1 << self.shift) - 1)) as usize;
        // SAFETY: the block's extent was added, with memory for it (`Owner::add`).
        unsafe { NonNull::new_unchecked(base.add(within * self.block_size)) }
    }

    /// # Safety
    ///
    /// The caller has block `index` to itself.
    #[cfg(not(loom))]
    pub(super) unsafe fn set(&self, index: u32, next: u32) {
        // SAFETY: the block has at least four bytes (`Owner::new`) and is the caller's. Blocks need not be
        // aligned.
        unsafe { self.block(index).cast::<u32>().write_unaligned(next) };
    }

    /// # Safety
    ///
    /// The caller has block `index` to itself, and it was on the list.
    #[cfg(not(loom))]
    pub(super) unsafe fn get(&self, index: u32) -> u32 {
        // SAFETY: as in `set`, which wrote these bytes before the block got onto the list.
        unsafe { self.block(index).cast::<u32>().read_unaligned() }
    }

    #[cfg(loom)]
    pub(super) unsafe fn set(&self, index: u32, next: u32) {
        // SAFETY: loom checks that nobody else accesses it.
        self.cells[index as usize].with_mut(|link| unsafe { *link = next });
    }

    #[cfg(loom)]
    pub(super) unsafe fn get(&self, index: u32) -> u32 {
        // SAFETY: loom checks that the write happened before.
        self.cells[index as usize].with(|link| unsafe { *link })
    }
}
