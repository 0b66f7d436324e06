//! Those of any thread that wait for room in a queue, in the order in which they came.
//!
//! Wakers are cloned, called and dropped with the lock free and their panics contained: what they do is not
//! ours to know, and each may come back to the same queue. A waker of a ready-made event list is called under
//! the list's own lock.
//!
//! # Who is told
//!
//! Who is told leaves the list, so one that does not find itself there was told. If it gives up, or has found
//! a place by itself meanwhile, the next is told in its stead; if it finds no place, it comes back to where
//! it stood.
//!
//! # The count
//!
//! The receiver must not take the lock for each message. So those in the list are counted. A sender that
//! found no place enters the list, and looks for a place again; the receiver takes a message and then looks
//! at the count. Each writes first and then reads what the other wrote, with a sequentially consistent fence
//! between: either the sender sees the place or the receiver sees the count, and finds it in the list.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::PoisonError;
use std::task::{Poll, Waker};

use crate::contained::contained;
use crate::sync::atomic::{AtomicUsize, Ordering, fence};
use crate::sync::locks::{Mutex, MutexGuard};

/// Those that found no place.
pub(crate) struct SpaceWaiters {
    list: Mutex<List>,
    /// How many are in the list.
    waiting: AtomicUsize,
}

#[derive(Default)]
struct List {
    /// By ticket, in ascending order.
    queue: VecDeque<(u64, Waker)>,
    /// The next ticket: 2^64 are never given out.
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

    /// Attempts something that needs room until there is an outcome: now, and each time that this is told of
    /// a place.
    pub(crate) async fn find<R>(&self, mut attempt: impl FnMut() -> Option<R>) -> R {
        let mut turn = Turn { space: self, ticket: None };
        poll_fn(|cx| turn.poll(cx.waker(), &mut attempt)).await
    }

    /// So many places have become free: as many that wait may look again.
    pub(crate) fn made(&self, places: usize) {
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.tell(places);
        }
    }

    /// There will be no more places. After the latch is closed: who is told sees it, and does not come back.
    pub(crate) fn close(&self) {
        self.tell(usize::MAX);
    }

    /// Tells so many. One whose waker panics does not count: it may never look.
    fn tell(&self, most: usize) {
        let mut told = 0;
        while told < most {
            let first = self.change(|list| list.queue.pop_front());
            let Some((_, waker)) = first else { return };
            contained("the waker of one that waits for room", || {
                waker.wake_by_ref();
                told += 1;
            });
            // Apart from the call: a destructor that panics after a call that did would end the process.
            drop_contained(waker);
        }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        // No code of others runs while it is held.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the list, and the count with it. `f` drops no waker.
    fn change<T>(&self, f: impl FnOnce(&mut List) -> T) -> T {
        let mut list = self.lock();
        let changed = f(&mut list);
        self.waiting.store(list.queue.len(), Ordering::Relaxed);
        changed
    }
}

impl Drop for SpaceWaiters {
    fn drop(&mut self) {
        // Of futures that were leaked.
        while let Some((_, waker)) = self.change(|list| list.queue.pop_front()) {
            drop_contained(waker);
        }
    }
}

/// One that waits, for as long as it does.
struct Turn<'a> {
    space: &'a SpaceWaiters,
    /// Its place in the list, kept until it has used what it was told.
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
        // Room that is made before this is in the list is told to nobody.
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

    /// Whether this is in the list and was told nothing; then `waker` is the one that will be called.
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

    /// Takes the place in the list that it had, or one at the end.
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

    /// Gives its place up.
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
