//! Blocks: fixed-size, node-local memory for what the application fills itself.

use std::cell::RefCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;

use crate::core::Core;
use crate::numa::pool::Blocks;

/// The blocks of a core. Kept alive by every block that is out.
pub(crate) struct BlockPool {
    blocks: RefCell<Blocks>,
    block_size: usize,
    /// Address of the first block, if the memory is registered with the ring: [pieces](piece), numbered from 0.
    fixed: Option<usize>,
}

/// Bytes of a registered buffer: the kernel's limit is 1 GiB, and no block may lie across two.
const fn piece(block_size: usize) -> usize {
    (1 << 30) / block_size * block_size
}

impl BlockPool {
    /// `register` makes the memory known to the ring, in the pieces that it is given, and says whether it could.
    pub(crate) fn new(blocks: Blocks, register: impl FnOnce(&[libc::iovec]) -> bool) -> Rc<Self> {
        let block_size = blocks.block_size();
        let (start, len) = (blocks.memory().as_ptr(), blocks.capacity() * block_size);
        let pieces: Vec<_> = (0..len)
            .step_by(piece(block_size))
            .map(|at| libc::iovec {
                // SAFETY: `at` lies inside the blocks' memory.
                iov_base: unsafe { start.add(at) }.as_ptr().cast(),
                iov_len: (len - at).min(piece(block_size)),
            })
            .collect();
        let fixed = (!pieces.is_empty() && register(&pieces)).then(|| start.addr().get());
        Rc::new(Self { blocks: RefCell::new(blocks), block_size, fixed })
    }

    /// Blocks that somebody holds.
    pub(crate) fn out(&self) -> usize {
        let blocks = self.blocks.borrow();
        blocks.capacity() - blocks.free()
    }
}

/// A block of node-local memory from the current core's pool, filled like a `Vec` that cannot grow past its capacity.
///
/// Goes back to its pool when dropped. Not `Send`: hand its bytes on, or keep the block on its core.
pub struct Block {
    pool: Rc<BlockPool>,
    memory: NonNull<u8>,
    len: usize,
}

impl Block {
    /// Takes a block of the current core's pool; `None` when all are out, or the pool could not be placed.
    ///
    /// # Panics
    /// On a thread that is no core's.
    pub fn take() -> Option<Block> {
        Core::with(|core| {
            let counters = &core.shared.counters;
            let Some(memory) = core.blocks.blocks.borrow_mut().take() else {
                counters.blocks_refused.add(1);
                return None;
            };
            counters.blocks_peak.raise(core.blocks.out() as u64);
            Some(Block { pool: Rc::clone(&core.blocks), memory, len: 0 })
        })
    }

    /// Bytes that it can hold.
    pub fn capacity(&self) -> usize {
        self.pool.block_size
    }

    /// Forgets what it holds.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Forgets what it holds beyond the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Appends as many of `bytes` as fit, and returns how many did.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> usize {
        let spare = self.spare();
        let n = bytes.len().min(spare.len());
        for (room, byte) in spare.iter_mut().zip(bytes) {
            room.write(*byte);
        }
        self.len += n;
        n
    }

    /// The number of the registered buffer in which it lies.
    pub(crate) fn fixed_index(&self) -> Option<u16> {
        self.pool.fixed.map(|start| ((self.memory.addr().get() - start) / piece(self.pool.block_size)) as u16)
    }

    /// The room behind what it holds.
    pub(crate) fn spare(&mut self) -> &mut [MaybeUninit<u8>] {
        let room = self.capacity() - self.len;
        // SAFETY: the pool hands each block of `capacity` bytes to one `Block` only, and `len` never exceeds it.
        unsafe { std::slice::from_raw_parts_mut(self.memory.add(self.len).cast().as_ptr(), room) }
    }

    /// Holds `n` bytes more.
    ///
    /// # Safety
    /// The first `n` bytes of the room are initialised.
    pub(crate) unsafe fn grow(&mut self, n: usize) {
        self.len += n;
        debug_assert!(self.len <= self.capacity());
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the first `len` bytes were initialised, and this handle is the only one to them.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the memory came from this pool's `take`, and this handle, its only one, is gone.
        unsafe { self.pool.blocks.borrow_mut().give(self.memory) };
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} of {} bytes)", self.len, self.capacity())
    }
}
