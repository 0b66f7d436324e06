//! Every interleaving, and every reordering that the memory model allows, of an own core and wakers on other
//! threads.
//!
//! Seen to fail: with a relaxed load for the sum and relaxed drops (the memory is freed while another thread
//! still reads it), with a wake that publishes nothing when the task is notified already, and with a merge
//! that is not one step.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::{AfterWake, Pause, State};
use crate::sync::model::{BothOrders, check};

/// A task of which only the state is real.
struct Task {
    state: State,
    /// Stands for the allocation: read by whoever uses it, written when it is freed. Loom reports a race.
    memory: UnsafeCell<()>,
    freed: AtomicUsize,
    /// Places on the wake list.
    on_list: AtomicUsize,
    both_orders: BothOrders,
}

// SAFETY: only the thread that made the task calls what is for the own core, and whoever frees it.
unsafe impl Send for Task {}
// SAFETY: as above.
unsafe impl Sync for Task {}

impl Task {
    /// One whose first poll goes on, without a handle.
    fn running() -> Arc<Self> {
        let task = Arc::new(Self {
            state: State::new(),
            memory: UnsafeCell::new(()),
            freed: AtomicUsize::new(0),
            on_list: AtomicUsize::new(0),
            both_orders: BothOrders::new(),
        });
        assert!(task.state.begin());
        assert!(!task.state.drop_handle());
        task
    }

    fn used(&self) {
        self.memory.with(|_| ());
    }

    fn free(&self) {
        self.memory.with_mut(|_| ());
        assert!(self.freed.fetch_add(1, Ordering::Relaxed) == 0, "freed twice");
    }

    /// A waker, made in the poll.
    fn waker(task: &Arc<Self>) -> Arc<Self> {
        assert!(task.state.clone_here());
        task.clone()
    }

    fn clone_there(task: &Arc<Self>) -> Arc<Self> {
        task.used();
        task.state.clone_there();
        task.clone()
    }

    fn drop_there(&self) {
        self.used();
        self.both_orders.pass();
        if self.state.drop_there() {
            self.free();
        }
    }

    fn wake_there(&self) {
        self.used();
        self.both_orders.pass();
        if self.state.wake_there() {
            self.push();
        }
    }

    fn wake_and_drop_there(&self) {
        self.used();
        self.both_orders.pass();
        match self.state.wake_and_drop_there() {
            AfterWake::Nothing => {}
            AfterWake::Push => self.push(),
            AfterWake::Free => self.free(),
        }
    }

    fn push(&self) {
        self.used();
        assert!(self.on_list.fetch_add(1, Ordering::Release) == 0, "on the list twice");
    }

    /// The core takes the list. True: the task is to be polled.
    fn take(&self) -> bool {
        if self.on_list.load(Ordering::Acquire) == 0 {
            return false;
        }
        self.on_list.fetch_sub(1, Ordering::AcqRel);
        self.used();
        match self.state.taken() {
            AfterWake::Nothing => false,
            AfterWake::Push => true,
            AfterWake::Free => {
                self.free();
                false
            }
        }
    }

    /// The future has been dropped.
    fn end(&self) {
        self.used();
        self.both_orders.pass();
        if self.state.end(false, || {}) {
            self.free();
        }
    }

    /// The list is closed, and what is on it dropped.
    fn close(&self) {
        if self.on_list.swap(0, Ordering::AcqRel) == 1 {
            self.drop_there();
        }
    }

    fn assert_freed(&self) {
        assert_eq!(self.freed.load(Ordering::Relaxed), 1);
    }
}

/// Wakers that were made here are dropped elsewhere, and one that was made there, while the task ends.
#[test]
fn the_memory_goes_once_and_after_its_last_user() {
    check(4, || {
        let task = Task::running();
        let threads = [0, 1].map(|thread| {
            let waker = Task::waker(&task);
            thread::spawn(move || {
                if thread == 1 {
                    Task::clone_there(&waker).drop_there();
                }
                waker.drop_there();
            })
        });
        task.end();
        for thread in threads {
            thread.join().unwrap();
        }
        task.assert_freed();
    });
}

/// A waker comes back to its core, by a channel that synchronises, and is dropped there.
#[test]
fn a_waker_may_be_made_there_and_dropped_here() {
    check(4, || {
        let task = Task::running();
        let waker = Task::waker(&task);
        let thread = thread::spawn(move || {
            let made = Task::clone_there(&waker);
            waker.drop_there();
            made
        });
        let made = thread.join().unwrap();
        if !made.state.drop_here() {
            made.drop_there();
        }
        task.end();
        task.assert_freed();
    });
}

/// Wakes meet the end: what was pushed is held until the list is closed.
#[test]
fn a_wake_that_meets_the_end_holds_the_memory() {
    check(4, || {
        let task = Task::running();
        assert_eq!(task.state.pause(), Pause::List);
        let threads = [0, 1].map(|thread| {
            let waker = Task::waker(&task);
            thread::spawn(move || {
                if thread == 0 {
                    waker.wake_and_drop_there();
                } else {
                    waker.wake_there();
                    waker.drop_there();
                }
            })
        });
        if task.take() {
            assert!(task.state.begin());
        }
        task.end();
        for thread in threads {
            thread.join().unwrap();
        }
        task.close();
        task.assert_freed();
    });
}

/// Two threads bring something each and wake the task, by a waker that they leave or use up. The poll after
/// the last wake finds both.
#[test]
fn no_wake_is_lost_and_the_poll_finds_what_wakers_brought() {
    check(4, || {
        let task = Task::running();
        assert_eq!(task.state.pause(), Pause::List);
        let brought = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let threads = [0, 1].map(|thread| {
            let (waker, brought) = (Task::waker(&task), brought.clone());
            thread::spawn(move || {
                brought[thread].store(1, Ordering::Relaxed);
                if thread == 0 {
                    waker.wake_and_drop_there();
                } else {
                    waker.wake_there();
                    waker.drop_there();
                }
            })
        });
        loop {
            // A lost wake is a loop that does not end, which loom reports.
            while !task.take() {
                thread::yield_now();
            }
            assert!(task.state.begin());
            if brought.iter().all(|brought| brought.load(Ordering::Relaxed) == 1) {
                break;
            }
            assert_eq!(task.state.pause(), Pause::Wait);
        }
        task.end();
        for thread in threads {
            thread.join().unwrap();
        }
        task.close();
        task.assert_freed();
    });
}
