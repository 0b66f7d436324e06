//! Nothing stays in a closed queue, and nobody waits while a place is free: every interleaving, and every
//! reordering that the memory model allows, of small cases.
//!
//! Relaxed words stand for the channel, so that only the latch and the waiting senders order them. A lost
//! wake is a deadlock, which loom reports.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Wake};

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Notify};
use loom::thread;

use super::{Latch, Refused, retry};
use crate::sync::model::{BothOrders, check, check_large};
use crate::sync::space::SpaceWaiters;

struct Model {
    latch: Latch,
    places: [AtomicUsize; 2],
    taken: AtomicUsize,
    both_orders: BothOrders,
}

impl Model {
    fn empty(&self) {
        self.both_orders.pass();
        for place in &self.places {
            let found = place.swap(0, Ordering::Relaxed);
            self.taken.fetch_add(found, Ordering::Relaxed);
        }
    }
}

/// (Seen: without the sender's fence a message stays behind.)
#[test]
fn nothing_stays_in_a_closed_queue() {
    check(3, || {
        let model = Arc::new(Model {
            latch: Latch::new(),
            places: [AtomicUsize::new(0), AtomicUsize::new(0)],
            taken: AtomicUsize::new(0),
            both_orders: BothOrders::new(),
        });
        let senders = [0, 1].map(|sender: usize| {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                if model.latch.is_closed() {
                    return 0;
                }
                // The word is changed by a read-modify-write, as the channel does. Loom may order a plain
                // store before a swap that did not read it.
                model.places[sender].fetch_add(1, Ordering::Relaxed);
                model.both_orders.pass();
                if model.latch.closed_meanwhile() {
                    model.empty();
                }
                1
            })
        });
        model.latch.close();
        model.empty();
        let put: usize = senders.map(|sender| sender.join().unwrap()).iter().sum();
        assert_eq!(model.taken.load(Ordering::Relaxed), put);
    });
}

/// A queue of one place.
struct Narrow {
    latch: Latch,
    /// How many messages are in it: none, or one.
    messages: AtomicUsize,
    space: SpaceWaiters,
    both_orders: BothOrders,
}

impl Narrow {
    /// A queue with a message in it.
    fn full() -> Arc<Self> {
        Arc::new(Self {
            latch: Latch::new(),
            messages: AtomicUsize::new(1),
            space: SpaceWaiters::new(),
            both_orders: BothOrders::new(),
        })
    }

    /// It loads first. A plain load may see an earlier value, which a read-modify-write never does.
    fn try_put(&self) -> Result<(), Refused<()>> {
        self.both_orders.pass();
        if self.latch.is_closed() {
            return Err(Refused::Closed(()));
        }
        if self.messages.load(Ordering::Relaxed) == 1 {
            return Err(Refused::Full(()));
        }
        match self.messages.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            Err(_) => Err(Refused::Full(())),
        }
    }

    async fn put(&self) -> Result<(), ()> {
        let mut message = Some(());
        self.space.find(|| retry(&mut message, |()| self.try_put())).await
    }

    /// Takes a message, as soon as there is one.
    fn take(&self) {
        while self.messages.swap(0, Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        self.both_orders.pass();
        self.space.made(1);
    }
}

/// A thread sleeps on it while it waits for a future.
struct Flag(Notify);

impl Wake for Flag {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.notify();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let flag = std::sync::Arc::new(Flag(Notify::new()));
    let waker = std::sync::Arc::clone(&flag).into();
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => flag.0.wait(),
        }
    }
}

/// (Seen: a deadlock without the receiver's fence, without the sender's, without the second check, and with
/// nobody counted.)
#[test]
fn who_waits_for_space_is_told_of_it() {
    check(3, || {
        let queue = Narrow::full();
        let sender = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || block_on(queue.put()))
        };
        queue.take();
        assert_eq!(sender.join().unwrap(), Ok(()));
    });
}

/// (Seen: a deadlock with nobody counted.)
#[test]
fn two_that_wait_are_told_one_after_the_other() {
    check_large(2, || {
        let queue = Narrow::full();
        let senders = [0, 1].map(|_| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || block_on(queue.put()))
        });
        queue.take();
        queue.take();
        for sender in senders {
            assert_eq!(sender.join().unwrap(), Ok(()));
        }
    });
}

/// One of two gives up, perhaps just after it was told; then the other is told. (Seen: a deadlock without the
/// receiver's fence, and without the second check.)
#[test]
fn who_gives_up_takes_no_space_from_who_waits() {
    check_large(2, || {
        let queue = Narrow::full();
        let waits = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || block_on(queue.put()))
        };
        let gives_up = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let flag = std::sync::Arc::new(Flag(Notify::new())).into();
                pin!(queue.put()).poll(&mut Context::from_waker(&flag)).is_ready()
            })
        };
        queue.take();
        if gives_up.join().unwrap() {
            queue.take();
        }
        assert_eq!(waits.join().unwrap(), Ok(()));
    });
}

/// Another task polls it while it is told. One of the two wakers is called, and it is the last one if it was
/// not told before.
#[test]
fn who_changes_its_waker_is_told_by_the_new_one() {
    check(3, || {
        let queue = Narrow::full();
        let sender = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let mut put = pin!(queue.put());
                let other = std::sync::Arc::new(Flag(Notify::new())).into();
                match put.as_mut().poll(&mut Context::from_waker(&other)) {
                    Poll::Ready(output) => output,
                    Poll::Pending => block_on(put),
                }
            })
        };
        queue.take();
        assert_eq!(sender.join().unwrap(), Ok(()));
    });
}

/// (Seen: a deadlock with nobody told.)
#[test]
fn who_waits_for_space_is_told_that_there_will_be_none() {
    check(3, || {
        let queue = Narrow::full();
        let sender = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || block_on(queue.put()))
        };
        queue.latch.close();
        queue.both_orders.pass();
        queue.space.close();
        assert_eq!(sender.join().unwrap(), Err(()));
    });
}
