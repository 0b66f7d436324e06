//! A bounded queue from many threads to one, in the receiver's memory. A sender that finds it full waits
//! without blocking its thread.
//!
//! The places are a crossbeam channel's. The thread that makes the queue allocates and touches them, so those
//! of a core's pinned thread lie on its node. A sender that finds no free place [waits in a
//! list](super::space) and is told in turn when places become free.
//!
//! # Closing
//!
//! A crossbeam channel keeps what is in it when its receiver goes, until its last sender goes too: a message
//! would be neither received nor dropped, and a task that awaits its result would wait for ever. So the queue
//! has a latch of its own. The owner closes the latch and then takes everything out. A sender puts its
//! message in and then reads the latch; if the latch is closed it takes everything out as well. Each writes
//! one word and reads the other's, with a sequentially consistent fence in between. So either the owner sees
//! the message or the sender sees the closed latch, and nothing stays behind.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::contained::contained;
use crate::sync::atomic::{AtomicBool, Ordering, fence};
use crate::sync::space::SpaceWaiters;

/// Says that a queue takes no more messages.
pub(crate) struct Latch(AtomicBool);

impl Latch {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Whether it is closed, before a message is put. The answer saves work and promises nothing.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether it is closed, after a message was put. True: the caller has to take out all messages, because
    /// the owner may have done so before this one came.
    #[must_use]
    pub(crate) fn closed_meanwhile(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed)
    }

    /// Closes the latch. After it the owner takes out all messages.
    pub(crate) fn close(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}

/// The queue. Both sides share it.
pub(crate) struct Queue<T> {
    places: Sender<T>,
    messages: Receiver<T>,
    /// The senders that found it full.
    space: SpaceWaiters,
    latch: Latch,
}

/// Why a message was not put, with the message.
pub(crate) enum Refused<T> {
    Full(T),
    Closed(T),
}

/// Tries to put the message. `None`: the queue is full, and the message is kept.
fn retry<T>(message: &mut Option<T>, put: impl FnOnce(T) -> Result<(), Refused<T>>) -> Option<Result<(), T>> {
    match put(message.take()?) {
        Ok(()) => Some(Ok(())),
        Err(Refused::Closed(back)) => Some(Err(back)),
        Err(Refused::Full(back)) => {
            *message = Some(back);
            None
        }
    }
}

impl<T> Queue<T> {
    /// A queue of this many places, at least one, in the memory of the calling thread.
    pub(crate) fn new(places: usize) -> Self {
        debug_assert!(places > 0);
        let (places, messages) = bounded(places);
        Self { places, messages, space: SpaceWaiters::new(), latch: Latch::new() }
    }

    /// Puts a message, unless the queue is full. Any thread may call it; afterwards the caller notifies the
    /// receiver.
    pub(crate) fn try_put(&self, message: T) -> Result<(), Refused<T>> {
        if self.latch.is_closed() {
            return Err(Refused::Closed(message));
        }
        match self.places.try_send(message) {
            Ok(()) => {
                if self.latch.closed_meanwhile() {
                    self.empty();
                }
                Ok(())
            }
            // The queue itself holds a receiver, so the channel is never disconnected; the latch closes the
            // queue.
            Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => Err(Refused::Full(back)),
        }
    }

    /// Puts a message as soon as there is a free place, and calls `told` afterwards.
    ///
    /// # Errors
    /// The queue was closed before there was a free place. The message comes back.
    pub(crate) async fn put(&self, message: T, told: impl Fn()) -> Result<(), T> {
        let mut message = Some(message);
        self.space.find(|| retry(&mut message, |message| self.try_put(message))).await?;
        told();
        Ok(())
    }

    /// Messages in the queue.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there is nothing to take.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Takes the oldest message. The receiver then calls [`freed`](Self::freed).
    pub(crate) fn try_take(&self) -> Option<T> {
        self.messages.try_recv().ok()
    }

    /// Says that this many messages were taken. As many senders that wait try again.
    pub(crate) fn freed(&self, places: usize) {
        self.space.made(places);
    }

    /// Whether the receiver takes no more messages.
    pub(crate) fn is_closed(&self) -> bool {
        self.latch.is_closed()
    }

    /// Refuses later messages and drops those in the queue. Receiver only.
    pub(crate) fn close(&self) {
        self.latch.close();
        // They try again and find the queue closed.
        self.space.close();
        self.empty();
    }

    fn empty(&self) {
        // Dropping a message runs code that is not ours, so messages are dropped one after the other, with
        // nothing borrowed.
        while let Some(message) = self.try_take() {
            contained("the destructor of a message that was not received", || drop(message));
        }
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        // Drops what was put into a queue whose owner has not closed it.
        self.empty();
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
