//! Chunks that nobody reads are copied out of receive buffers that others wait for.
//!
//! A multishot receive takes everything that lies in the socket before the core can switch it off, even if
//! the stream may hold only a few chunks. So one stream that nobody reads can hold every buffer, and so can
//! many streams that hold a chunk each; streams that are read then find none. In that case the chunks move to
//! the heap and their buffers go back to the kernel. Each tick does this for as many streams as it takes to
//! free a buffer. The heap then holds no more than the receive buffers could; beyond that, receives wait.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::lease::Lease;
use super::memory::{BufferMemory, CopiedChunks, WakeOwner};
use super::returns::Owner;
use super::ring::{BUFFER_SIZE, BufRing};
use super::shares::Shares;

/// Copies lie at multiples of this, because a returned block writes its link there.
const STEP: usize = 64;

impl BufRing {
    /// Copies chunks that wait to be taken to the heap, from the first one that lies in one of these buffers,
    /// and gives up their leases. Chunks of a stream are cut again. Chunks with `bounds`, such as datagrams,
    /// keep their bounds. Returns how many chunks the copy has. Where the copy would be too large it returns
    /// 0 and leaves `waiting` as it was.
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
        // SAFETY: the memory has `count` blocks and no others are handed out. It stays in place until the
        // region is dropped, which owns it and does not access it.
        unsafe { owner.add(0, base) };
        // Dropping these sends each buffer to its own owner.
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
