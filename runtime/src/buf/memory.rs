//! The memory of buffers that are lent out, and whom to wake when one comes back.

use std::sync::{Arc, Mutex};

use super::copy_out::CopiedChunks;
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
