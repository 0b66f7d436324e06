//! Asking the kernel for an operation on behalf of a task: the futures of operations.
//!
//! The future keeps only the key of its operation. A future that is dropped before the answer was seen
//! cancels the operation, whose memory stays in place until the kernel has answered ([`crate::op`]).

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::Core;
use crate::op::Operation;
use crate::op::slots::{Key, Outcome, Polled};

/// What a finished operation leaves: its output, or only its result while the kernel still holds its memory.
pub(crate) enum Finished<O> {
    /// The operation is over.
    Whole(O),
    /// A result came first, and a notification will give the memory back later (zero-copy sends).
    Early(Outcome),
}

/// A single operation that the kernel was asked for. If it is dropped before the answer was seen, the
/// operation is cancelled, and its memory stays in place until the kernel has answered.
#[must_use = "dropped, it is cancelled"]
pub(crate) struct InFlight<T: Operation> {
    /// `None` after the answer was seen.
    key: Option<Key>,
    _operation: PhantomData<*const T>,
}

impl<T: Operation> InFlight<T> {
    /// Asks for it on behalf of the task behind `waker`.
    #[inline(always)]
    pub(crate) fn new(core: &Core, operation: T, waker: &Waker) -> Self {
        Self { key: Some(core.ops.submit(&core.ring, operation, waker)), _operation: PhantomData }
    }

    /// Polls for the answer.
    /// # Panics
    /// When the answer was seen already.
    #[inline(always)]
    pub(crate) fn poll(&mut self, core: &Core, waker: &Waker) -> Poll<Finished<T::Output>> {
        let Some(key) = self.key else { polled_again(T::NAME) };
        // SAFETY: a `T` was submitted under this key (`new`).
        let polled: Polled<T> = unsafe { core.ops.poll(key, waker) };
        let finished = match polled {
            Polled::Pending => return Poll::Pending,
            Polled::Done(outcome, operation) => {
                self.key = None;
                Finished::Whole(operation.complete(outcome))
            }
            Polled::Early(outcome) => {
                self.key = None;
                Finished::Early(outcome)
            }
        };
        core.budget.spend();
        Poll::Ready(finished)
    }
}

impl<T: Operation> Drop for InFlight<T> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            // Without a core the runtime has ended, and with it every operation of this thread.
            Core::try_with(|core| core.ops.abandon(&core.ring, key));
        }
    }
}

/// Panics, because a future is polled after its output was given.
#[cold]
pub(crate) fn polled_again(name: &str) -> ! {
    panic!("{name} polled after it was done")
}

/// The future of a single operation.
///
/// # Cancellation
/// Dropped before the first poll, it has asked the kernel for nothing. Dropped later, it behaves as
/// [`InFlight`].
pub(crate) struct OpFuture<T: Operation>(State<T>);

enum State<T: Operation> {
    New(T),
    InFlight(InFlight<T>),
    /// The answer was seen, or the operation panicked before it was asked for.
    Over,
}

impl<T: Operation> OpFuture<T> {
    pub(crate) fn new(operation: T) -> Self {
        Self(State::New(operation))
    }
}

// Nothing in the future is pinned: the operation moves out of it, into its cell, before the kernel is told of
// it.
impl<T: Operation> Unpin for OpFuture<T> {}

impl<T: Operation> Future for OpFuture<T> {
    type Output = Finished<T::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Core::with(|core| {
            if let State::InFlight(asked) = &mut self.0 {
                return asked.poll(core, cx.waker());
            }
            match std::mem::replace(&mut self.0, State::Over) {
                State::New(operation) => self.0 = State::InFlight(InFlight::new(core, operation, cx.waker())),
                State::InFlight(_) | State::Over => polled_again(T::NAME),
            }
            Poll::Pending
        })
    }
}

/// Asks the kernel for an operation that has one answer and no notification.
pub(crate) async fn ask<T: Operation>(operation: T) -> T::Output {
    match OpFuture::new(operation).await {
        Finished::Whole(output) => output,
        Finished::Early(_) => unreachable!("{} has no notification", T::NAME),
    }
}
