//! The numbers that returned blocks carry in their own first bytes.

use std::ptr::NonNull;

/// Where the blocks lie, and the links in their first bytes.
///
/// Loom can only watch memory of its own kind: under loom the links lie in cells beside the blocks, one for
/// each, and every access that is not ordered by the list makes the model fail.
pub(super) struct Links {
    base: NonNull<u8>,
    block_size: usize,
    #[cfg(loom)]
    cells: Box<[loom::cell::UnsafeCell<u32>]>,
}

impl Links {
    #[cfg_attr(not(loom), expect(unused_variables, reason = "loom needs to know how many"))]
    pub(super) fn new(base: NonNull<u8>, block_size: usize, blocks: u32) -> Links {
        #[cfg(loom)]
        let cells = (0..blocks).map(|_| loom::cell::UnsafeCell::new(0)).collect();
        Links {
            base,
            block_size,
            #[cfg(loom)]
            cells,
        }
    }

    /// # Safety
    ///
    /// There is a block `index`, and the region has not been freed.
    pub(super) unsafe fn block(&self, index: u32) -> NonNull<u8> {
        // SAFETY: within the one allocation that the caller of `Owner::new` promised.
        unsafe { self.base.add(index as usize * self.block_size) }
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
        // SAFETY: loom checks that nobody else is at it.
        self.cells[index as usize].with_mut(|link| unsafe { *link = next });
    }

    #[cfg(loom)]
    pub(super) unsafe fn get(&self, index: u32) -> u32 {
        // SAFETY: loom checks that the write happened before.
        self.cells[index as usize].with(|link| unsafe { *link })
    }
}
