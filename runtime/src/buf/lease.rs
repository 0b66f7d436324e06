//! A lease on received bytes.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;

use super::memory::BufferMemory;
use super::returns::{BlockRef, Owner};
use super::ring::BufRing;
use super::shares::Shares;

/// Received bytes, in node-local memory of the core that received them.
///
/// It derefs to `[u8]`, can be [split](Lease::split_to), sent on from where it lies, and taken to any thread.
/// The buffer goes back to its core when the last lease on it is dropped, wherever that is, also after the
/// runtime has ended. A lease that is kept keeps a whole buffer: copy out what is to be kept for long.
pub struct Lease {
    block: ManuallyDrop<BlockRef<BufferMemory>>,
    from: u32,
    len: u32,
}

impl Lease {
    /// A lease on the first `len` bytes of a buffer that was just handed out.
    pub(super) fn new(block: BlockRef<BufferMemory>, len: u32) -> Self {
        let lease = Self::fragment(block, 0, len);
        lease.shares().begin();
        lease
    }

    /// A lease on `len` bytes of a buffer, `from` on, of which `held` is a share that has been counted.
    pub(super) fn fragment(block: BlockRef<BufferMemory>, from: u32, len: u32) -> Self {
        Self { block: ManuallyDrop::new(block), from, len }
    }

    /// Makes one lease of two, if `next` goes on where `self` ends; else gives it back.
    pub(crate) fn join(&mut self, next: Lease) -> Option<Lease> {
        if !self.block.is_same(&next.block) || self.from + self.len != next.from {
            return Some(next);
        }
        self.len += next.len;
        None
    }

    /// Whether it is on one of this owner's buffers.
    pub(super) fn is_of(&self, owner: &Owner<BufferMemory>) -> bool {
        owner.owns(&self.block)
    }

    fn shares(&self) -> &Shares {
        &self.block.region().shares[self.block.index() as usize]
    }

    /// Splits the first `n` bytes off; `self` keeps the rest. Both share the buffer.
    ///
    /// # Panics
    /// When `n` is larger than the length. It ends the process when 2^31 leases share one buffer, which takes
    /// [forgetting](std::mem::forget) nearly all of them.
    #[must_use = "the bytes split off go back with it"]
    pub fn split_to(&mut self, n: usize) -> Lease {
        assert!(n <= self.len(), "split at {n} of {} bytes", self.len());
        self.shares().add();
        // SAFETY: the copy is one more share, just counted: only the last share drops the `BlockRef`.
        let block = unsafe { self.block.duplicate() };
        let first = Lease { block: ManuallyDrop::new(block), from: self.from, len: n as u32 };
        self.advance(n);
        first
    }

    /// Forgets the first `n` bytes.
    ///
    /// # Panics
    /// When `n` is larger than the length.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len(), "advance by {n} of {} bytes", self.len());
        self.from += n as u32;
        self.len -= n as u32;
    }

    /// Keeps the first `n` bytes, if it is longer.
    pub fn truncate(&mut self, n: usize) {
        self.len = self.len.min(n.min(u32::MAX as usize) as u32);
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the kernel wrote these bytes and gave them up; it may go on behind them, and while a lease
        // on the buffer is out nobody writes these.
        unsafe {
            std::slice::from_raw_parts(
                self.block.as_ptr().add(self.from as usize).as_ptr(),
                self.len as usize,
            )
        }
    }
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.shares().give_up() {
            return;
        }
        // SAFETY: taken once, in drop, by the last share.
        let block = unsafe { ManuallyDrop::take(&mut self.block) };
        let mut block = Some(block);
        BufRing::try_with(|bufs| block.take().map(|block| bufs.take_back(block)));
        // On a thread that is no core's it is dropped here, which sends it home.
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} bytes)", self.len)
    }
}
