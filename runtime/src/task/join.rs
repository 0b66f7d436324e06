//! Handles on tasks.

use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use async_task::{FallibleTask, Task};

use super::Meta;
use crate::contained::{Kept, Payload, Shield, panic_text};
use crate::{Error, ErrorKind};

/// What a task leaves.
type Output<T> = Kept<Result<T, Payload>>;

/// A handle on a spawned task: await it for its output, [`detach`](Self::detach) it, or drop it to abort the
/// task.
///
/// # Cancellation
/// Dropping the handle aborts the task: its future is dropped on its own core in a later tick, with all that
/// dropping the future means for the operations inside.
#[must_use = "dropping the handle aborts the task: await it, keep it, or call detach()"]
pub struct JoinHandle<T> {
    task: FallibleTask<Output<T>, Meta>,
    /// The waker that the task calls.
    waker: Shield,
    _this_core: PhantomData<*const ()>,
}

impl<T> JoinHandle<T> {
    pub(super) fn new(task: Task<Output<T>, Meta>) -> Self {
        Self { task: task.fallible(), waker: Shield::default(), _this_core: PhantomData }
    }

    /// Lets the task run on by itself.
    pub fn detach(self) {
        self.task.detach();
    }

    /// Aborts the task without waiting; the same as dropping the handle.
    pub fn abort(self) {
        drop(self);
    }

    /// Aborts the task and waits until its future has been dropped. `Some` if it had finished before.
    ///
    /// # Cancellation
    /// The task is aborted; nothing waits for it.
    pub async fn cancel(self) -> Option<T> {
        let Self { task, mut waker, .. } = self;
        let mut cancelled = pin!(task.cancel());
        let output = poll_fn(|cx| cancelled.as_mut().poll(&mut Context::from_waker(waker.of(cx.waker()))));
        output.await?.take().ok()
    }

    /// Whether the task has finished or was aborted.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { task, waker, .. } = &mut *self;
        Pin::new(task).poll(&mut Context::from_waker(waker.of(cx.waker()))).map(|end| {
            match end.map(Kept::take) {
                Some(Ok(output)) => Ok(output),
                Some(Err(payload)) => Err(JoinError::Panicked(payload)),
                None => Err(JoinError::Aborted),
            }
        })
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}

/// Why a task has no output.
#[non_exhaustive]
pub enum JoinError {
    /// It panicked, with this.
    Panicked(Box<dyn std::any::Any + Send>),
    /// It was aborted, or its core ended before it did.
    Aborted,
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Panicked(payload) => f.debug_tuple("Panicked").field(&panic_text(payload)).finish(),
            JoinError::Aborted => f.write_str("Aborted"),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Panicked(payload) => write!(f, "the task panicked: {}", panic_text(payload)),
            JoinError::Aborted => f.write_str("the task was aborted before it finished"),
        }
    }
}

impl std::error::Error for JoinError {}

/// So that `?` serves in a task that awaits another: [`ErrorKind::Panicked`] or [`ErrorKind::Ended`].
impl From<JoinError> for Error {
    fn from(e: JoinError) -> Self {
        let kind = match e {
            JoinError::Panicked(_) => ErrorKind::Panicked,
            JoinError::Aborted => ErrorKind::Ended,
        };
        Error::new(kind, e.to_string())
    }
}
