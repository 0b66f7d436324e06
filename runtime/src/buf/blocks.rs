//! Blocks: fixed-size, node-local memory for what the application fills itself.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::rc::Rc;
use std::task::Waker;

use crate::current::{Current, Entered};
use crate::metrics::counters::Cells;
use crate::numa::pool::{Blocks, Carved};
use crate::sync::waiters::Waiters;

/// Bytes of a [`Block`]: a 64 KiB body and a page for what goes before it.
pub(crate) const BLOCK_SIZE: usize = 68 << 10;

thread_local! {
    static CURRENT: Current<Rc<BlockPool>> = const { Current::none() };
}

/// The blocks of a core. Every block that is out keeps it alive.
pub(crate) struct BlockPool {
    blocks: RefCell<Blocks>,
    block_size: usize,
    /// Addresses of the blocks that are registered with the ring, in [pieces](piece) numbered from 0. Blocks
    /// that the pool grows by are not registered.
    fixed: Range<usize>,
    /// Tasks that wait for a block.
    waiters: Waiters,
    /// Whether somebody found no block since [`is_short`](Self::is_short) was last asked.
    missed: Cell<bool>,
    /// How often somebody found none.
    refused: Cell<u64>,
    /// The most that were out at once.
    most_out: Cell<usize>,
}

/// Bytes of a registered buffer: the kernel's limit is 1 GiB, and no block may lie across two.
const fn piece(block_size: usize) -> usize {
    (1 << 30) / block_size * block_size
}

impl BlockPool {
    /// `register` makes the memory known to the ring, in the pieces that it is given. It says whether it
    /// could.
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
        let first = start.addr().get();
        let fixed = if !pieces.is_empty() && register(&pieces) { first..first + len } else { 0..0 };
        Rc::new(Self {
            blocks: RefCell::new(blocks),
            block_size,
            fixed,
            waiters: Waiters::default(),
            missed: Cell::new(false),
            refused: Cell::new(0),
            most_out: Cell::new(0),
        })
    }

    /// Makes these the blocks of the calling thread's core.
    pub(crate) fn enter(this: &Rc<Self>) -> Entered<'_, Rc<Self>> {
        Current::enter(&CURRENT, this)
    }

    /// Adds memory. Returns how many blocks it makes. The caller wakes those who wait when the memory is
    /// known everywhere: [`wake_next`](Self::wake_next).
    pub(crate) fn extend(&self, memory: Carved) -> usize {
        self.blocks.borrow_mut().extend(memory)
    }

    /// Whether tasks wait for blocks.
    pub(crate) fn is_waited_for(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// Whether blocks are wanted and none is free.
    pub(crate) fn is_short(&self) -> bool {
        let wanted = self.missed.take() || self.is_waited_for();
        // Tasks that were woken may not have been polled since a block came.
        wanted && self.blocks.borrow().free() == 0
    }

    /// A block for `ticket`, or for a caller without one. Earlier tickets go first.
    fn take(self: &Rc<Self>, ticket: Option<u64>) -> Option<Block> {
        let is_first = self.waiters.first().is_none_or(|first| Some(first) == ticket);
        let memory = if is_first { self.blocks.borrow_mut().take() } else { None };
        if memory.is_none() {
            self.missed.set(true);
            self.refused.set(self.refused.get() + 1);
        }
        let out = self.out();
        self.most_out.set(self.most_out.get().max(out));
        Some(Block { pool: Rc::clone(self), memory: memory?, len: 0 })
    }

    /// Whether a ticket is the first in line, and there is a block.
    fn has_one_for(&self, ticket: u64) -> bool {
        self.waiters.first() == Some(ticket) && self.blocks.borrow().free() > 0
    }

    /// Wakes the task that has waited longest, if there is a block for it.
    pub(crate) fn wake_next(&self) {
        if self.blocks.borrow().free() > 0 {
            self.waiters.wake_first();
        }
    }

    /// Blocks that somebody holds.
    fn out(&self) -> usize {
        let blocks = self.blocks.borrow();
        blocks.capacity() - blocks.free()
    }

    /// How often there was none.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Reports how many blocks are out, the most that ever were, and how often there was none.
    pub(crate) fn count(&self, counters: &Cells) {
        counters.blocks_out.set(self.out() as u64);
        counters.blocks_peak.set(self.most_out.get() as u64);
        counters.blocks_refused.set(self.refused());
    }
}

/// A block of node-local memory from the current core's pool. It is filled like a `Vec` that cannot grow past
/// its capacity.
///
/// It goes back to its pool when it is dropped. It is not `Send`: hand its bytes on, or keep it on its core.
pub struct Block {
    pool: Rc<BlockPool>,
    memory: NonNull<u8>,
    len: usize,
}

impl Block {
    /// Takes a block of the current core's pool if one is free and no task waits for it. `None` makes the
    /// pool grow, if its [limit](crate::Builder::pool_limit) and the node allow that, so that a later call
    /// may find one.
    ///
    /// # Panics
    /// On a thread that is no core's.
    pub fn take() -> Option<Block> {
        match Current::try_with(&CURRENT, |pool| pool.take(None)) {
            Some(block) => block,
            None => panic!("not on a core: call this from a future that an annulus::Runtime runs"),
        }
    }

    /// Takes a block of the current core's pool, and waits while all are out: this is backpressure in place
    /// of more memory than the core may have. Tasks are served in the order in which they came. A task that
    /// holds blocks while it waits for more can wait for ever, if every other holder does the same.
    ///
    /// ```no_run
    /// # async fn f(stream: annulus::net::TcpStream) -> annulus::Result<()> {
    /// let mut block = annulus::buf::Block::get().await;
    /// block.extend_from_slice(b"HTTP/1.1 204 No Content\r\n\r\n");
    /// stream.send_all(block).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancellation
    /// Safe: dropping the future gives up the place among those who wait.
    ///
    /// # Panics
    /// When polled on a thread that is no core's.
    pub fn get() -> GetBlock {
        GetBlock { waits: None }
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
        for (spare, byte) in spare.iter_mut().zip(bytes) {
            spare.write(*byte);
        }
        self.len += n;
        n
    }

    /// The number of the registered buffer that the block lies in, if it lies in one.
    pub(crate) fn fixed_index(&self) -> Option<u16> {
        let (address, fixed) = (self.memory.addr().get(), &self.pool.fixed);
        fixed.contains(&address).then(|| ((address - fixed.start) / piece(self.pool.block_size)) as u16)
    }

    /// The uninitialised bytes behind what it holds.
    pub(crate) fn spare(&mut self) -> &mut [MaybeUninit<u8>] {
        let spare = self.capacity() - self.len;
        // SAFETY: the pool hands each block of `capacity` bytes to one `Block` only, and `len` never exceeds
        // it.
        unsafe { std::slice::from_raw_parts_mut(self.memory.add(self.len).cast().as_ptr(), spare) }
    }

    /// Counts `n` bytes more as held.
    ///
    /// # Safety
    /// The first `n` bytes of [`spare`](Self::spare) are initialised.
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
        // SAFETY: the memory came from this pool's `take`. This was its only handle, and it is gone.
        unsafe { self.pool.blocks.borrow_mut().give(self.memory) };
        self.pool.wake_next();
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} of {} bytes)", self.len, self.capacity())
    }
}

/// The future of [`Block::get`]. `core/get_block.rs` polls it, because the core counts the waiting.
#[must_use = "futures do nothing unless awaited"]
pub struct GetBlock {
    /// The pool, and this future's ticket in its queue.
    waits: Option<(Rc<BlockPool>, u64)>,
}

impl GetBlock {
    /// Takes a block, if this future is next: from the pool where it waits, or else from `here`.
    pub(crate) fn take(&mut self, here: &Rc<BlockPool>) -> Option<Block> {
        let ticket = self.waits.as_ref().map(|(_, ticket)| *ticket);
        let pool = self.waits.as_ref().map_or(here, |(pool, _)| pool);
        let block = pool.take(ticket)?;
        if let Some(pool) = self.leave() {
            pool.wake_next();
        }
        Some(block)
    }

    /// Waits for a block: in the pool where it waits already, or else in `here`. Returns whether it has just
    /// begun to wait.
    pub(crate) fn wait(&mut self, here: &Rc<BlockPool>, waker: &Waker) -> bool {
        let (pool, ticket) = match &self.waits {
            Some((pool, ticket)) => (Rc::clone(pool), Some(*ticket)),
            None => (Rc::clone(here), None),
        };
        let kept = pool.waiters.wait(ticket, waker, |ticket| pool.has_one_for(ticket));
        self.waits = Some((pool, kept));
        ticket.is_none()
    }

    /// Gives up the place in the queue.
    fn leave(&mut self) -> Option<Rc<BlockPool>> {
        let (pool, ticket) = self.waits.take()?;
        pool.waiters.leave(ticket);
        Some(pool)
    }
}

impl Drop for GetBlock {
    fn drop(&mut self) {
        // A wake that was meant for this future goes to the next one.
        if let Some(pool) = self.leave() {
            pool.wake_next();
        }
    }
}

impl fmt::Debug for GetBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetBlock").field("waits", &self.waits.is_some()).finish()
    }
}
