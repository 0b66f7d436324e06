//! A single value from one thread to another, in futures-channel's cell.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::block_on::block_on;
use crate::sync::oneshot as cell;

/// Makes a channel for one value. Both sides may be on any thread.
///
/// ```
/// # fn main() -> annulus::Result<()> {
/// let (sender, receiver) = annulus::channel::oneshot();
/// std::thread::spawn(move || sender.send(42));
/// assert_eq!(receiver.blocking_recv().map_err(annulus::Error::other)?, 42);
/// # annulus::Ok(())
/// # }
/// ```
///
/// # Cancellation
/// Dropping the receiver tells the sender; a value that was sent and not received is dropped with it.
pub fn oneshot<T>() -> (OneSender<T>, OneReceiver<T>) {
    let (sender, receiver) = cell::oneshot();
    (OneSender(sender), OneReceiver(receiver))
}

/// The sending side of [`oneshot()`].
#[derive(Debug)]
pub struct OneSender<T>(cell::CellSender<T>);

impl<T> OneSender<T> {
    /// Sends the value.
    ///
    /// # Errors
    /// The receiver has gone. The value comes back. A receiver that goes later drops the value.
    pub fn send(self, value: T) -> Result<(), T> {
        self.0.send(value)
    }

    /// Whether the receiver has gone.
    pub fn is_closed(&self) -> bool {
        self.0.is_canceled()
    }

    /// Completes when the receiver has gone, so that work that nobody waits for can be given up.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn closed(&mut self) {
        poll_fn(|cx| self.0.poll_canceled(cx)).await;
    }
}

/// The receiving side of [`oneshot()`]: awaiting it returns the value.
///
/// # Cancellation
/// Dropping it tells the sender.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct OneReceiver<T>(cell::CellReceiver<T>);

impl<T> OneReceiver<T> {
    /// Blocks the thread until the value comes. It is for threads outside the runtime.
    ///
    /// # Errors
    /// The sender has gone and has sent nothing.
    ///
    /// # Panics
    /// On a core's thread, which must not sleep.
    #[track_caller]
    pub fn blocking_recv(self) -> Result<T, Vanished> {
        block_on(self)
    }
}

impl<T> Future for OneReceiver<T> {
    type Output = Result<T, Vanished>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(|_| Vanished)
    }
}

/// The sender has gone and has sent nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vanished;

impl fmt::Display for Vanished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sender is gone and has sent nothing")
    }
}

impl std::error::Error for Vanished {}
