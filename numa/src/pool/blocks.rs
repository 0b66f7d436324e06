//! Blocks of one size out of a piece of node memory.

use std::ptr::NonNull;

use super::Carved;

/// Fixed-size blocks for one thread. The list of free blocks is linked through the blocks themselves, so the
/// bookkeeping lies on the node too and takes no memory beside the blocks. The block that came back last goes
/// out first, because it is the likeliest to be in the cache.
///
/// It is neither Send nor Sync: it stays on the thread that owns the memory. Any thread may use a block, but
/// only this one takes it back.
#[derive(Debug)]
pub struct Blocks {
    /// It is never empty: the memory they began with comes first, then what [`extend`](Self::extend) added.
    extents: Vec<Extent>,
    /// The first extent that may have blocks that were never given out.
    current: usize,
    block_size: usize,
    capacity: usize,
    returned: Option<NonNull<Link>>,
    free: usize,
}

/// One piece of memory, cut into blocks.
#[derive(Debug)]
struct Extent {
    memory: Carved,
    first: NonNull<u8>,
    capacity: usize,
    /// How many blocks have been given out at least once. The rest has not been touched.
    fresh: usize,
}

impl Extent {
    fn new(memory: Carved, block_size: usize) -> Self {
        let skip = memory.as_ptr().as_ptr().align_offset(align_of::<Link>()).min(memory.len());
        let capacity = (memory.len() - skip) / block_size;
        // SAFETY: `skip` is at most the memory's length.
        let first = unsafe { memory.as_ptr().add(skip) };
        Self { memory, first, capacity, fresh: 0 }
    }
}

/// What a free block holds.
struct Link(Option<NonNull<Link>>);

impl Blocks {
    /// Cuts `memory` into blocks of `block_size` bytes. The size is rounded up to a multiple of a pointer's,
    /// and the first block to a pointer's alignment. For a larger alignment, carve the memory with it and
    /// choose a size that is a multiple of it. Memory shorter than a block gives no block.
    pub fn new(memory: Carved, block_size: usize) -> Self {
        let unit = size_of::<Link>();
        let block_size = block_size.max(1).checked_next_multiple_of(unit).unwrap_or(usize::MAX / unit * unit);
        let extent = Extent::new(memory, block_size);
        let capacity = extent.capacity;
        Self { extents: vec![extent], current: 0, block_size, capacity, returned: None, free: capacity }
    }

    /// Adds memory, which is cut in the same way, and returns how many blocks it makes.
    pub fn extend(&mut self, memory: Carved) -> usize {
        let extent = Extent::new(memory, self.block_size);
        let more = extent.capacity;
        self.extents.push(extent);
        self.capacity += more;
        self.free += more;
        more
    }

    /// A free block of [`block_size`](Self::block_size) bytes, with arbitrary content. None when all blocks
    /// are out, which is where backpressure starts.
    pub fn take(&mut self) -> Option<NonNull<u8>> {
        let block = match self.returned {
            Some(link) => {
                // SAFETY: `give` wrote the link into a block that belongs to us until it is taken.
                self.returned = unsafe { link.read() }.0;
                link.cast()
            }
            None => self.take_fresh()?,
        };
        self.free -= 1;
        Some(block)
    }

    fn take_fresh(&mut self) -> Option<NonNull<u8>> {
        loop {
            let extent = self.extents.get_mut(self.current)?;
            if extent.fresh < extent.capacity {
                // SAFETY: `fresh` is below the number of whole blocks in the memory.
                let block = unsafe { extent.first.add(extent.fresh * self.block_size) };
                extent.fresh += 1;
                return Some(block);
            }
            self.current += 1;
        }
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// The block came from [`take`](Self::take) of this very `Blocks`, was not given back since, and nobody,
    /// the kernel included, reads or writes it any more.
    pub unsafe fn give(&mut self, block: NonNull<u8>) {
        debug_assert!(self.owns(block), "a block is given back to blocks that it did not come from");
        let link: NonNull<Link> = block.cast();
        // SAFETY: the caller promises that the block is ours and unused; it is large enough and aligned for a
        // link.
        unsafe { link.write(Link(self.returned)) };
        self.returned = Some(link);
        self.free += 1;
        debug_assert!(self.free <= self.capacity, "a block is given back twice");
    }

    /// Whether `block` is the address of one of these blocks.
    pub fn owns(&self, block: NonNull<u8>) -> bool {
        self.extents.iter().any(|extent| {
            let offset = block.as_ptr().addr().wrapping_sub(extent.first.as_ptr().addr());
            offset < extent.fresh * self.block_size && offset.is_multiple_of(self.block_size)
        })
    }

    /// Bytes in a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// The number of all blocks, free or not.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many blocks can be taken now.
    pub fn free(&self) -> usize {
        self.free
    }

    /// The memory they began with. [`extend`](Self::extend) does not change it.
    pub fn memory(&self) -> &Carved {
        &self.extents[0].memory
    }
}
