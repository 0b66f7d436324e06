//! A cell for one value from one thread to another. It is futures-channel's, in ends that contain panics of
//! wakers and destructors.
//!
//! The only foreign code that the crate calls under its locks is the destructor of a waker that another
//! replaces. Its locks are only tried: a waker that uses the same cell finds a lock taken and goes on, and
//! the thread that holds the lock checks again afterwards.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_channel::oneshot;
pub(crate) use futures_channel::oneshot::Canceled;

use crate::contained::{Kept, contained};

/// The sender's end. Dropping it tells the receiver.
#[derive(Debug)]
pub(crate) struct CellSender<T>(Kept<oneshot::Sender<T>>);

/// A future of the value: the receiver's end. Dropping it tells the sender.
#[derive(Debug)]
pub(crate) struct CellReceiver<T>(Kept<oneshot::Receiver<T>>);

pub(crate) fn oneshot<T>() -> (CellSender<T>, CellReceiver<T>) {
    let (sender, receiver) = oneshot::channel();
    (CellSender(Kept::new(sender)), CellReceiver(Kept::new(receiver)))
}

impl<T> CellSender<T> {
    /// Sends the value. It comes back when the receiver has gone.
    pub(crate) fn send(self, value: T) -> Result<(), T> {
        let mut sent = Ok(());
        // The value is stored before the receiver is woken. A panic of that waker leaves the value sent.
        contained("the waker of a receiver", || sent = self.0.take().send(value));
        sent
    }

    pub(crate) fn is_canceled(&self) -> bool {
        self.0.get().is_some_and(oneshot::Sender::is_canceled)
    }

    /// Ready when the receiver has gone.
    pub(crate) fn poll_canceled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.get_mut().map_or(Poll::Ready(()), |sender| sender.poll_canceled(cx))
    }
}

impl<T> Future for CellReceiver<T> {
    type Output = Result<T, Canceled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.get_mut().map_or(Poll::Ready(Err(Canceled)), |receiver| Pin::new(receiver).poll(cx))
    }
}

impl<T> Drop for CellReceiver<T> {
    fn drop(&mut self) {
        // This comes first: the crate drops the receiver's waker before it wakes the sender, and a panic of
        // that drop would keep the sender asleep.
        contained("the waker of a sender", || {
            self.0.get_mut().into_iter().for_each(oneshot::Receiver::close)
        });
    }
}
