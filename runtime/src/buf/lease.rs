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
/// It derefs to `[u8]`, can be [split](Lease::split_to), sent from where it lies, and taken to any thread.
/// The buffer goes back to its core when the last lease on it is dropped, on whichever thread, even after the
/// runtime has ended. A lease keeps a whole buffer from being used again: copy bytes that you keep for long.
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

    /// A lease on `len` bytes of a buffer, beginning at `from`. `block` is a share that has been counted.
    pub(super) fn fragment(block: BlockRef<BufferMemory>, from: u32, len: u32) -> Self {
        Self { block: ManuallyDrop::new(block), from, len }
    }

    /// Joins two leases into one, if `next` begins where `self` ends; else returns `next`.
    pub(crate) fn join(&mut self, next: Lease) -> Option<Lease> {
        if !self.block.is_same(&next.block) || self.from + self.len != next.from {
            return Some(next);
        }
        self.len += next.len;
        None
    }

    /// Whether it is a lease on one of this owner's buffers.
    pub(super) fn is_of(&self, owner: &Owner<BufferMemory>) -> bool {
        owner.owns(&self.block)
    }

    fn shares(&self) -> &Shares {
        &self.block.region().shares[self.block.index() as usize]
    }

    /// Splits the first `n` bytes off; `self` keeps the rest. Both share the buffer.
    ///
    /// # Panics
    /// When `n` is larger than the length. The process ends when 2^31 leases share one buffer, which takes
    /// [forgetting](std::mem::forget) nearly all of them.
    #[must_use = "the bytes split off go back with it"]
    pub fn split_to(&mut self, n: usize) -> Lease {
        assert!(n <= self.len(), "split at {n} of {} bytes", self.len());
        self.shares().add();
        // SAFETY: the copy is one more share and was just counted. Only the last share drops the `BlockRef`.
        let block = unsafe { self.block.duplicate() };
        let first = Lease { block: ManuallyDrop::new(block), from: self.from, len: n as u32 };
        self.advance(n);
        first
    }

    /// Drops the first `n` bytes.
    ///
    /// # Panics
    /// When `n` is larger than the length.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len(), "advance by {n} of {} bytes", self.len());
        self.from += n as u32;
        self.len -= n as u32;
    }

    /// Keeps at most the first `n` bytes.
    pub fn truncate(&mut self, n: usize) {
        self.len = self.len.min(n.min(u32::MAX as usize) as u32);
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the kernel wrote these bytes and is done with them. It may go on behind them, and nobody
        // writes these bytes while a lease on the buffer exists.
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
        // SAFETY: it is taken once, in drop, by the last share.
        let block = unsafe { ManuallyDrop::take(&mut self.block) };
        let mut block = Some(block);
        BufRing::try_with(|bufs| block.take().map(|block| bufs.take_back(block)));
        // On a thread that is no core's, `block` is dropped here, which puts it on its core's list of
        // returns.
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} bytes)", self.len)
    }
}
