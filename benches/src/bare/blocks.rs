//! Memory in blocks of one size that the kernel may read and write: populated where the caller runs, never
//! unmapped.

use super::ring::{Ring, named};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::io;
use std::ptr::NonNull;

/// `count` blocks of `size` bytes in one mapping that lasts as long as the process.
pub struct Blocks {
    start: NonNull<u8>,
    size: usize,
    count: usize,
}

impl Blocks {
    /// Maps and touches the memory, on the node of the CPU the caller runs on.
    ///
    /// # Errors
    /// mmap(2) refused.
    pub fn new(count: usize, size: usize) -> io::Result<Blocks> {
        let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
        // SAFETY: the kernel chooses the place, so nothing that exists is replaced; the mapping is never
        // undone.
        let start = unsafe {
            mmap_anonymous(std::ptr::null_mut(), count * size, ProtFlags::READ | ProtFlags::WRITE, flags)
        };
        let start = start.map_err(|e| named("mmap of blocks", e.into()))?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap gave address 0"))?;
        Ok(Blocks { start, size, count })
    }

    /// How many blocks there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes in each.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Where byte `from` of block `index` lies.
    ///
    /// # Panics
    /// There is no such block, or `from..from + len` is not in it.
    pub(super) fn ptr_at(&self, index: usize, from: usize, len: usize) -> NonNull<u8> {
        assert!(index < self.count && from + len <= self.size, "{from} + {len} of block {index}");
        // SAFETY: both were checked, so the address lies inside the mapping.
        unsafe { self.start.add(index * self.size + from) }
    }
}

/// One block of a [`BlockPool`], owned until it is given back.
#[derive(Debug)]
pub struct Slot {
    index: u16,
}

impl Slot {
    /// Its number, which is also its index among the ring's registered buffers.
    pub fn index(&self) -> u16 {
        self.index
    }
}

/// Blocks handed out one by one; the last one given back goes out first, because it is still in the cache.
pub struct BlockPool {
    blocks: Blocks,
    free: Vec<u16>,
}

impl BlockPool {
    /// As many blocks of `size` bytes as fit into `bytes`, at least one and at most 16,384 (the kernel's
    /// limit for registered buffers).
    ///
    /// # Errors
    /// mmap(2) refused.
    pub fn new(bytes: usize, size: usize) -> io::Result<BlockPool> {
        let count = (bytes / size).clamp(1, 1 << 14);
        Ok(BlockPool { blocks: Blocks::new(count, size)?, free: (0..count as u16).rev().collect() })
    }

    /// How many blocks there are, free or not.
    #[allow(clippy::len_without_is_empty, reason = "there is always at least one")]
    pub fn len(&self) -> usize {
        self.blocks.count()
    }

    /// Registers every block with `ring`, under its own index.
    ///
    /// # Errors
    /// The kernel refused: for an unprivileged user, most often because RLIMIT_MEMLOCK is too small.
    pub fn register(&self, ring: &Ring) -> io::Result<()> {
        let list: Vec<libc::iovec> = (0..self.blocks.count())
            .map(|i| libc::iovec {
                iov_base: self.blocks.ptr_at(i, 0, 0).as_ptr().cast(),
                iov_len: self.blocks.size(),
            })
            .collect();
        // SAFETY: the blocks stay mapped as long as the process lives.
        unsafe { ring.submitter().register_buffers(&list) }
            .map_err(|e| named("IORING_REGISTER_BUFFERS (is `ulimit -l` large enough?)", e))
    }

    /// Takes a block, or `None` when all are out.
    pub fn take(&mut self) -> Option<Slot> {
        self.free.pop().map(|index| Slot { index })
    }

    /// Puts a block back.
    pub fn give(&mut self, slot: Slot) {
        self.free.push(slot.index);
    }

    /// Where byte `from` of the block lies.
    ///
    /// # Panics
    /// `from..from + len` is not in the block.
    pub(super) fn ptr_at(&self, slot: &Slot, from: usize, len: usize) -> NonNull<u8> {
        self.blocks.ptr_at(slot.index.into(), from, len)
    }

    /// Copies `bytes` into the block at `offset`.
    ///
    /// # Panics
    /// They do not fit.
    pub fn write(&mut self, slot: &mut Slot, offset: usize, bytes: &[u8]) {
        let to = self.ptr_at(slot, offset, bytes.len());
        // SAFETY: `ptr_at` checked the range, and `&mut Slot` says that nobody else uses the block.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
    }
}
