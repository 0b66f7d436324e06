//! Handles on tasks.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::handle::Handle;
use crate::contained::panic_text;
use crate::core::shared::CoreShared;
use crate::{Error, ErrorKind};

/// A handle on a spawned task: await it for its output, [`detach`](Self::detach) it, or drop it to abort the
/// task.
///
/// # Cancellation
/// Dropping the handle aborts the task: its future is dropped on its own core in a later tick, with all that
/// dropping the future means for the operations inside.
#[must_use = "dropping the handle aborts the task: await it, keep it, or call detach()"]
pub struct JoinHandle<T> {
    task: Handle<T, CoreShared>,
}

// Nothing of the output is pinned by its handle.
impl<T> Unpin for JoinHandle<T> {}

// A handle is changed by whole steps: a panic cannot leave it in the middle of one.
impl<T> UnwindSafe for JoinHandle<T> {}
impl<T> RefUnwindSafe for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    pub(super) fn new(task: Handle<T, CoreShared>) -> Self {
        Self { task }
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
        let mut task = self.task;
        task.abort();
        poll_fn(|cx| task.poll(cx.waker())).await?.ok()
    }

    /// Whether the task has finished or was aborted.
    pub fn is_finished(&self) -> bool {
        self.task.is_over()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.task.poll(cx.waker()).map(|end| match end {
            Some(Ok(output)) => Ok(output),
            Some(Err(payload)) => Err(JoinError::Panicked(payload)),
            None => Err(JoinError::Aborted),
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
