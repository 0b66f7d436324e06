use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{RawWaker, RawWakerVTable, Wake};

use super::*;
use crate::testing::BadWakers;

thread_local! {
    static WAITERS: StopWaiters = StopWaiters::default();
    /// Calls of the functions of `VTABLE`.
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

/// Waits for the stop, and no more: the list changes under whoever looks at it.
fn changes_the_list() {
    CALLS.set(CALLS.get() + 1);
    WAITERS.with(|waiters| {
        let mut key = None;
        waiters.wait(&mut key, Waker::noop());
        waiters.forget(key.expect("it has a place"));
    });
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(
    |data| {
        changes_the_list();
        RawWaker::new(data, &VTABLE)
    },
    |_| changes_the_list(),
    |_| changes_the_list(),
    |_| changes_the_list(),
);

/// A waker that uses the list of those that wait for the stop whenever it is cloned, called or dropped.
fn comes_back() -> Waker {
    // SAFETY: no function of the table looks at the pointer; what they touch is of the calling thread.
    unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &VTABLE)) }
}

/// Seen to fail: with the waker cloned, or the one before dropped, while the list is borrowed; and with the
/// one of a place that is given up dropped so.
#[test]
fn wakers_may_use_the_list_of_those_that_wait_for_the_stop() {
    WAITERS.with(|waiters| {
        let mut key = None;
        waiters.wait(&mut key, &comes_back());
        // The clone, and the one that was cloned.
        assert_eq!(CALLS.take(), 2);
        let place = key;
        waiters.wait(&mut key, Waker::noop());
        assert_eq!((CALLS.take(), key), (1, place));
        waiters.wait(&mut key, &comes_back());
        waiters.forget(key.take().expect("it has a place"));
        assert_eq!(CALLS.take(), 3);
        waiters.wait(&mut key, &comes_back());
        waiters.wake_all();
        assert_eq!(CALLS.take(), 3);
        waiters.forget(key.expect("it has a place"));
    });
}

/// Counts its calls, and takes a place of the list away when it is called.
struct Forgets(usize, AtomicUsize);

impl Wake for Forgets {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Ordering::Relaxed);
        WAITERS.with(|waiters| waiters.forget(self.0));
    }
}

/// Seen to fail: with all wakers taken out of the list before the first is called, the second is called
/// though its future has gone.
#[test]
fn who_leaves_while_others_are_told_of_the_stop_is_not_told() {
    WAITERS.with(|waiters| {
        let [first, second, third] = [1, 2, 0].map(|other| Arc::new(Forgets(other, AtomicUsize::new(0))));
        for waker in [&first, &second, &third] {
            waiters.wait(&mut None, &Arc::clone(waker).into());
        }
        waiters.wake_all();
        let calls = [&first, &second, &third].map(|waker| waker.1.load(Ordering::Relaxed));
        assert_eq!(calls, [1, 0, 1]);
        assert!(waiters.wakers.borrow().get(2).is_some());
        waiters.forget(2);
    });
}

/// Seen to fail: with the list dropped as it is, by an abort.
#[test]
fn wakers_that_panic_when_they_are_dropped_are_dropped_one_by_one() {
    let waiters = StopWaiters::default();
    let gone = BadWakers::give(3, |waker| waiters.wait(&mut None, waker));
    drop(waiters);
    assert_eq!(gone.dropped(), 3);
}

/// Seen to fail, by an abort: with the waker dropped as it is.
#[test]
fn a_wait_for_the_stop_whose_waker_panics_may_be_dropped_by_a_thread_that_panics() {
    struct Leaves<'a>(&'a StopWaiters, usize);
    impl Drop for Leaves<'_> {
        fn drop(&mut self) {
            self.0.forget(self.1);
        }
    }
    let (waiters, mut key) = (StopWaiters::default(), None);
    let gone = BadWakers::give(1, |waker| waiters.wait(&mut key, waker));
    let leaves = Leaves(&waiters, key.expect("it has a place"));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _leaves = leaves;
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert_eq!((gone.dropped(), waiters.must_be_told()), (1, false));
}
