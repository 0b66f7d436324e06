//! The kernel's side of the ring of receive buffers.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// A registered ring of buffers.
#[derive(Default)]
pub(super) struct Buffers {
    /// Where the entries lie; 0 for none.
    address: u64,
    slots: u16,
    head: u16,
    /// Up to where the entries have been looked at.
    seen: u16,
    /// Buffers in the ring.
    offered: BTreeSet<u16>,
    /// Buffers that a CQE has named, and that did not come back.
    out: BTreeSet<u16>,
}

/// What a buffer holds while it is the kernel's: whoever still looks at it sees that.
const NOBODYS: u8 = 0xEE;

impl Buffers {
    pub(super) fn register(&mut self, address: u64, slots: u16) {
        *self = Self { address, slots, ..Self::default() };
    }

    pub(super) fn unregister(&mut self) {
        self.address = 0;
    }

    /// Takes note of what was put into the ring since the last look.
    ///
    /// # Errors
    /// What is wrong with it.
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

    /// Picks the next buffer and writes to it: how many bytes, of which buffer. None: there is none.
    pub(super) fn pick(&mut self, bytes: u64, byte: impl Fn(u64) -> u8) -> Option<(u64, u16)> {
        if self.address == 0 || self.head == self.seen {
            return None;
        }
        let (at, len, id) = self.entry(self.head);
        self.head = self.head.wrapping_add(1);
        self.offered.remove(&id);
        self.out.insert(id);
        let bytes = bytes.min(len.into());
        // SAFETY: as in `look`.
        let memory = unsafe { std::slice::from_raw_parts_mut(at as *mut u8, bytes as usize) };
        for (to, at) in memory.iter_mut().zip(0..) {
            *to = byte(at);
        }
        Some((bytes, id))
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
