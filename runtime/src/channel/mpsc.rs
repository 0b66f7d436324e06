//! A bounded queue from many senders to one receiver, in the receiver's memory.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;

use crate::block_on::block_on;
use crate::core::Core;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::queue::{Queue, Refused};
use crate::task::shield::Shield;

/// What both sides share.
struct Shared<T> {
    queue: Queue<T>,
    /// The receiver's waker, while it waits. A sender puts its message first and then wakes; the receiver
    /// registers first and then checks once more. One of the two sees the other, because both change the
    /// waker's one word. The waker is a [`Shield`]ed one. Otherwise one that panics while it is registered
    /// would be the last that this cell takes, and one that panics when it is woken would do so in a sender,
    /// or in its destructor.
    receiver: AtomicWaker,
    /// Never more than the references of the `Arc` around this, whose limit ends the process long before this
    /// count could wrap.
    senders: AtomicUsize,
}

/// Makes a channel of `capacity` messages whose queue lies in the memory of the current core, which receives.
///
/// # Panics
/// On a thread that is no core's, and for a capacity of 0.
pub fn bounded<T: Send + 'static>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a channel holds at least one message");
    Core::with(|_| ());
    let shared = Arc::new(Shared {
        queue: Queue::new(capacity),
        receiver: AtomicWaker::new(),
        senders: AtomicUsize::new(1),
    });
    let sender = Sender { shared: Arc::clone(&shared) };
    (sender, Receiver { shared, waker: Shield::default(), _this_core: PhantomData })
}

/// The sending side of [`bounded`]. A clone costs two counts. Any thread may use it.
pub struct Sender<T: Send + 'static> {
    shared: Arc<Shared<T>>,
}

impl<T: Send + 'static> Sender<T> {
    /// Sends a message as soon as the queue has a free place.
    ///
    /// Messages of one sender arrive in their order.
    ///
    /// # Errors
    /// The receiver has been dropped; the message comes back. A message that was sent before that and not
    /// received is dropped with the queue.
    ///
    /// # Cancellation
    /// A future that is dropped before there was a free place has sent nothing, and its message is dropped.
    pub async fn send(&self, message: T) -> Result<(), SendError<T>> {
        crate::task::consume_budget().await;
        self.shared.queue.put(message, || self.shared.receiver.wake()).await.map_err(SendError)
    }

    /// Sends a message if the queue has a free place now.
    ///
    /// # Errors
    /// The queue is full, or the receiver has been dropped. The message comes back.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        match self.shared.queue.try_put(message) {
            Ok(()) => {
                self.shared.receiver.wake();
                Ok(())
            }
            Err(Refused::Full(message)) => Err(TrySendError::Full(message)),
            Err(Refused::Closed(message)) => Err(TrySendError::Closed(message)),
        }
    }

    /// Sends as [`send`](Self::send) does, and blocks the thread until the queue has a free place. It is for
    /// threads outside the runtime.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    ///
    /// # Panics
    /// On a core's thread, which must not sleep.
    #[track_caller]
    pub fn blocking_send(&self, message: T) -> Result<(), SendError<T>> {
        block_on(self.send(message))
    }

    /// Whether the receiver has been dropped. If not, it may be dropped at any time.
    pub fn is_closed(&self) -> bool {
        self.shared.queue.is_closed()
    }
}

impl<T: Send + 'static> Clone for Sender<T> {
    fn clone(&self) -> Self {
        // This sender keeps the count above zero meanwhile.
        self.shared.senders.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T: Send + 'static> Drop for Sender<T> {
    fn drop(&mut self) {
        // Release: a receiver that sees this sender gone also sees what it has sent.
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.receiver.wake();
        }
    }
}

impl<T: Send + 'static> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

/// The receiving side of [`bounded`]. It stays on its core.
///
/// Dropping it closes the channel: senders get their messages back, also those that wait, and the messages in
/// the queue are dropped.
pub struct Receiver<T: Send + 'static> {
    shared: Arc<Shared<T>>,
    /// The waker of the task that waits, as senders see it. The crate's cell clones and drops wakers while it
    /// is locked, and a panic there would leave it locked.
    waker: Shield,
    _this_core: PhantomData<*const ()>,
}

impl<T: Send + 'static> Receiver<T> {
    /// Receives the next message; `None` when all senders have gone and everything was received.
    ///
    /// Only one task at a time may wait, so it takes the receiver by `&mut`.
    ///
    /// # Cancellation
    /// Safe: a message is taken only when it is returned.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        // A queue that is always full must not keep the core.
        if Core::try_with(|core| core.budget.poll(cx).is_pending()).unwrap_or(false) {
            return Poll::Pending;
        }
        let end = match self.try_recv() {
            Err(TryRecvError::Empty) => {
                self.shared.receiver.register(self.waker.of(cx.waker()));
                self.try_recv()
            }
            end => end,
        };
        match end {
            Err(TryRecvError::Empty) => Poll::Pending,
            Ok(message) => {
                Core::try_with(|core| core.budget.spend());
                Poll::Ready(Some(message))
            }
            Err(TryRecvError::Closed) => Poll::Ready(None),
        }
    }

    /// Receives the next message, if there is one now.
    ///
    /// # Errors
    /// There is none; the error says whether there may be one later.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        if let Some(message) = self.take() {
            return Ok(message);
        }
        // Acquire: a sender that has gone had sent before.
        if self.shared.senders.load(Ordering::Acquire) > 0 {
            return Err(TryRecvError::Empty);
        }
        self.take().ok_or(TryRecvError::Closed)
    }

    fn take(&self) -> Option<T> {
        let message = self.shared.queue.try_take()?;
        self.shared.queue.freed(1);
        Some(message)
    }

    /// How many messages are in the queue.
    pub fn len(&self) -> usize {
        self.shared.queue.len()
    }

    /// Whether there is no message in the queue.
    pub fn is_empty(&self) -> bool {
        self.shared.queue.is_empty()
    }
}

impl<T: Send + 'static> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.queue.close();
        drop(self.shared.receiver.take());
    }
}

impl<T: Send + 'static> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// The receiver has gone. Holds the message that was not sent.
pub struct SendError<T>(pub T);

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendError(..)")
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the channel's receiver is gone, so nothing was sent")
    }
}

impl<T> std::error::Error for SendError<T> {}

/// Why a message was not sent at once. Holds the message.
#[non_exhaustive]
pub enum TrySendError<T> {
    /// The queue is full.
    Full(T),
    /// The receiver has gone.
    Closed(T),
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the channel is full",
            Self::Closed(_) => "the channel's receiver is gone, so nothing was sent",
        })
    }
}

impl<T> std::error::Error for TrySendError<T> {}

/// Why [`Receiver::try_recv`] has no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryRecvError {
    /// There is none now.
    Empty,
    /// There never will be one: all senders have gone.
    Closed,
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the channel is empty",
            Self::Closed => "the channel is empty and all its senders are gone",
        })
    }
}

impl std::error::Error for TryRecvError {}
