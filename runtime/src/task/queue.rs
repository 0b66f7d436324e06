//! The tasks of a core: those to be polled, and all that are alive.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::Waker;

use slab::Slab;

use super::Woken;
use crate::contained::contained;
use crate::core::Core;

/// The run queue and the registry of a core.
pub(crate) struct Tasks {
    ready: RefCell<VecDeque<Woken>>,
    /// A waker of every task that waits, so that the end of the core reaches those that nothing wakes, and so
    /// that a task whose other wakers were dropped is kept until then. A task that has not been polled is in
    /// the run queue or on the wake list, and one that never waits need not be here at all.
    alive: RefCell<Slab<Option<Waker>>>,
    /// Tasks that wait for the runtime to be asked to stop. A server has one for each idle connection, so
    /// adding and removing takes constant time, and no entry outlives its future.
    ///
    /// A place is its future's until that is dropped; it is empty once the waker was called.
    stop_waiters: RefCell<Slab<Option<Waker>>>,
    /// All that wait for the stop were told, and nobody waits any more.
    stop_told: Cell<bool>,
    /// No task is polled any more; one that is woken or new is dropped.
    ending: Cell<bool>,
}

/// An entry in the registry, for as long as the task's future lives.
pub(crate) struct Registered(usize);

impl Drop for Registered {
    fn drop(&mut self) {
        // The future lives and dies on its core's thread; without a core there is no registry any more.
        let waker = Core::try_with(|core| core.tasks.alive.borrow_mut().try_remove(self.0));
        // Dropping a waker may run a scheduler: not while the registry is borrowed.
        drop(waker);
    }
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self {
            ready: RefCell::new(VecDeque::with_capacity(1024)),
            alive: RefCell::new(Slab::with_capacity(1024)),
            stop_waiters: RefCell::new(Slab::new()),
            stop_told: Cell::new(false),
            ending: Cell::new(false),
        }
    }

    /// Enters a task that waits.
    pub(super) fn register(&self, waker: Waker) -> Registered {
        Registered(self.alive.borrow_mut().insert(Some(waker)))
    }

    /// Puts a task at the end of the queue, at the core's end too: the waking code may hold a lock that the
    /// task's destructor takes, so no future is dropped in here.
    pub(crate) fn push(&self, task: Woken) {
        self.ready.borrow_mut().push_back(task);
    }

    /// Drops the tasks in the queue, and those that this wakes. For the end of the core.
    pub(crate) fn drop_ready(&self) {
        // Dropping a Runnable drops its future: here, on its own thread, which is right, and with nothing
        // borrowed.
        while let Some(task) = self.pop() {
            drop(task);
        }
    }

    /// The next task to poll.
    pub(crate) fn pop(&self) -> Option<Woken> {
        self.ready.borrow_mut().pop_front()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.ready.borrow().is_empty()
    }

    /// Tasks ready to be polled.
    pub(crate) fn ready_len(&self) -> usize {
        self.ready.borrow().len()
    }

    /// Remembers one that waits for the stop, under `key` once it has one.
    pub(crate) fn wait_for_stop(&self, key: &mut Option<usize>, waker: &Waker) {
        let kept = |kept: &Option<Waker>| kept.as_ref().is_some_and(|kept| kept.will_wake(waker));
        if key.is_some_and(|key| self.stop_waiters.borrow().get(key).is_some_and(kept)) {
            return;
        }
        // Cloned and dropped with nothing borrowed: either may run code that uses the list.
        let mut waker = Some(waker.clone());
        match *key {
            Some(key) => {
                let mut waiters = self.stop_waiters.borrow_mut();
                waiters.get_mut(key).into_iter().for_each(|kept| std::mem::swap(kept, &mut waker));
            }
            None => *key = Some(self.stop_waiters.borrow_mut().insert(waker.take())),
        }
    }

    /// Forgets one that waited for the stop.
    pub(crate) fn forget_stop(&self, key: usize) {
        let waker = self.stop_waiters.borrow_mut().try_remove(key).flatten();
        // A destructor comes here, and its thread may be panicking.
        if let Some(waker) = waker {
            contained("the destructor of a waker", || drop(waker));
        }
    }

    pub(crate) fn has_stop_waiters(&self) -> bool {
        !self.stop_told.get() && !self.stop_waiters.borrow().is_empty()
    }

    /// Whether the core is dropping its tasks.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// The runtime was asked to stop: wakes all that waited for it.
    pub(crate) fn wake_stop_waiters(&self) {
        self.stop_told.set(true);
        self.each_stop_waiter(Waker::wake);
    }

    /// Takes the wakers out one by one: what `f` runs may change the list.
    fn each_stop_waiter(&self, f: impl Fn(Waker)) {
        let mut key = 0;
        while key < self.stop_waiters.borrow().capacity() {
            let waker = self.stop_waiters.borrow_mut().get_mut(key).and_then(Option::take);
            key += 1;
            waker.into_iter().for_each(&f);
        }
    }

    fn drop_stop_waiters(&self) {
        self.each_stop_waiter(|waker| contained("the destructor of a waker", || drop(waker)));
    }

    /// Drops every task of this core. Futures may spawn and wake in their destructors; what they spawn is
    /// dropped too. `foreign` takes what other threads have woken meanwhile.
    pub(crate) fn drop_all(&self, mut foreign: impl FnMut() -> Vec<Woken>) {
        self.ending.set(true);
        self.drop_stop_waiters();
        let mut patience = 1000;
        loop {
            self.drop_ready();
            drop(foreign());
            let wakers: Vec<Waker> =
                self.alive.borrow_mut().iter_mut().filter_map(|(_, waker)| waker.take()).collect();
            if wakers.is_empty() {
                // What is left was woken by a thread that has not put it on the wake list yet: it is about
                // to. If it never does, the task is leaked, as is one that is woken after the end.
                patience -= 1;
                if self.is_idle() && self.alive.borrow().is_empty() || patience == 0 {
                    return;
                }
                std::thread::yield_now();
            }
            // A task that is idle becomes a Runnable in the queue; one that is on the wake list is found
            // there.
            for waker in wakers {
                waker.wake();
            }
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        // Of futures that destructors have polled since, and leaked.
        self.drop_stop_waiters();
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
