//! Every interleaving, and every reordering that the memory model allows, of small cases.

use std::ptr::NonNull;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::Notify;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::{Doorbell, Link, Node, WakeList};
use crate::sync::model::{BothOrders, check, check_large};

struct Item {
    link: Link,
    producer: usize,
    /// Plain memory: loom reports it as a race if the list does not order the writer before the reader.
    number: UnsafeCell<usize>,
}

// SAFETY: a box is the only owner of its memory, and its address is stable; `into_raw` and `from_raw` are the
// box's own.
unsafe impl Node for Box<Item> {
    fn link(&self) -> &Link {
        &self.link
    }

    fn into_raw(self) -> NonNull<()> {
        NonNull::from(Box::leak(self)).cast()
    }

    unsafe fn from_raw(raw: NonNull<()>) -> Self {
        // SAFETY: the caller passes what `into_raw` gave and uses one owner only.
        unsafe { Box::from_raw(raw.cast().as_ptr()) }
    }
}

fn item(producer: usize, number: usize) -> Box<Item> {
    Box::new(Item { link: Link::new(), producer, number: UnsafeCell::new(number) })
}

impl Item {
    fn number(&self) -> usize {
        // SAFETY: the node is owned here; loom checks that the write happened before.
        self.number.with(|number| unsafe { *number })
    }
}

struct Core {
    list: WakeList<Box<Item>>,
    doorbell: Doorbell,
    /// Stands for the eventfd: a signal sent before the sleep ends it at once.
    signal: Notify,
    signals: AtomicUsize,
    announced: AtomicUsize,
    /// A producer passes it after each push, and the consumer before each check.
    both_orders: BothOrders,
}

fn core() -> Arc<Core> {
    Arc::new(Core {
        list: WakeList::new(),
        doorbell: Doorbell::new(),
        signal: Notify::new(),
        signals: AtomicUsize::new(0),
        announced: AtomicUsize::new(0),
        both_orders: BothOrders::new(),
    })
}

impl Core {
    fn push(&self, node: Box<Item>) -> Result<bool, Box<Item>> {
        let pushed = self.list.push(node);
        self.both_orders.pass();
        pushed
    }

    fn take_all(&self) -> Vec<(usize, usize)> {
        self.both_orders.pass();
        self.list.take_all().map(|node| (node.producer, node.number())).collect()
    }

    fn notify(&self) {
        if self.doorbell.notify() {
            self.signals.fetch_add(1, Ordering::Relaxed);
            self.signal.notify();
        }
    }

    /// Receives until `expected` nodes have come. A lost wake is a deadlock, which loom reports.
    fn receive(&self, expected: usize) -> Vec<(usize, usize)> {
        let mut got = Vec::new();
        while got.len() < expected {
            self.announced.fetch_add(1, Ordering::Relaxed);
            self.doorbell.prepare_sleep();
            self.both_orders.pass();
            if self.list.is_empty() {
                self.signal.wait();
            }
            self.doorbell.cancel_sleep();
            got.extend(self.take_all());
        }
        got
    }
}

/// Two producers and a consumer that sleeps whenever it may; `always` rings after every push, else only the
/// producer that found the list empty rings.
fn no_wake_is_lost(always: bool) {
    check(2, move || {
        let core = core();
        let producers = [0, 1].map(|producer| {
            let core = core.clone();
            thread::spawn(move || {
                let was_empty = core.push(item(producer, 0)).ok().expect("the list is open");
                if always || was_empty {
                    core.notify();
                }
            })
        });
        let mut got = core.receive(2);
        got.sort_unstable();
        assert_eq!(got, [(0, 0), (1, 0)]);
        for producer in producers {
            producer.join().unwrap();
        }
        // At most one signal for each time that the receiver announced a sleep.
        let announced = core.announced.load(Ordering::Relaxed);
        assert!(core.signals.load(Ordering::Relaxed) <= announced);
    });
}

#[test]
fn no_wake_is_lost_when_every_push_rings() {
    no_wake_is_lost(true);
}

#[test]
fn no_wake_is_lost_when_only_the_first_push_rings() {
    no_wake_is_lost(false);
}

/// One producer that rings twice for two pieces of work, so that the second may fall into any part of a sleep
/// cycle.
#[test]
fn no_wake_is_lost_in_a_second_sleep() {
    check(4, || {
        let core = core();
        let producer = {
            let core = core.clone();
            thread::spawn(move || {
                for number in 0..2 {
                    assert!(core.push(item(0, number)).is_ok());
                    core.notify();
                }
            })
        };
        assert_eq!(core.receive(2), [(0, 0), (0, 1)]);
        producer.join().unwrap();
    });
}

/// A core that puts its notices off until the end of its tick (`core/peers.rs`): it sends one notice for two
/// pushes, before it sleeps itself. Meanwhile another thread pushes and notifies at once. Both cores sleep
/// whenever they may. (Seen: with the notice after the core's own sleep loom reports the deadlock.)
#[test]
fn no_wake_is_lost_when_the_ring_is_put_off() {
    check_large(3, || {
        let (near, far) = (core(), core());
        let other = {
            let (near, far) = (near.clone(), far.clone());
            thread::spawn(move || {
                let mut got = far.receive(3);
                got.sort_unstable();
                assert_eq!(got, [(0, 0), (0, 1), (1, 0)]);
                assert!(near.push(item(0, 2)).is_ok());
                near.notify();
            })
        };
        let outside = {
            let far = far.clone();
            thread::spawn(move || {
                assert!(far.push(item(1, 0)).is_ok());
                far.notify();
            })
        };
        for number in 0..2 {
            assert!(far.push(item(0, number)).is_ok());
        }
        far.notify();
        assert_eq!(near.receive(1), [(0, 2)]);
        outside.join().unwrap();
        other.join().unwrap();
    });
}

/// An awake receiver is never signalled.
#[test]
fn nobody_signals_a_receiver_that_is_awake() {
    check(4, || {
        let core = core();
        core.doorbell.prepare_sleep();
        assert!(!core.doorbell.cancel_sleep());
        let producer = {
            let core = core.clone();
            thread::spawn(move || {
                assert!(core.push(item(0, 0)).is_ok());
                core.notify();
            })
        };
        while core.take_all().is_empty() {
            thread::yield_now();
        }
        producer.join().unwrap();
        assert_eq!(core.signals.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn nodes_of_one_producer_come_in_its_order() {
    check(4, || {
        let core = core();
        let producers = [2, 1].map(|count| {
            let core = core.clone();
            thread::spawn(move || {
                for number in 0..count {
                    assert!(core.push(item(count, number)).is_ok());
                }
            })
        });
        let mut got = core.take_all();
        for producer in producers {
            producer.join().unwrap();
        }
        got.extend(core.take_all());
        assert_eq!(got.len(), 3);
        let of = |who| got.iter().filter(|(p, _)| *p == who).map(|(_, n)| *n).collect::<Vec<_>>();
        assert_eq!(of(2), [0, 1]);
        assert_eq!(of(1), [0]);
    });
}

/// Each node is either in what `close` takes or comes back to its producer: none is lost, none is there
/// twice.
#[test]
fn close_against_push() {
    check(4, || {
        let core = core();
        let producers = [0, 1].map(|producer| {
            let core = core.clone();
            thread::spawn(move || match core.push(item(producer, 0)) {
                Ok(_) => 0,
                Err(node) => {
                    assert_eq!((node.producer, node.number()), (producer, 0));
                    1
                }
            })
        });
        let taken = core.list.close().map(|node| node.number()).collect::<Vec<_>>().len();
        let refused: usize = producers.map(|producer| producer.join().unwrap()).iter().sum();
        assert_eq!(taken + refused, 2);
        assert!(core.push(item(0, 1)).is_err());
        assert_eq!(core.take_all(), []);
    });
}
