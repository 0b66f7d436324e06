//! Tasks that wait for the runtime to be asked to stop.

use std::cell::{Cell, RefCell};
use std::task::Waker;

use slab::Slab;

use crate::contained::contained;

/// The wakers of those that wait. A server has one for each idle connection, so adding and removing takes
/// constant time, and no entry outlives its future.
#[derive(Default)]
pub(crate) struct StopWaiters {
    /// A place is its future's until that is dropped; it is empty once the waker was called.
    wakers: RefCell<Slab<Option<Waker>>>,
    /// All that wait were told, and nobody waits any more.
    told: Cell<bool>,
}

impl StopWaiters {
    /// Remembers one that waits, under `key` once it has one.
    pub(crate) fn wait(&self, key: &mut Option<usize>, waker: &Waker) {
        let kept = |kept: &Option<Waker>| kept.as_ref().is_some_and(|kept| kept.will_wake(waker));
        if key.is_some_and(|key| self.wakers.borrow().get(key).is_some_and(kept)) {
            return;
        }
        // Cloned and dropped with nothing borrowed: either may run code that uses the list.
        let mut waker = Some(waker.clone());
        match *key {
            Some(key) => {
                let mut wakers = self.wakers.borrow_mut();
                wakers.get_mut(key).into_iter().for_each(|kept| std::mem::swap(kept, &mut waker));
            }
            None => *key = Some(self.wakers.borrow_mut().insert(waker.take())),
        }
    }

    /// Forgets one that waited.
    pub(crate) fn forget(&self, key: usize) {
        let waker = self.wakers.borrow_mut().try_remove(key).flatten();
        // A destructor comes here, and its thread may be panicking.
        if let Some(waker) = waker {
            contained("the destructor of a waker", || drop(waker));
        }
    }

    /// Whether some wait that were not told.
    pub(crate) fn must_be_told(&self) -> bool {
        !self.told.get() && !self.wakers.borrow().is_empty()
    }

    /// The runtime was asked to stop: wakes all that wait for it.
    pub(crate) fn wake_all(&self) {
        self.told.set(true);
        self.each(Waker::wake);
    }

    /// Takes the wakers out one by one: what `f` runs may change the list.
    fn each(&self, f: impl Fn(Waker)) {
        let mut key = 0;
        while key < self.wakers.borrow().capacity() {
            let waker = self.wakers.borrow_mut().get_mut(key).and_then(Option::take);
            key += 1;
            waker.into_iter().for_each(&f);
        }
    }

    /// Drops the wakers.
    pub(crate) fn drop_all(&self) {
        self.each(|waker| contained("the destructor of a waker", || drop(waker)));
    }
}

impl Drop for StopWaiters {
    fn drop(&mut self) {
        // Of futures that destructors have polled since, and leaked.
        self.drop_all();
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
