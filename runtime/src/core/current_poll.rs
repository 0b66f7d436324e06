//! Which task a core is polling, for a [sampler](crate::Running::stalls) on another thread.
//!
//! The core stores the number of the poll and then where the task was spawned, two plain stores for each
//! poll, and clears the place once a tick. The sampler compares two samples: the same number and a place both
//! times mean that one poll has lasted from the first sample to the second. The place is stored with
//! *release* and loaded with *acquire*, and the number is read before and after it, so the place is not that
//! of a later poll. Between the two stores it is that of the poll before, which the second sample finds
//! corrected. No core lives to see 2^64 polls, after which numbers would begin anew. A place is a `&'static
//! Location`, so following it is sound whatever the core does meanwhile.

use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::sync::one_thread::OneThread;

/// Written by the core, read by any thread. It has cache lines of its own, because it is written all the
/// time.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct CurrentPoll {
    poll: AtomicU64,
    place: AtomicPtr<Location<'static>>,
    core: OneThread,
}

impl CurrentPoll {
    pub(crate) fn new() -> Self {
        Self { poll: AtomicU64::new(0), place: AtomicPtr::new(ptr::null_mut()), core: OneThread::new() }
    }

    /// A task is about to be polled. Only the core's own thread may call this: debug builds assert it.
    pub(crate) fn begin(&self, place: &'static Location<'static>) {
        self.core.check("showing polls");
        self.poll.store(self.poll.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.place.store(ptr::from_ref(place).cast_mut(), Ordering::Release);
    }

    /// The tasks of this tick have been polled. Only the core's own thread may call this: debug builds assert
    /// it.
    pub(crate) fn pause(&self) {
        self.core.check("showing polls");
        self.place.store(ptr::null_mut(), Ordering::Relaxed);
    }

    /// The number of the current poll, and where its task was spawned; `None` if no task is being polled.
    pub(crate) fn sample(&self) -> Option<(u64, &'static Location<'static>)> {
        let poll = self.poll.load(Ordering::Relaxed);
        // SAFETY: only `begin` stores anything but null, and it stores a reference to a static.
        let place = unsafe { self.place.load(Ordering::Acquire).as_ref() }?;
        // The place may be a later poll's: then this poll is over.
        (self.poll.load(Ordering::Relaxed) == poll).then_some((poll, place))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn places() -> [&'static Location<'static>; 4] {
        #[track_caller]
        fn here() -> &'static Location<'static> {
            Location::caller()
        }
        [
            here(), //
            here(),
            here(),
            here(),
        ]
    }

    /// Seen to fail: without the second read of the number, a poll gets the place of the next.
    #[test]
    fn a_poll_never_goes_by_the_name_of_a_later_one() {
        let (word, places) = (CurrentPoll::new(), places());
        std::thread::scope(|scope| {
            let sampler = scope.spawn(|| {
                let mut seen = 0;
                while seen < 200_000 {
                    let Some((poll, place)) = word.sample() else { continue };
                    seen += 1;
                    let later = places[(poll as usize + 1) % 4];
                    assert!(!ptr::eq(place, later), "poll {poll}");
                }
            });
            let mut poll = 0;
            while !sampler.is_finished() {
                poll += 1;
                word.begin(places[poll % 4]);
            }
        });
    }
}
