//! Memory for what the kernel sees of an operation: fixed cells in chunks that never move.
//!
//! A `Slab` moves its entries when it grows, and the kernel holds pointers. So the table of states is a slab,
//! and what an SQE points at (buffers' owners, addresses, paths, time specs) lies here, in the cell with the
//! same index. Chunks are allocated on the core's thread, and so on its node, by the thread's local policy.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Bytes of a cell. The largest operation is a connect with its `sockaddr_storage` (128 bytes).
pub(crate) const CELL_SIZE: usize = 256;
const CELL_ALIGN: usize = 64;
/// Cells of a chunk: 64 KiB, sixteen pages.
const CHUNK_CELLS: usize = 256;
pub(crate) const CHUNK_SIZE: usize = CELL_SIZE * CHUNK_CELLS;

/// The cells of a core.
pub(crate) struct Arena {
    chunks: Vec<NonNull<u8>>,
}

impl Arena {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new() }
    }

    fn layout() -> Layout {
        const { assert!(CELL_SIZE.is_multiple_of(CELL_ALIGN)) }
        Layout::from_size_align(CHUNK_SIZE, CELL_ALIGN).expect("constants make a valid layout")
    }

    /// The cell of `index`, which is allocated if it is new. Its address never changes.
    pub(crate) fn cell(&mut self, index: usize) -> NonNull<u8> {
        let (chunk, cell) = (index / CHUNK_CELLS, index % CHUNK_CELLS);
        while self.chunks.len() <= chunk {
            // SAFETY: the layout is not empty.
            let memory = unsafe { alloc(Self::layout()) };
            self.chunks.push(NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(Self::layout())));
        }
        // SAFETY: `cell < CHUNK_CELLS`, so the result lies inside the chunk.
        unsafe { self.chunks[chunk].add(cell * CELL_SIZE) }
    }

    /// Fails to compile for an operation that would not fit.
    pub(crate) const fn fits<T>() {
        assert!(size_of::<T>() <= CELL_SIZE && align_of::<T>() <= CELL_ALIGN, "operation larger than a cell");
    }

    /// Gives the chunks up without freeing them, for an end at which the kernel has not given everything
    /// back.
    pub(crate) fn leak(&mut self) {
        self.chunks.clear();
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        for chunk in self.chunks.drain(..) {
            // SAFETY: allocated in `cell` with this layout, and freed once. The op table saw every cell
            // vacant, or leaked the arena.
            unsafe { dealloc(chunk.as_ptr(), Self::layout()) };
        }
    }
}
