//! Chunks of streams that nobody reads, copied out of receive buffers that others wait for.
//!
//! A multishot receive takes all that lies in the socket before its core can switch it off, however few
//! chunks a stream may hold. So one stream that nobody reads may have every buffer, and those that are read
//! none; so may many streams that have a chunk each. Then their chunks move to the heap and the buffers go
//! back to the kernel: in each tick those of as many streams as it takes to have a buffer. What lies there is
//! no more than the receive buffers hold; beyond that receives wait.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::lease::Lease;
use super::memory::{BufferMemory, CopiedChunks, WakeOwner};
use super::returns::Owner;
use super::ring::{BUFFER_SIZE, BufRing};
use super::shares::Shares;

/// Copies lie at multiples of this: what comes back writes its link there.
const STEP: usize = 64;

impl BufRing {
    /// Copies chunks that wait to be taken to the heap, from the first on that lies in one of these buffers,
    /// and gives their leases up. Chunks of a stream are cut anew; those that have `bounds`, as datagrams do,
    /// stay what they are. Returns how many there are in the copy: none, and `waiting` as it was, where that
    /// would be too much.
    pub(crate) fn copy_out(
        &self,
        sleeper: Arc<dyn WakeOwner>,
        waiting: &mut VecDeque<Lease>,
        bounds: bool,
    ) -> usize {
        let Some(first) = waiting.iter().position(|chunk| self.has_lent(chunk)) else { return 0 };
        let chunks: Vec<&[u8]> = waiting.range(first..).map(|chunk| &**chunk).collect();
        let bytes = chunks.concat();
        let mut lens: Vec<usize> = chunks.iter().map(|chunk| chunk.len()).collect();
        if !bounds {
            lens = bytes.chunks(BUFFER_SIZE).map(<[u8]>::len).collect();
        }
        let count = lens.len();
        let stride = lens.iter().copied().max().unwrap_or(0).next_multiple_of(STEP).max(STEP);
        let size = count * stride;
        if self.copied_bytes.load(Ordering::Relaxed) + size > self.shape().1 * BUFFER_SIZE {
            return 0;
        }
        self.copied_bytes.fetch_add(size, Ordering::Relaxed);
        let mut memory = vec![0; size];
        let mut left = &bytes[..];
        for (block, len) in memory.chunks_mut(stride).zip(&lens) {
            let chunk;
            (chunk, left) = left.split_at(*len);
            block[..*len].copy_from_slice(chunk);
        }
        let base = NonNull::from(memory.as_mut_slice()).cast();
        let shares = (0..count).map(|_| Shares::none()).collect();
        let copied = CopiedChunks { memory, bytes: Arc::clone(&self.copied_bytes) };
        let region = BufferMemory::new(shares, sleeper, Some(copied));
        let owner = Owner::new(stride, count.next_power_of_two() as u32, 1, region);
        // SAFETY: the memory has `count` blocks, the only ones that are handed out, and lies where it does
        // until the region, which has it and does not look at it, is dropped.
        unsafe { owner.add(0, base) };
        // These go home, each to its own owner.
        waiting.truncate(first);
        waiting.extend((0..).zip(&lens).map(|(i, len)| {
            // SAFETY: the block was added and never handed out.
            Lease::new(unsafe { owner.hand_out(i) }, *len as u32)
        }));
        // SAFETY: no kernel knows of this memory.
        unsafe { owner.close() };
        count
    }
}
