//! The memory of buffers that are lent out, and whom to wake when one comes back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::returns::SharedRegion;
use super::shares::Shares;
use crate::numa::pool::Carved;

/// Who waits for buffers that come back: a core, seen from any thread.
pub(crate) trait WakeOwner: Send + Sync {
    /// Wakes it, if it sleeps.
    fn wake(&self);
}

/// What keeps the buffers' memory until the last lease is gone.
pub(crate) struct BufferMemory {
    /// The buffers' memory. Locked when it grows, and when it goes.
    pub(super) memory: Mutex<Vec<Carved>>,
    /// Who shares each buffer that is out.
    pub(super) shares: Box<[Shares]>,
    owner: Arc<dyn WakeOwner>,
    /// Memory of another kind: see [`copy_out`](super::copy_out).
    _copied: Option<CopiedChunks>,
}

/// The memory of chunks that were [copied](super::copy_out), until the last lease on them is gone.
pub(super) struct CopiedChunks {
    /// Reached through the owner's addresses only.
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
