//! Memory for what the kernel sees of an operation: fixed cells in chunks that never move.
//!
//! The table of states is a `Vec`, which moves its entries when it grows, and the kernel holds pointers. So
//! what an SQE points at (buffers' owners, addresses, paths, time specs) lies here, in the cell with the same
//! index. Chunks are allocated on the core's thread, and so on its node, by the thread's local policy.
//!
//! An index has two cells, and the size of an operation says in which it lies. What is under way for long and
//! for every connection, such as its receive, is small; the few large ones have chunks of their own, which
//! are allocated when the first of their indices is used so.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Bytes of a large cell. The largest operation is a connect with its `sockaddr_storage` (128 bytes).
pub(crate) const CELL_SIZE: usize = 256;
/// Bytes of a small cell: a line of the cache. Sends and receives fit.
const SMALL_SIZE: usize = 64;
const CELL_ALIGN: usize = 64;
/// Bytes of a chunk: sixteen pages.
pub(crate) const CHUNK_SIZE: usize = 64 << 10;

/// The cells of a core.
pub(crate) struct Arena {
    small: Cells<SMALL_SIZE>,
    large: Cells<CELL_SIZE>,
}

impl Arena {
    pub(crate) fn new() -> Self {
        Self { small: Cells::new(), large: Cells::new() }
    }

    /// The cell of `index` for an operation of `size` bytes. Its memory is allocated if it is new. Its
    /// address never changes.
    #[inline(always)]
    pub(crate) fn cell(&mut self, index: usize, size: usize) -> NonNull<u8> {
        if size <= SMALL_SIZE { self.small.cell(index) } else { self.large.cell(index) }
    }

    /// Whether operations of these sizes have the same cell, if they have the same index.
    #[inline(always)]
    pub(crate) fn share_cells(one: usize, other: usize) -> bool {
        (one <= SMALL_SIZE) == (other <= SMALL_SIZE)
    }

    /// Fails to compile for an operation that would not fit.
    pub(crate) const fn fits<T>() {
        assert!(size_of::<T>() <= CELL_SIZE && align_of::<T>() <= CELL_ALIGN, "operation larger than a cell");
    }

    /// Fails to compile for an operation that would not fit into a small cell.
    pub(crate) const fn is_small<T>() {
        assert!(size_of::<T>() <= SMALL_SIZE, "operation larger than a small cell");
    }

    /// Gives the chunks up without freeing them, for an end at which the kernel has not given everything
    /// back.
    pub(crate) fn leak(&mut self) {
        self.small.chunks.clear();
        self.large.chunks.clear();
    }
}

/// Cells of one size.
struct Cells<const SIZE: usize> {
    /// Those of which no cell was used are not there.
    chunks: Vec<Option<NonNull<u8>>>,
}

impl<const SIZE: usize> Cells<SIZE> {
    const PER_CHUNK: usize = CHUNK_SIZE / SIZE;

    fn new() -> Self {
        Self { chunks: Vec::new() }
    }

    fn layout() -> Layout {
        const { assert!(SIZE.is_multiple_of(CELL_ALIGN) && CHUNK_SIZE.is_multiple_of(SIZE)) }
        Layout::from_size_align(CHUNK_SIZE, CELL_ALIGN).expect("constants make a valid layout")
    }

    #[inline(always)]
    fn cell(&mut self, index: usize) -> NonNull<u8> {
        let chunk = match self.chunks.get(index / Self::PER_CHUNK) {
            Some(Some(chunk)) => *chunk,
            _ => self.allocate(index / Self::PER_CHUNK),
        };
        // SAFETY: the cell's number in its chunk is below `PER_CHUNK`, so the result lies inside the chunk.
        unsafe { chunk.add(index % Self::PER_CHUNK * SIZE) }
    }

    #[cold]
    #[inline(never)]
    fn allocate(&mut self, chunk: usize) -> NonNull<u8> {
        if self.chunks.len() <= chunk {
            self.chunks.resize(chunk + 1, None);
        }
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc(Self::layout()) };
        *self.chunks[chunk].insert(NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(Self::layout())))
    }
}

impl<const SIZE: usize> Drop for Cells<SIZE> {
    fn drop(&mut self) {
        for chunk in self.chunks.drain(..).flatten() {
            // SAFETY: allocated in `allocate` with this layout, and freed once. The op table saw every cell
            // vacant, or leaked the arena.
            unsafe { dealloc(chunk.as_ptr(), Self::layout()) };
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// An idle connection has its receive under way.
    ///
    /// Seen to fail: with all chunks up to the one that is used allocated, 40; with large cells for all, none
    /// small.
    #[test]
    fn small_operations_take_small_cells_and_large_ones_only_what_they_need() {
        let mut arena = Arena::new();
        let allocated = |arena: &Arena| {
            let [small, large] = [&arena.small.chunks, &arena.large.chunks];
            (small.iter().flatten().count(), large.iter().flatten().count())
        };
        for index in 0..10_000 {
            arena.cell(index, SMALL_SIZE);
        }
        assert_eq!(allocated(&arena), (10, 0));
        arena.cell(10_000, SMALL_SIZE + 1);
        assert_eq!(allocated(&arena), (10, 1));
    }

    /// Seen to fail: with cells of half their size, and with large cells for all.
    #[test]
    fn cells_lie_apart_and_stay_where_they_are() {
        let mut arena = Arena::new();
        let mut cells = Vec::new();
        for index in (0..3_000).rev() {
            for size in [SMALL_SIZE, CELL_SIZE] {
                let cell = arena.cell(index, size);
                cells.push((cell.addr().get(), size, index));
            }
        }
        assert!(cells.iter().all(|&(at, size, index)| arena.cell(index, size).addr().get() == at));
        assert!(cells.iter().all(|(at, ..)| at.is_multiple_of(CELL_ALIGN)));
        cells.sort_unstable();
        assert!(cells.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0), "two cells overlap");
    }
}
