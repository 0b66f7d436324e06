//! A clock that is read all the time.
//!
//! A timer of the runtime sleeps in the kernel, and a wake from there costs tens of microseconds, which would
//! be in every latency. The driver has its CPU for itself, so it reads the clock after each round instead.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::Instant;

/// Who waits for which moment.
#[derive(Default)]
pub(super) struct Clock {
    due: RefCell<BinaryHeap<Reverse<(Instant, usize)>>>,
    wakers: RefCell<slab::Slab<Waker>>,
}

impl Clock {
    /// Waits for `moment`, and says whether it was still to come. Somebody must [`tick`](Self::tick_while).
    pub(super) async fn until(&self, moment: Instant) -> bool {
        let mut waits = false;
        poll_fn(|cx| {
            if moment <= Instant::now() {
                return Poll::Ready(());
            }
            if !waits {
                waits = true;
                let key = self.wakers.borrow_mut().insert(cx.waker().clone());
                self.due.borrow_mut().push(Reverse((moment, key)));
            }
            Poll::Pending
        })
        .await;
        waits
    }

    /// Wakes whose moment has come, turn after turn, as long as `go_on` says so.
    pub(super) async fn tick_while(&self, go_on: impl Fn() -> bool) {
        while go_on() {
            let now = Instant::now();
            while let Some(waker) = self.next_by(now) {
                waker.wake();
            }
            annulus::yield_now().await;
        }
    }

    fn next_by(&self, now: Instant) -> Option<Waker> {
        let mut due = self.due.borrow_mut();
        let Reverse((_, key)) = due.peek().filter(|Reverse((moment, _))| *moment <= now).copied()?;
        due.pop();
        Some(self.wakers.borrow_mut().remove(key))
    }
}
