//! The turn word of a core: which task it polls just now, for a [sampler](crate::Running::stalls) on another thread.
//!
//! The core stores where the task was spawned and then the number of the poll, two plain stores for each poll, and clears
//! the place once a turn. The sampler compares two looks: the same number and a place both times mean that one poll has
//! lasted from the first look to the second. The number is stored with *release* and loaded with *acquire*, so the place
//! is that of this poll or a later one; and while one poll lasts there is no later one. A place is a `&'static Location`, so
//! following it is sound whatever the core does meanwhile.

use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// Written by the core, read by anyone. On lines of its own, because it is written all the time.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct TurnWord {
    poll: AtomicU64,
    place: AtomicPtr<Location<'static>>,
}

impl TurnWord {
    pub(crate) fn new() -> Self {
        Self { poll: AtomicU64::new(0), place: AtomicPtr::new(ptr::null_mut()) }
    }

    /// A task is about to be polled. The core only.
    pub(crate) fn begin(&self, place: &'static Location<'static>) {
        self.place.store(ptr::from_ref(place).cast_mut(), Ordering::Relaxed);
        self.poll.store(self.poll.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// The tasks of this turn have been polled. The core only.
    pub(crate) fn pause(&self) {
        self.place.store(ptr::null_mut(), Ordering::Relaxed);
    }

    /// The number of the poll that is going on, and where its task was spawned; `None` while there is none.
    pub(crate) fn look(&self) -> Option<(u64, &'static Location<'static>)> {
        let poll = self.poll.load(Ordering::Acquire);
        // SAFETY: only `begin` stores anything but null, and it stores a reference to a static.
        let place = unsafe { self.place.load(Ordering::Relaxed).as_ref() }?;
        Some((poll, place))
    }
}
