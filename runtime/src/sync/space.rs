//! Senders of any thread that wait for a free place of a queue, in the order in which they came.
//!
//! Wakers are cloned, called and dropped with the lock free and their panics contained, because they are
//! foreign code, and each may use the same queue. A ready-made event list does not do: it calls wakers under
//! its own lock.
//!
//! # Who is told
//!
//! A sender that is told leaves the list, so one that does not find itself there was told. If it gives up, or
//! has found a place by itself meanwhile, the next one is told instead. If it finds no place, it gets its old
//! position in the list back.
//!
//! # The count
//!
//! The receiver must not take the lock for each message, so those in the list are counted. A sender that
//! found no place enters the list and then tries again. The receiver takes a message and then reads the
//! count. Each writes first and then reads what the other wrote, with a sequentially consistent fence in
//! between. So either the sender sees the free place, or the receiver sees the count and finds the sender in
//! the list.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::PoisonError;
use std::task::{Poll, Waker};

use crate::contained::contained;
use crate::sync::atomic::{AtomicUsize, Ordering, fence};
use crate::sync::locks::{Mutex, MutexGuard};

/// The senders that found no free place.
pub(crate) struct SpaceWaiters {
    list: Mutex<List>,
    /// How many are in the list.
    waiting: AtomicUsize,
}

#[derive(Default)]
struct List {
    /// Sorted by ticket, ascending.
    queue: VecDeque<(u64, Waker)>,
    /// The next ticket. 2^64 are never given out.
    next: u64,
}

impl List {
    fn at(&self, ticket: u64) -> Option<usize> {
        self.queue.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()
    }

    fn get_mut(&mut self, ticket: u64) -> Option<&mut Waker> {
        let at = self.at(ticket)?;
        self.queue.get_mut(at).map(|(_, waker)| waker)
    }
}

impl SpaceWaiters {
    pub(crate) fn new() -> Self {
        Self { list: Mutex::new(List::default()), waiting: AtomicUsize::new(0) }
    }

    /// Calls `attempt` until it has an outcome: now, and each time that a place becomes free.
    pub(crate) async fn find<R>(&self, mut attempt: impl FnMut() -> Option<R>) -> R {
        let mut turn = Turn { space: self, ticket: None };
        poll_fn(|cx| turn.poll(cx.waker(), &mut attempt)).await
    }

    /// Says that this many places have become free. As many that wait try again.
    pub(crate) fn made(&self, places: usize) {
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.tell(places);
        }
    }

    /// Says that no more places become free. It comes after the latch was closed, so those that are told see
    /// that and do not come back.
    pub(crate) fn close(&self) {
        self.tell(usize::MAX);
    }

    /// Tells this many. One whose waker panics does not count, because it may never try.
    fn tell(&self, most: usize) {
        let mut told = 0;
        while told < most {
            let first = self.change(|list| list.queue.pop_front());
            let Some((_, waker)) = first else { return };
            contained("the waker of one that waits for space", || {
                waker.wake_by_ref();
                told += 1;
            });
            // It is dropped apart from the call: a destructor that panics after a call that panicked would
            // end the process.
            drop_contained(waker);
        }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        // No foreign code runs while it is held.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the list and its count. `f` drops no waker.
    fn change<T>(&self, f: impl FnOnce(&mut List) -> T) -> T {
        let mut list = self.lock();
        let changed = f(&mut list);
        self.waiting.store(list.queue.len(), Ordering::Relaxed);
        changed
    }
}

impl Drop for SpaceWaiters {
    fn drop(&mut self) {
        // These are of futures that were leaked.
        while let Some((_, waker)) = self.change(|list| list.queue.pop_front()) {
            drop_contained(waker);
        }
    }
}

/// One sender that waits, for as long as it does.
struct Turn<'a> {
    space: &'a SpaceWaiters,
    /// Its ticket in the list. It is kept until the sender has used a place that it was told of.
    ticket: Option<u64>,
}

impl Turn<'_> {
    fn poll<R>(&mut self, waker: &Waker, attempt: &mut impl FnMut() -> Option<R>) -> Poll<R> {
        if self.stands_with(waker) {
            return Poll::Pending;
        }
        if let Some(found) = attempt() {
            self.ticket = None;
            return Poll::Ready(found);
        }
        // A place that becomes free before this is in the list is told to nobody.
        self.enter(waker.clone());
        fence(Ordering::SeqCst);
        match attempt() {
            None => Poll::Pending,
            Some(found) => {
                self.leave();
                Poll::Ready(found)
            }
        }
    }

    /// Whether this is in the list and was told nothing. Then `waker` is the one that will be called.
    fn stands_with(&self, waker: &Waker) -> bool {
        let Some(ticket) = self.ticket else { return false };
        match self.space.lock().get_mut(ticket).map(|kept| kept.will_wake(waker)) {
            None => return false,
            Some(true) => return true,
            Some(false) => {}
        }
        let mut waker = waker.clone();
        let stands = self.space.lock().get_mut(ticket).map(|kept| std::mem::swap(kept, &mut waker)).is_some();
        drop_contained(waker);
        stands
    }

    /// Enters the list, at its old position or at the end.
    fn enter(&mut self, waker: Waker) {
        let known = self.ticket;
        self.ticket = Some(self.space.change(|list| {
            let ticket = known.unwrap_or(list.next);
            list.next = list.next.max(ticket + 1);
            let at = list.queue.partition_point(|(other, _)| *other < ticket);
            list.queue.insert(at, (ticket, waker));
            ticket
        }));
    }

    /// Leaves the list.
    fn leave(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let left = self.space.change(|list| list.at(ticket).and_then(|at| list.queue.remove(at)));
        match left {
            Some((_, waker)) => drop_contained(waker),
            // It was told of a place that it does not take.
            None => self.space.tell(1),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

fn drop_contained(waker: Waker) {
    contained("the destructor of a waker", || drop(waker));
}

#[cfg(all(test, not(loom)))]
mod tests;
