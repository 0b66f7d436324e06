//! A counter with one writer that any thread may read.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::one_thread::OneThread;

/// A counter with one writer: a plain load and store, without a locked instruction.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    value: AtomicU64,
    writer: OneThread,
}

impl Counter {
    /// Adds `n`. Only the core's own thread may call this: debug builds assert it.
    pub(crate) fn add(&self, n: u64) {
        self.writer.check("counting");
        self.value.store(self.value.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Sets a level, which goes up and down. Only the core's own thread may call this: debug builds assert
    /// it.
    pub(crate) fn set(&self, n: u64) {
        self.writer.check("counting");
        self.value.store(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}
