//! A provided-buffer ring: the kernel takes a block only when bytes have come.

use super::blocks::Blocks;
use super::ring::{Ring, named};
use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// A block the kernel has filled and that is ours until it is given back.
#[derive(Debug)]
pub struct Block {
    id: u16,
}

/// The buffer ring of one ring, group 0.
pub struct BufRing {
    entries: NonNull<BufRingEntry>,
    blocks: Blocks,
    tail: u16,
    out: usize,
}

impl BufRing {
    /// The group that receives select from.
    pub const GROUP: u16 = 0;

    /// Registers `count` (a power of two, at most 32,768) blocks of `size` bytes. Source:
    /// io_uring_register_buf_ring(3).
    ///
    /// # Errors
    /// mmap(2) or the registration refused.
    pub fn new(ring: &Ring, count: u16, size: usize) -> io::Result<BufRing> {
        let len = usize::from(count) * size_of::<BufRingEntry>();
        let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
        // SAFETY: the kernel chooses the place, so nothing that exists is replaced; the mapping is never
        // undone.
        let entries =
            unsafe { mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags) };
        let entries = entries.map_err(|e| named("mmap of the buffer ring", e.into()))?;
        let entries = NonNull::new(entries.cast::<BufRingEntry>())
            .ok_or_else(|| io::Error::other("mmap gave address 0"))?;
        let address = entries.as_ptr() as u64;
        // SAFETY: the mapping is page-aligned, holds `count` zeroed entries and lasts as long as the process.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, count, Self::GROUP, 0) }
            .map_err(|e| named("IORING_REGISTER_PBUF_RING", e))?;
        let blocks = Blocks::new(count.into(), size)?;
        let mut bufs = BufRing { entries, blocks, tail: 0, out: count.into() };
        for id in 0..count {
            bufs.give(Block { id });
        }
        Ok(bufs)
    }

    /// The block that a completion with these flags names.
    pub(super) fn taken(&mut self, flags: u32) -> Option<Block> {
        let id = io_uring::cqueue::buffer_select(flags)?;
        self.out += 1;
        Some(Block { id })
    }

    /// Whether the kernel has at least one block.
    pub(super) fn has_free(&self) -> bool {
        self.out < self.blocks.count()
    }

    /// The first `len` bytes of a block.
    ///
    /// # Panics
    /// `len` is larger than a block.
    pub fn bytes<'a>(&'a self, block: &'a Block, len: usize) -> &'a [u8] {
        let start = self.blocks.ptr_at(block.id.into(), 0, len);
        // SAFETY: the block is ours between the completion that named it and `give`, which takes it by value,
        // so nobody writes to it while the slice lives; `ptr_at` checked the length.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
    }

    /// Where byte `from` of a block lies.
    ///
    /// # Panics
    /// `from..to` is not in the block.
    pub(super) fn ptr_at(&self, block: &Block, from: usize, to: usize) -> NonNull<u8> {
        assert!(from <= to);
        self.blocks.ptr_at(block.id.into(), from, to - from)
    }

    /// Hands a block to the kernel again.
    pub(super) fn give(&mut self, block: Block) {
        let at = usize::from(self.tail) & (self.blocks.count() - 1);
        // SAFETY: `at` is below the number of entries, and the kernel reads an entry only once the tail has
        // passed it.
        let entry = unsafe { &mut *self.entries.as_ptr().add(at) };
        entry.set_addr(self.blocks.ptr_at(block.id.into(), 0, 0).as_ptr() as u64);
        entry.set_len(self.blocks.size() as u32);
        entry.set_bid(block.id);
        self.tail = self.tail.wrapping_add(1);
        self.out -= 1;
        // SAFETY: the tail lies in the first entry of the ring, is aligned, and is written by this thread
        // alone; the release makes the entry visible before it.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}
