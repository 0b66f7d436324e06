//! The waker of a watched future. It notes how it was called, and calls the task's own waker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Wake, Waker};
use std::time::Instant;

use crate::clock;
use crate::contained::Kept;
use crate::core::Core;
use crate::core::notes::nanoseconds;

/// How a task was woken first. Times are nanoseconds since `start`, plus one, so that 0 stands for none.
pub(super) struct Note {
    /// In its wrapping: who drops it may be panicking.
    outer: Kept<Waker>,
    pub(super) start: Instant,
    pub(super) since: AtomicU64,
    pub(super) tick: AtomicU64,
    pub(super) cause: AtomicU8,
    pub(super) ticks: AtomicU64,
    pub(super) lacked_buffer: AtomicBool,
    is_taken: AtomicBool,
    /// 0 before the wake. Written last.
    pub(super) woken: AtomicU64,
}

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Of all threads' wakes the first one counts.
        if !self.is_taken.swap(true, Ordering::AcqRel) {
            let (since, tick) = (self.since.load(Ordering::Relaxed), self.tick.load(Ordering::Relaxed));
            // The core of another task's may wake this one while it handles a completion of its own. What it
            // notes says nothing of this wait.
            let woken = |core: &Core| {
                (core.notes.start() == self.start).then(|| core.notes.woken(since.saturating_sub(1), tick))
            };
            if let Some(wake) = Core::try_with(woken).flatten() {
                self.cause.store(wake.cause as u8, Ordering::Relaxed);
                self.ticks.store(wake.ticks, Ordering::Relaxed);
                self.lacked_buffer.store(wake.lacks_buffer, Ordering::Relaxed);
            }
            self.woken.store(nanoseconds(self.start, clock::now()) + 1, Ordering::Release);
        }
        self.outer.get().into_iter().for_each(Waker::wake_by_ref);
    }
}

impl Note {
    pub(super) fn new(outer: Waker) -> Self {
        let start = Core::try_with(|core| core.notes.start()).unwrap_or_else(clock::now);
        Self {
            outer: Kept::new(outer),
            start,
            since: AtomicU64::new(0),
            tick: AtomicU64::new(0),
            cause: AtomicU8::new(0),
            ticks: AtomicU64::new(0),
            lacked_buffer: AtomicBool::new(false),
            is_taken: AtomicBool::new(false),
            woken: AtomicU64::new(0),
        }
    }

    /// Whether the waker that it stands for wakes the same as this one.
    pub(super) fn is_of(&self, outer: &Waker) -> bool {
        self.outer.get().is_some_and(|kept| kept.will_wake(outer))
    }

    /// Forgets the wake: the next one is the first again.
    pub(super) fn rearm(&self) {
        self.since.store(0, Ordering::Relaxed);
        self.cause.store(0, Ordering::Relaxed);
        self.ticks.store(0, Ordering::Relaxed);
        self.lacked_buffer.store(false, Ordering::Relaxed);
        self.woken.store(0, Ordering::Relaxed);
        self.is_taken.store(false, Ordering::Release);
    }
}
