//! Tasks of one core that wait for the same thing, in the order in which they came.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::task::Waker;

/// Those that wait, by ticket. Each wait stands here once, however often it is polled, and goes when its future does.
#[derive(Default)]
pub(crate) struct Waiters {
    /// The tickets rise. Who leaves never comes back with the same one, so a number may be given out again later.
    queue: RefCell<VecDeque<(u64, Waker)>>,
}

impl Waiters {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// The ticket of the one that has waited longest.
    pub(crate) fn first(&self) -> Option<u64> {
        self.queue.borrow().front().map(|(ticket, _)| *ticket)
    }

    /// Puts a wait in its place, at the end if it is new, and returns its ticket.
    pub(crate) fn wait(&self, ticket: Option<u64>, waker: &Waker) -> u64 {
        let mut queue = self.queue.borrow_mut();
        let known = ticket.and_then(|ticket| queue.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok());
        let Some((ticket, kept)) = known.and_then(|place| queue.get_mut(place)) else {
            let ticket = queue.back().map_or(0, |(last, _)| last + 1);
            queue.push_back((ticket, waker.clone()));
            return ticket;
        };
        let ticket = *ticket;
        if !kept.will_wake(waker) {
            let old = std::mem::replace(kept, waker.clone());
            // Dropped after the borrow: what dropping a waker does is not ours to know.
            drop(queue);
            drop(old);
        }
        ticket
    }

    /// A wait is over.
    pub(crate) fn leave(&self, ticket: u64) {
        let mut queue = self.queue.borrow_mut();
        let place = queue.binary_search_by_key(&ticket, |(ticket, _)| *ticket);
        let waker = place.ok().and_then(|place| queue.remove(place));
        drop(queue);
        drop(waker);
    }

    /// Wakes the one that has waited longest. It keeps its place.
    pub(crate) fn wake_first(&self) {
        self.wake(0);
    }

    /// Wakes all, in their order. They keep their places.
    pub(crate) fn wake_all(&self) {
        let mut place = 0;
        while self.wake(place) {
            place += 1;
        }
    }

    fn wake(&self, place: usize) -> bool {
        let waker = self.queue.borrow().get(place).map(|(_, waker)| waker.clone());
        waker.map(Waker::wake).is_some()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_wait_stands_once_in_its_place_until_it_leaves() {
        let waiters = Waiters::default();
        let [a, b, c] = [0; 3].map(|_| Arc::new(Woken::default()));
        let tickets = [&a, &b, &c].map(|woken| waiters.wait(None, &Arc::clone(woken).into()));
        for _ in 0..10 {
            assert_eq!(waiters.wait(Some(tickets[1]), &Arc::clone(&b).into()), tickets[1]);
        }
        assert_eq!((Arc::strong_count(&b), waiters.first()), (2, Some(tickets[0])));
        waiters.wake_first();
        waiters.leave(tickets[0]);
        waiters.wake_all();
        let woken = [&a, &b, &c].map(|woken| woken.0.load(Ordering::Relaxed));
        assert_eq!((woken, Arc::strong_count(&a)), ([1, 1, 1], 1));
        // Polled by another task since.
        waiters.wait(Some(tickets[2]), &Arc::clone(&a).into());
        assert_eq!((Arc::strong_count(&a), Arc::strong_count(&c)), (2, 1));
        waiters.leave(tickets[1]);
        waiters.leave(tickets[1]);
        waiters.leave(tickets[2]);
        assert!(waiters.is_empty());
    }
}
