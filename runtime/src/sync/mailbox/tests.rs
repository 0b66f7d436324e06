use std::future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use async_task::Runnable;

use super::{Doorbell, Link, Node, WakeList};

/// Counts how many nodes have been dropped.
struct Probe(Arc<AtomicUsize>);

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Item {
    link: Link,
    producer: usize,
    number: usize,
    _probe: Probe,
}

// SAFETY: a box is the only owner of its memory, and its address is stable; `into_raw` and `from_raw` are the
// box's own.
unsafe impl Node for Box<Item> {
    fn link(&self) -> &Link {
        &self.link
    }

    fn into_raw(self) -> std::ptr::NonNull<()> {
        std::ptr::NonNull::from(Box::leak(self)).cast()
    }

    unsafe fn from_raw(raw: std::ptr::NonNull<()>) -> Self {
        // SAFETY: the caller passes what `into_raw` gave and uses one owner only.
        unsafe { Box::from_raw(raw.cast().as_ptr()) }
    }
}

fn item(producer: usize, number: usize, dropped: &Arc<AtomicUsize>) -> Box<Item> {
    Box::new(Item { link: Link::new(), producer, number, _probe: Probe(dropped.clone()) })
}

fn push(list: &WakeList<Box<Item>>, node: Box<Item>) -> Option<bool> {
    list.push(node).ok()
}

#[test]
fn first_in_is_first_out_and_only_the_first_finds_it_empty() {
    let dropped = Arc::default();
    let list = WakeList::new();
    assert!(list.is_empty());
    assert_eq!(push(&list, item(0, 0, &dropped)), Some(true));
    assert_eq!(push(&list, item(0, 1, &dropped)), Some(false));
    assert_eq!(push(&list, item(0, 2, &dropped)), Some(false));
    assert!(!list.is_empty());
    let numbers: Vec<_> = list.take_all().map(|node| node.number).collect();
    assert_eq!(numbers, [0, 1, 2]);
    assert!(list.is_empty());
    assert_eq!(list.take_all().count(), 0);
    assert_eq!(push(&list, item(0, 3, &dropped)), Some(true));
    assert_eq!(list.close().count(), 1);
}

#[test]
fn what_is_taken_and_not_used_is_dropped() {
    let dropped = Arc::default();
    let list = WakeList::new();
    for number in 0..5 {
        push(&list, item(0, number, &dropped));
    }
    let mut drained = list.take_all();
    assert_eq!(drained.next().map(|node| node.number), Some(0));
    drop(drained);
    assert_eq!(dropped.load(Ordering::Relaxed), 5);
}

#[test]
fn a_closed_list_gives_the_node_back_and_stays_closed() {
    let dropped = Arc::default();
    let list = WakeList::new();
    push(&list, item(0, 0, &dropped));
    assert_eq!(list.close().count(), 1);
    assert_eq!(list.push(item(0, 7, &dropped)).err().map(|node| node.number), Some(7));
    assert!(list.is_empty());
    assert_eq!(list.take_all().count(), 0);
    assert!(list.push(item(0, 8, &dropped)).is_err(), "taking from a closed list must not open it");
    assert_eq!(list.close().count(), 0);
    assert_eq!(dropped.load(Ordering::Relaxed), 3);
}

#[test]
fn threads_push_and_every_node_arrives_once_in_its_producers_order() {
    const PRODUCERS: usize = 4;
    const EACH: usize = 20_000;
    let dropped = Arc::default();
    let list = WakeList::new();
    thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let (list, dropped) = (&list, &dropped);
            scope.spawn(move || {
                for number in 0..EACH {
                    assert!(push(list, item(producer, number, dropped)).is_some());
                }
            });
        }
        let mut next = [0; PRODUCERS];
        while next != [EACH; PRODUCERS] {
            for node in list.take_all() {
                assert_eq!(node.number, next[node.producer]);
                next[node.producer] += 1;
            }
        }
    });
    assert_eq!(dropped.load(Ordering::Relaxed), PRODUCERS * EACH);
}

/// Two threads take turns: each sleeps (parks) until the other has pushed. A lost wake would hang the test.
#[test]
fn a_sleeper_is_always_woken() {
    const ROUNDS: usize = 20_000;
    struct Core {
        list: WakeList<Box<Item>>,
        doorbell: Doorbell,
    }
    let core = || Core { list: WakeList::new(), doorbell: Doorbell::new() };
    let cores = [core(), core()];
    let dropped = Arc::default();

    let play = |me: usize, other: thread::Thread| {
        for number in 0..ROUNDS {
            if number % 2 != me {
                // It is this thread's turn to receive.
                'received: loop {
                    cores[me].doorbell.prepare_sleep();
                    if cores[me].list.is_empty() {
                        thread::park();
                    }
                    cores[me].doorbell.cancel_sleep();
                    if let Some(node) = cores[me].list.take_all().next() {
                        assert_eq!(node.number, number);
                        break 'received;
                    }
                }
            } else {
                assert!(push(&cores[1 - me].list, item(me, number, &dropped)).is_some());
                if cores[1 - me].doorbell.notify() {
                    other.unpark();
                }
            }
        }
    };
    thread::scope(|scope| {
        let main = thread::current();
        let play = &play;
        let other = scope.spawn(move || play(1, main));
        play(0, other.thread().clone());
    });
    assert_eq!(dropped.load(Ordering::Relaxed), ROUNDS);
}

/// The node that the runtime uses: a task whose metadata holds the link.
struct Woken(Runnable<Meta>);

struct Meta {
    link: Link,
}

// SAFETY: async-task lets at most one `Runnable` of a task exist at a time (the SCHEDULED and RUNNING bits of
// its state), keeps the task's memory, metadata included, until that is gone, and never moves it.
unsafe impl Node for Woken {
    fn link(&self) -> &Link {
        &self.0.metadata().link
    }

    fn into_raw(self) -> std::ptr::NonNull<()> {
        self.0.into_raw()
    }

    unsafe fn from_raw(raw: std::ptr::NonNull<()>) -> Self {
        // SAFETY: the caller passes what `into_raw` gave and uses one owner only.
        Woken(unsafe { Runnable::from_raw(raw) })
    }
}

/// Tasks are woken by many threads at once, while they run and while they do not. Each ends, and none runs
/// twice at once.
#[test]
fn tasks_woken_from_other_threads_run_to_their_end() {
    const TASKS: usize = 200;
    const WAKERS: usize = 3;
    let list: Arc<WakeList<Woken>> = Arc::new(WakeList::new());
    let mut handles = Vec::new();
    let mut wakers = Vec::new();
    let polls = Arc::new(AtomicUsize::new(0));
    for _ in 0..TASKS {
        let polls = polls.clone();
        let mut left = 0;
        let body = future::poll_fn(move |_cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            left += 1;
            if left > 5 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        });
        let target = list.clone();
        let (runnable, task) = async_task::Builder::new().metadata(Meta { link: Link::new() }).spawn(
            move |_| body,
            move |runnable| {
                if let Err(refused) = target.push(Woken(runnable)) {
                    std::mem::forget(refused);
                }
            },
        );
        wakers.push(runnable.waker());
        runnable.schedule();
        handles.push(task);
    }
    thread::scope(|scope| {
        for _ in 0..WAKERS {
            let (wakers, handles) = (&wakers, &handles);
            scope.spawn(move || {
                while !handles.iter().all(|task| task.is_finished()) {
                    wakers.iter().for_each(|waker| waker.wake_by_ref());
                }
            });
        }
        while !handles.iter().all(|task| task.is_finished()) {
            for Woken(runnable) in list.take_all() {
                runnable.run();
            }
        }
    });
    assert_eq!(polls.load(Ordering::Relaxed), TASKS * 6);
    drop(list.close());
    // A finished task is not scheduled any more: these wakes do nothing.
    wakers.iter().for_each(|waker| waker.wake_by_ref());
    assert!(list.is_empty());
}
