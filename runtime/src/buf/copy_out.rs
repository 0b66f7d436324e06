//! Chunks of streams that nobody reads, copied out of receive buffers that others wait for.
//!
//! A multishot receive takes all that lies in the socket before its core can switch it off, however few
//! chunks a stream may hold. So one stream that nobody reads may have every buffer, and those that are read
//! none. Then its chunks move to the heap and the buffers go back to the kernel: one stream each tick, the
//! one that was switched off first. What lies there is no more than the receive buffers hold; beyond that
//! receives wait.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::chain::Chain;
use super::lease::Lease;
use super::memory::{BufferMemory, CopiedChunks, WakeOwner};
use super::returns::Owner;
use super::ring::{BUFFER_SIZE, BufRing};
use super::shares::Shares;

/// Copies lie at multiples of this: what comes back writes its link there.
const STEP: usize = 64;

impl BufRing {
    /// Copies the chunks of `chain` to the heap and frees their buffers. The leases are in their order; none,
    /// and the chain as it was, where that would be too much.
    pub(crate) fn copy_out(&self, sleeper: Arc<dyn WakeOwner>, chain: &mut Chain) -> Vec<Lease> {
        let mut chunks = Vec::with_capacity(chain.len() as usize);
        let mut rest = *chain;
        let mut stride = STEP;
        while let Some((index, bytes)) = self.next_of(&mut rest) {
            stride = stride.max((bytes as usize).next_multiple_of(STEP));
            chunks.push((index, bytes));
        }
        let (count, size) = (chunks.len(), chunks.len() * stride);
        if count == 0 || self.copied_bytes.load(Ordering::Relaxed) + size > self.shape().1 * BUFFER_SIZE {
            return Vec::new();
        }
        self.copied_bytes.fetch_add(size, Ordering::Relaxed);
        let mut memory = vec![0; size];
        for (i, (index, bytes)) in chunks.iter().enumerate() {
            memory[i * stride..][..*bytes as usize].copy_from_slice(self.chunk(*index, *bytes));
        }
        let base = NonNull::from(memory.as_mut_slice()).cast();
        let shares = (0..count).map(|_| Shares::none()).collect();
        let copied = CopiedChunks { memory, bytes: Arc::clone(&self.copied_bytes) };
        let region = BufferMemory::new(shares, sleeper, Some(copied));
        let owner = Owner::new(stride, count.next_power_of_two() as u32, 1, region);
        // SAFETY: the memory has `count` blocks, the only ones that are handed out, and lies where it does
        // until the region, which has it and does not look at it, is dropped.
        unsafe { owner.add(0, base) };
        let lease = |i: u32, bytes| {
            // SAFETY: the block was added and never handed out.
            Lease::new(unsafe { owner.hand_out(i) }, bytes)
        };
        let leases = (0..).zip(&chunks).map(|(i, (_, bytes))| lease(i, *bytes)).collect();
        // SAFETY: no kernel knows of this memory.
        unsafe { owner.close() };
        *chain = Chain::EMPTY;
        #[cfg(debug_assertions)]
        self.chained.set(self.chained.get() - count as u16);
        for (index, _) in chunks {
            self.recycle(index);
        }
        leases
    }
}
