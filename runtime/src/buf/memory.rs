//! The memory of receive buffers, and whom to wake when one comes back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::returns::SharedRegion;
use super::shares::Shares;
use crate::numa::pool::Carved;

/// A core, seen from any thread, that waits for buffers to come back.
pub(crate) trait WakeOwner: Send + Sync {
    /// Wakes the core, if it sleeps.
    fn wake(&self);
}

/// Keeps the buffers' memory until the last lease is gone.
pub(crate) struct BufferMemory {
    /// The buffers' memory. The lock is taken when it grows and when it is freed.
    pub(super) memory: Mutex<Vec<Carved>>,
    /// The shares of each buffer that is out.
    pub(super) shares: Box<[Shares]>,
    owner: Arc<dyn WakeOwner>,
    /// Memory of another kind, that of [copied chunks](super::copy_out).
    _copied: Option<CopiedChunks>,
}

/// The memory of chunks that were [copied](super::copy_out), until the last lease on them is gone.
pub(super) struct CopiedChunks {
    /// It is accessed only through the owner's addresses.
    pub(super) memory: Vec<u8>,
    pub(super) bytes: Arc<AtomicUsize>,
}

impl Drop for CopiedChunks {
    fn drop(&mut self) {
        self.bytes.fetch_sub(self.memory.len(), Ordering::Relaxed);
    }
}

impl BufferMemory {
    pub(super) fn new(
        shares: Box<[Shares]>,
        owner: Arc<dyn WakeOwner>,
        copied: Option<CopiedChunks>,
    ) -> Self {
        Self { memory: Mutex::default(), shares, owner, _copied: copied }
    }
}

impl SharedRegion for BufferMemory {
    fn wake_owner(&self) {
        self.owner.wake();
    }
}
