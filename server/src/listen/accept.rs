//! Accepting on one core: until the runtime is told to stop or the listener is closed, and then what has
//! connected by then.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use annulus::net::{Connection, Family, Listener};
use futures_util::future::{Either, select};

use crate::limits::{Limits, Place};

/// Accepts and hands each connection to `welcome`, with its place, until the runtime is told to stop or
/// `closing` is set. While there is no place, connections wait in the backlog. What the kernel had accepted
/// at the end is handed over as well: it would be reset with the listener.
///
/// # Errors
/// When accepting fails for good. Running out of file descriptors does not: the runtime rests and tries
/// again.
pub(crate) async fn accept<F: Family>(
    listener: Rc<Listener<F>>,
    closing: &Closing,
    limits: &Rc<Limits>,
    mut welcome: impl FnMut(Connection<F>, Place),
) -> annulus::Result<()> {
    let (stopping, closed) = (pin!(annulus::cores::stopping()), pin!(closing.wait()));
    let mut end = select(stopping, closed);
    // A connection that has no place yet. It gets the next place, and is not lost at the end.
    let mut waits = None;
    loop {
        if limits.make_wait() {
            listener.one_by_one();
        }
        let next = async {
            if waits.is_none() {
                waits = Some(listener.accept().await?);
            }
            Ok::<_, annulus::Error>(limits.place().await)
        };
        let Either::Left((place, _)) = select(pin!(next), &mut end).await else { break };
        let place = place?;
        if let Some(connection) = waits.take() {
            welcome(connection, place);
        }
    }
    // Nobody else holds it but for a moment.
    let left = match Rc::into_inner(listener) {
        Some(listener) => listener.drain().await,
        None => Vec::new(),
    };
    for connection in waits.into_iter().chain(left) {
        welcome(connection, limits.place().await);
    }
    Ok(())
}

/// Tells the task that accepts to end.
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

    /// Waits until it is set.
    pub(crate) async fn wait(&self) {
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
