//! The kernel's side of the ring of receive buffers.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// A registered ring of buffers.
#[derive(Default)]
pub(super) struct Buffers {
    /// The address of the entries; 0 if no ring is registered.
    address: u64,
    slots: u16,
    head: u16,
    /// The number of entries that have been read.
    seen: u16,
    /// Buffers in the ring.
    offered: BTreeSet<u16>,
    /// Buffers that a CQE has named and that are not in the ring again.
    out: BTreeSet<u16>,
    /// The kernel goes on in a buffer where the last bytes ended.
    is_incremental: bool,
}

/// The buffers of one receive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Brought {
    /// The first buffer.
    pub(super) first: u16,
    pub(super) bytes: u64,
    /// How many buffers have left the ring.
    pub(super) used_up: u16,
    /// Whether the kernel goes on in the last one.
    pub(super) goes_on: bool,
}

/// The content of a buffer that is the kernel's. Code that still reads the buffer finds it.
const NOBODYS: u8 = 0xEE;

impl Buffers {
    pub(super) fn register(&mut self, address: u64, slots: u16, is_incremental: bool) {
        *self = Self { address, slots, is_incremental, ..Self::default() };
    }

    pub(super) fn unregister(&mut self) {
        self.address = 0;
    }

    /// Reads the entries that were put into the ring since the last call.
    ///
    /// # Errors
    /// What is wrong with the ring.
    pub(super) fn look(&mut self) -> Result<(), String> {
        while self.address != 0 && self.seen != self.tail() {
            let (at, len, id) = self.entry(self.seen);
            self.seen = self.seen.wrapping_add(1);
            if !self.offered.insert(id) {
                return Err(format!("buffer {id} is in the ring twice"));
            }
            self.out.remove(&id);
            // SAFETY: a buffer in the ring is the kernel's, whose part is played here, and has `len` bytes.
            unsafe { std::slice::from_raw_parts_mut(at as *mut u8, len as usize) }.fill(NOBODYS);
        }
        let in_ring = self.seen.wrapping_sub(self.head);
        if self.address != 0 && usize::from(in_ring) != self.offered.len() {
            return Err(format!("{in_ring} entries in the ring for {} buffers", self.offered.len()));
        }
        Ok(())
    }

    /// Buffers in the ring.
    pub(super) fn len(&self) -> usize {
        self.offered.len()
    }

    /// Picks the next buffer and writes to it. `None` where there is none.
    pub(super) fn pick(&mut self, bytes: u64, byte: impl Fn(u64) -> u8) -> Option<Brought> {
        self.bring(bytes, 1, byte)
    }

    /// The next buffer, with nothing in it and not used up. `None` where there is none.
    pub(super) fn name(&self) -> Option<Brought> {
        let first = self.has_some().then(|| self.entry(self.head).2)?;
        Some(Brought { first, bytes: 0, used_up: 0, goes_on: false })
    }

    /// Picks as many buffers as the bytes need, up to `most`, and writes to them. `None` where there is none.
    pub(super) fn bring(&mut self, bytes: u64, most: usize, byte: impl Fn(u64) -> u8) -> Option<Brought> {
        let mut brought = self.name()?;
        for _ in 0..most {
            if !self.has_some() || brought.bytes == bytes && brought.used_up > 0 {
                break;
            }
            let (at, len, id) = self.entry(self.head);
            let n = (bytes - brought.bytes).min(len.into());
            // SAFETY: as in `look`.
            let memory = unsafe { std::slice::from_raw_parts_mut(at as *mut u8, n as usize) };
            for (to, at) in memory.iter_mut().zip(brought.bytes..) {
                *to = byte(at);
            }
            brought.bytes += n;
            if self.is_incremental && n < len.into() {
                self.shorten(at + n, len - n as u32);
                brought.goes_on = true;
                break;
            }
            self.head = self.head.wrapping_add(1);
            self.offered.remove(&id);
            self.out.insert(id);
            brought.used_up += 1;
        }
        Some(brought)
    }

    /// A bundled receive has looked for this many bytes, and found none: the next buffer counts as no longer
    /// than that (`io_ring_buffers_peek()`).
    pub(super) fn look_in_vain(&mut self, bytes: u64) {
        if self.has_some() && !self.is_incremental {
            let (at, len, _) = self.entry(self.head);
            self.shorten(at, len.min(bytes as u32));
        }
    }

    fn has_some(&self) -> bool {
        self.address != 0 && self.head != self.seen
    }

    /// What is left of the buffer at the ring's head, as the kernel writes it into the ring.
    fn shorten(&mut self, at: u64, len: u32) {
        let slot = (self.head & (self.slots - 1)).into();
        // SAFETY: the slot is inside the registered memory, and it is the kernel's until a CQE names it.
        let entry = unsafe { &mut *self.entries().cast_mut().add(slot) };
        entry.set_addr(at);
        entry.set_len(len);
    }

    fn entries(&self) -> *const BufRingEntry {
        std::ptr::with_exposed_provenance(self.address as usize)
    }

    fn tail(&self) -> u16 {
        // SAFETY: the ring is registered, so its memory is there, and the tail lies where
        // io_uring_register_buf_ring(3) says.
        unsafe { (*BufRingEntry::tail(self.entries()).cast::<AtomicU16>()).load(Ordering::Acquire) }
    }

    fn entry(&self, slot: u16) -> (u64, u32, u16) {
        // SAFETY: the slot is inside the registered memory, and the tail has passed it.
        let entry = unsafe { &*self.entries().add((slot & (self.slots - 1)).into()) };
        (entry.addr(), entry.len(), entry.bid())
    }
}
