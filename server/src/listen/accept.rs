//! Accepting on one core: until the runtime is told to stop or the listener is closed, and then what has connected by then.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

use annulus::net::{Connection, Family, Listener};

use crate::first_of::{First, first_of};

/// Accepts and hands each connection to `welcome`, until the runtime is told to stop or `closing` is set. What the kernel had
/// accepted by then is handed over as well: it would be reset with the listener.
///
/// # Errors
/// When accepting fails for good. Running out of file descriptors does not: the runtime rests and tries again.
pub(crate) async fn accept<F: Family>(
    listener: Listener<F>,
    closing: &Closing,
    mut welcome: impl FnMut(Connection<F>),
) -> annulus::Result<()> {
    let end = async { first_of(annulus::cores::stopping(), closing.wait()).await };
    let mut end = std::pin::pin!(end);
    while let First::A(accepted) = first_of(listener.accept(), end.as_mut()).await {
        welcome(accepted?);
    }
    listener.drain().await.into_iter().for_each(welcome);
    Ok(())
}

/// Tells the one task that accepts to come to its end.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    is_set: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Closing {
    /// Sets it, for good.
    pub(crate) fn set(&self) {
        self.is_set.set(true);
        let waiting = self.waiting.borrow_mut().take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    async fn wait(&self) {
        poll_fn(|cx| {
            if self.is_set.get() {
                return Poll::Ready(());
            }
            // The old waker is dropped after the borrow.
            drop(self.waiting.replace(Some(cx.waker().clone())));
            Poll::Pending
        })
        .await;
    }
}
