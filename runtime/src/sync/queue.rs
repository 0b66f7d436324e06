//! A bounded queue from many threads to one, in the receiver's memory, with a wait for room that stops
//! nobody.
//!
//! The places are a crossbeam channel's, allocated and touched by whoever makes the queue: made on a core's
//! pinned thread they lie on its node. Who finds no place [waits in a list](super::space) and is told in turn
//! when places become free.
//!
//! # Closing
//!
//! A crossbeam channel keeps what is in it when its receiver goes, until its last sender goes too: a message
//! would be neither received nor dropped, and whoever waits for what becomes of it would wait for ever. So
//! the queue has a latch of its own. The owner closes the latch and then takes everything out; a sender puts
//! its message in and then looks at the latch, and if it is closed takes everything out as well. Each writes
//! one word and reads the other's, with a sequentially consistent fence between; so either the owner sees the
//! message or the sender sees the latch, and nothing stays behind.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::contained::contained;
use crate::sync::atomic::{AtomicBool, Ordering, fence};
use crate::sync::space::SpaceWaiters;

/// Says that a queue takes no more.
pub(crate) struct Latch(AtomicBool);

impl Latch {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Before a message is put: spares the trouble, and promises nothing.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// After a message was put. True: the caller has to take out what there is, for the owner may have done
    /// so before.
    #[must_use]
    pub(crate) fn closed_meanwhile(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed)
    }

    /// After it the owner takes out what there is.
    pub(crate) fn close(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}

/// The queue. Shared by both sides.
pub(crate) struct Queue<T> {
    places: Sender<T>,
    messages: Receiver<T>,
    /// Who found no place waits here.
    space: SpaceWaiters,
    latch: Latch,
}

/// Why a message was not put, with the message.
pub(crate) enum Refused<T> {
    Full(T),
    Closed(T),
}

/// Tries to put the message, and keeps it where there is no room: `None`.
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
    /// A queue of so many places, at least one, in the memory of the calling thread.
    pub(crate) fn new(places: usize) -> Self {
        debug_assert!(places > 0);
        let (places, messages) = bounded(places);
        Self { places, messages, space: SpaceWaiters::new(), latch: Latch::new() }
    }

    /// Puts a message, if there is room. From any thread; afterwards the receiver is to be told.
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
            // The queue holds a receiver itself, so its own latch is what closes it.
            Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => Err(Refused::Full(back)),
        }
    }

    /// Puts a message once there is room, and calls `told` when it has.
    ///
    /// # Errors
    /// The queue is closed, or was before there was room: the message comes back.
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

    /// Takes the oldest message. The receiver tells of the room that this makes.
    pub(crate) fn try_take(&self) -> Option<T> {
        self.messages.try_recv().ok()
    }

    /// So many messages were taken: as many that wait may look again.
    pub(crate) fn freed(&self, places: usize) {
        self.space.made(places);
    }

    /// Whether the receiver takes no more.
    pub(crate) fn is_closed(&self) -> bool {
        self.latch.is_closed()
    }

    /// Refuses what comes from now on and drops what is there. The receiver only.
    pub(crate) fn close(&self) {
        self.latch.close();
        // They look again and find the queue closed.
        self.space.close();
        self.empty();
    }

    fn empty(&self) {
        // Dropping a message runs code that is not ours: one after the other, with nothing borrowed.
        while let Some(message) = self.try_take() {
            contained("the destructor of a message that was not received", || drop(message));
        }
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        // What was put into a queue whose owner has forgotten to close it.
        self.empty();
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
