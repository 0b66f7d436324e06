//! Tasks of one core that wait for the same thing, in the order in which they came.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::task::Waker;

use crate::contained::contained;

/// The tasks that wait, by ticket. Each wait has one entry, however often it is polled; the entry goes when
/// its future does.
#[derive(Default)]
pub(crate) struct Waiters {
    /// The tickets rise, and 2^64 are never given out. A wait that has left never comes back with the same
    /// one, so a number may be given out again later. A waker is taken out of its entry while it is called,
    /// because wakers run with nothing borrowed.
    queue: RefCell<VecDeque<(u64, Option<Waker>)>>,
}

impl Waiters {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// The ticket of the one that has waited longest.
    pub(crate) fn first(&self) -> Option<u64> {
        self.queue.borrow().front().map(|(ticket, _)| *ticket)
    }

    /// Enters or updates a wait, at the end if it is new, and returns its ticket.
    ///
    /// `has_come` checks for what the ticket waits for, once more after the waker was cloned: cloning may run
    /// code that brings it about, and that code tells all but this one. Then it is woken at once.
    pub(crate) fn wait(&self, ticket: Option<u64>, waker: &Waker, has_come: impl FnOnce(u64) -> bool) -> u64 {
        let ticket = self.enter(ticket, waker);
        if has_come(ticket) {
            waker.wake_by_ref();
        }
        ticket
    }

    fn enter(&self, ticket: Option<u64>, waker: &Waker) -> u64 {
        let known = ticket.filter(|ticket| self.at(*ticket).is_some());
        let stands =
            |ticket| self.wakes(ticket, |kept| kept.as_ref().is_some_and(|kept| kept.will_wake(waker)));
        if let Some(ticket) = known.filter(|ticket| stands(*ticket)) {
            return ticket;
        }
        // The waker is cloned and dropped with nothing borrowed, because both are foreign code. So the entry
        // is looked up again.
        let waker = waker.clone();
        let Some(ticket) = known.filter(|ticket| self.at(*ticket).is_some()) else {
            let mut queue = self.queue.borrow_mut();
            let ticket = queue.back().map_or(0, |(last, _)| last + 1);
            queue.push_back((ticket, Some(waker)));
            return ticket;
        };
        let mut waker = Some(waker);
        self.wakes(ticket, |kept| std::mem::swap(kept, &mut waker));
        ticket
    }

    /// The position of a ticket.
    fn at(&self, ticket: u64) -> Option<usize> {
        self.queue.borrow().binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()
    }

    /// Calls `f`, which runs no foreign code, with the waker of a ticket. Returns the default if the ticket
    /// has left.
    fn wakes<T: Default>(&self, ticket: u64, f: impl FnOnce(&mut Option<Waker>) -> T) -> T {
        let Some(place) = self.at(ticket) else { return T::default() };
        self.queue.borrow_mut().get_mut(place).map(|(_, waker)| f(waker)).unwrap_or_default()
    }

    /// Ends a wait.
    pub(crate) fn leave(&self, ticket: u64) {
        let gone = self.at(ticket).and_then(|place| self.queue.borrow_mut().remove(place));
        // The thread may be panicking, as in `Called`.
        if let Some((_, Some(waker))) = gone {
            contained("the destructor of a waker", || drop(waker));
        }
    }

    /// Wakes the one that has waited longest. It keeps its entry. A panic of its waker is contained, because
    /// destructors wake.
    pub(crate) fn wake_first(&self) {
        if let Some(ticket) = self.first() {
            contained("a waker", || self.wake(ticket));
        }
    }

    /// Wakes all that wait now, in their order. They keep their entries. A waker may make others leave, or
    /// wait again.
    pub(crate) fn wake_all(&self) {
        let Some(last) = self.queue.borrow().back().map(|(ticket, _)| *ticket) else { return };
        let mut next = self.first();
        while let Some(ticket) = next.filter(|ticket| *ticket <= last) {
            // A panic of one waker does not keep the others from being woken.
            contained("a waker", || self.wake(ticket));
            let queue = self.queue.borrow();
            let place = queue.partition_point(|(other, _)| *other <= ticket);
            next = queue.get(place).map(|(ticket, _)| *ticket);
        }
    }

    fn wake(&self, ticket: u64) {
        let Some(waker) = self.wakes(ticket, Option::take) else { return };
        // The waker returns to its entry, also when it panics, unless another has been put there meanwhile.
        let called = Called { waiters: self, ticket, waker: Some(waker) };
        called.waker.iter().for_each(Waker::wake_by_ref);
    }
}

impl Drop for Waiters {
    fn drop(&mut self) {
        // These are of futures that were leaked.
        for (_, waker) in self.queue.get_mut().drain(..) {
            contained("the destructor of a waker", || drop(waker));
        }
    }
}

/// A waker that is being called.
struct Called<'a> {
    waiters: &'a Waiters,
    ticket: u64,
    waker: Option<Waker>,
}

impl Drop for Called<'_> {
    fn drop(&mut self) {
        self.waiters.wakes(self.ticket, |kept| {
            if kept.is_none() {
                *kept = self.waker.take();
            }
        });
        // If it cannot return it is dropped here. The thread may be panicking, and a second panic out of this
        // destructor would end the process.
        let late = self.waker.take();
        contained("the destructor of a waker", || drop(late));
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
        let tickets = [&a, &b, &c].map(|woken| waiters.wait(None, &Arc::clone(woken).into(), |_| false));
        for _ in 0..10 {
            assert_eq!(waiters.wait(Some(tickets[1]), &Arc::clone(&b).into(), |_| false), tickets[1]);
        }
        assert_eq!((Arc::strong_count(&b), waiters.first()), (2, Some(tickets[0])));
        waiters.wake_first();
        waiters.leave(tickets[0]);
        waiters.wake_all();
        let woken = [&a, &b, &c].map(|woken| woken.0.load(Ordering::Relaxed));
        assert_eq!((woken, Arc::strong_count(&a)), ([1, 1, 1], 1));
        // Another task has polled it since.
        waiters.wait(Some(tickets[2]), &Arc::clone(&a).into(), |_| false);
        assert_eq!((Arc::strong_count(&a), Arc::strong_count(&c)), (2, 1));
        waiters.leave(tickets[1]);
        waiters.leave(tickets[1]);
        waiters.leave(tickets[2]);
        assert!(waiters.is_empty());
    }

    /// Wakers of futures that were leaked. Seen to fail: with the list dropped as it is, the process aborts.
    #[test]
    fn wakers_that_panic_when_they_are_dropped_are_dropped_one_by_one() {
        let waiters = Waiters::default();
        let gone = crate::testing::BadWakers::give(3, |waker| {
            waiters.wait(None, waker, |_| false);
        });
        drop(waiters);
        assert_eq!(gone.dropped(), 3);
    }

    /// A waker that makes its own wait leave, or does something else with the list.
    struct Reenters(Box<dyn Fn(&Waiters) + Send + Sync>, AtomicU32);

    thread_local! {
        static LIST: Waiters = Waiters::default();
    }

    impl Wake for Reenters {
        fn wake(self: Arc<Self>) {
            self.1.fetch_add(1, Ordering::Relaxed);
            LIST.with(|list| (self.0)(list));
        }
    }

    fn waits(does: impl Fn(&Waiters) + Send + Sync + 'static) -> (u64, Arc<Reenters>) {
        let waker = Arc::new(Reenters(Box::new(does), AtomicU32::new(0)));
        (LIST.with(|list| list.wait(None, &Arc::clone(&waker).into(), |_| false)), waker)
    }

    /// Seen to fail: with positions counted up, the one after a waker that leaves is never woken.
    #[test]
    fn all_are_woken_though_wakers_leave_and_wait_anew() {
        let all: Vec<_> = (0..4)
            .map(|i| {
                waits(move |list| {
                    list.leave(i);
                    list.wait(None, Waker::noop(), |_| false);
                })
            })
            .collect();
        LIST.with(Waiters::wake_all);
        assert!(all.iter().all(|(_, waker)| waker.1.load(Ordering::Relaxed) == 1));
        assert_eq!(LIST.with(|list| list.queue.borrow().len()), 4, "those that came anew");
    }

    /// Seen to fail: with the waker dropped by its panic, the second call finds nobody.
    #[test]
    fn a_waker_that_panics_keeps_its_place() {
        let (ticket, waker) = waits(|_| panic!("on purpose"));
        for _ in 0..2 {
            LIST.with(Waiters::wake_first);
        }
        assert_eq!(waker.1.load(Ordering::Relaxed), 2);
        LIST.with(|list| list.leave(ticket));
    }

    /// Seen to fail: with the panic of the first not contained, the second sleeps on.
    #[test]
    fn a_waker_that_panics_keeps_no_other_from_its_wake() {
        let (_, first) = waits(|_| panic!("on purpose"));
        let (_, second) = waits(|_| {});
        LIST.with(Waiters::wake_all);
        assert_eq!([first, second].map(|waker| waker.1.load(Ordering::Relaxed)), [1, 1]);
    }
}
