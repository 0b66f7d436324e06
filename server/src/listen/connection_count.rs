//! How many connections a core has.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Connections whose memory is worth giving back when they have ended.
const MANY: usize = 1024;
/// Of this many one is left when most have gone.
const MOST: usize = 8;

/// Counts the connections of a core, and wakes the tasks that wait for the end of most, and of the last one.
#[derive(Debug, Default)]
pub(crate) struct ConnectionCount {
    present: Cell<usize>,
    /// The most since most had gone.
    peak: Cell<usize>,
    waiting: RefCell<Option<Waker>>,
    waiting_for_most: RefCell<Option<Waker>>,
}

/// One connection in the count. It is taken out when this is dropped, also by a panic or an abort.
#[derive(Debug)]
pub(crate) struct ConnectionGuard(Rc<ConnectionCount>);

impl ConnectionCount {
    /// One more, until the guard is dropped.
    pub(crate) fn enter(connections: &Rc<Self>) -> ConnectionGuard {
        let present = connections.present.get() + 1;
        connections.present.set(present);
        connections.peak.set(connections.peak.get().max(present));
        ConnectionGuard(Rc::clone(connections))
    }

    /// Waits until of many most have gone.
    pub(crate) async fn most_gone(&self) {
        std::future::poll_fn(|cx| {
            if self.have_most_gone() {
                self.peak.set(self.present.get());
                return Poll::Ready(());
            }
            *self.waiting_for_most.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn have_most_gone(&self) -> bool {
        self.peak.get() >= MANY && self.present.get() <= self.peak.get() / MOST
    }

    /// Waits until there is none.
    pub(crate) async fn gone(&self) {
        std::future::poll_fn(|cx| {
            if self.present.get() == 0 {
                return Poll::Ready(());
            }
            *self.waiting.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let left = self.0.present.get() - 1;
        self.0.present.set(left);
        let of_most = if self.0.have_most_gone() { self.0.waiting_for_most.take() } else { None };
        let of_all = if left == 0 { self.0.waiting.take() } else { None };
        for waker in of_most.into_iter().chain(of_all) {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Wake};

    use super::*;

    #[derive(Default)]
    struct Bell(AtomicBool);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn that_most_of_many_have_gone_is_told_once() {
        let connections = Rc::new(ConnectionCount::default());
        let enter = |count: usize| {
            (0..count).map(|_| ConnectionCount::enter(&connections)).collect::<Vec<ConnectionGuard>>()
        };
        let bell = Arc::new(Bell::default());
        let waker = Arc::clone(&bell).into();
        let mut cx = Context::from_waker(&waker);
        let rang = || bell.0.swap(false, Ordering::Relaxed);
        let mut gone = Box::pin(connections.most_gone());
        let few = enter(MANY - 1);
        assert!(gone.as_mut().poll(&mut cx).is_pending());
        drop(few);
        assert!(!rang());
        let mut many = enter(MANY);
        many.truncate(MANY / MOST + 1);
        assert!(!rang());
        many.pop();
        assert!(rang() && gone.as_mut().poll(&mut cx).is_ready());
        let mut gone = Box::pin(connections.most_gone());
        assert!(gone.as_mut().poll(&mut cx).is_pending());
        drop(many);
        assert!(!rang());
    }

    #[test]
    fn the_last_guest_to_leave_wakes_the_one_who_waits() {
        let connections = Rc::new(ConnectionCount::default());
        let (first, second) = (ConnectionCount::enter(&connections), ConnectionCount::enter(&connections));
        let bell = Arc::new(Bell::default());
        let waker = Arc::clone(&bell).into();
        let mut cx = Context::from_waker(&waker);
        let mut gone = pin!(connections.gone());
        assert!(gone.as_mut().poll(&mut cx).is_pending());
        drop(first);
        assert!(!bell.0.load(Ordering::Relaxed));
        drop(second);
        assert!(bell.0.load(Ordering::Relaxed));
        assert!(gone.as_mut().poll(&mut cx).is_ready());
    }
}
