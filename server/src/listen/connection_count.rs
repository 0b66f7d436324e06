//! How many connections a core has.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Counts the connections of a core, and wakes the task that waits for the last one's end.
#[derive(Debug, Default)]
pub(crate) struct ConnectionCount {
    present: Cell<usize>,
    waiting: RefCell<Option<Waker>>,
}

/// One connection in the count. It is taken out when this is dropped, also by a panic or an abort.
#[derive(Debug)]
pub(crate) struct ConnectionGuard(Rc<ConnectionCount>);

impl ConnectionCount {
    /// One more, until the guard is dropped.
    pub(crate) fn enter(connections: &Rc<Self>) -> ConnectionGuard {
        connections.present.set(connections.present.get() + 1);
        ConnectionGuard(Rc::clone(connections))
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
        if left == 0
            && let Some(waker) = self.0.waiting.borrow_mut().take()
        {
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
