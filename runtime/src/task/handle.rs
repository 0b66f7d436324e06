//! The handle of a task, of which there is one, on the thread of the task's core.

use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::task::{Poll, Waker};

use super::raw::{self, Header, Output, Task, drop_contained};
use super::waker::Wakes;
use crate::contained::Kept;

/// The handle of a task. Dropped, it aborts the task.
pub(super) struct Handle<T, O: Wakes> {
    task: Task<O>,
    /// A pointer is not `Send`, and neither is this.
    _output: PhantomData<T>,
}

impl<T, O: Wakes> Handle<T, O> {
    /// The one handle of a task.
    ///
    /// # Safety
    /// The task was made just now ([`raw::new`]), of a future with this output, on this thread, which is its
    /// core's; and there is no other handle of it.
    pub(super) unsafe fn of(task: Task<O>) -> Self {
        Self { task, _output: PhantomData }
    }

    fn header(&self) -> &Header<O> {
        // SAFETY: a handle keeps its task, until `let_go`.
        unsafe { self.task.as_ref() }
    }

    /// Whether the task has finished or was aborted, and its future has been dropped.
    pub(super) fn is_over(&self) -> bool {
        self.header().state.is_over()
    }

    /// Has the future dropped in a later tick, if the task is not over.
    pub(super) fn abort(&self) {
        if !self.is_over() {
            self.header().state.abort();
            // Elsewhere the core has ended, and dropped the future.
            O::here(self.header().owner, |tasks| tasks.wake(self.task));
        }
    }

    /// The output once the task is over; `None` if it left none, or it was taken.
    pub(super) fn poll(&mut self, waker: &Waker) -> Poll<Option<Output<T>>> {
        if !self.is_over() {
            if self.header().is_awaited_by(waker) {
                return Poll::Pending;
            }
            // Cloning and dropping a waker runs code that is not ours. The task is looked at again after it.
            let waker = waker.clone();
            if !self.is_over() {
                drop_contained::<O>(self.header().set_awaiter(Some(waker)));
            }
            if !self.is_over() {
                return Poll::Pending;
            }
        }
        Poll::Ready(self.take_output())
    }

    fn take_output(&self) -> Option<Output<T>> {
        if !self.header().state.take_output() {
            return None;
        }
        let mut output = MaybeUninit::<Output<T>>::uninit();
        // SAFETY: the state has said that the output is there; it is of this type, and moved to `output`.
        unsafe {
            raw::move_output(self.task, output.as_mut_ptr().cast());
            Some(output.assume_init())
        }
    }

    /// Lets the task run on.
    pub(super) fn detach(self) {
        ManuallyDrop::new(self).let_go();
    }

    /// Gives the task up, as the last that is done with the handle.
    fn let_go(&self) {
        let output = self.take_output().map(Kept::new);
        let awaiter = self.header().set_awaiter(None);
        if self.header().state.drop_handle() {
            // SAFETY: the state has said so.
            unsafe { raw::free(self.task) };
        }
        // Last: these run code that is not ours.
        drop_contained::<O>(awaiter);
        drop(output);
    }
}

impl<T, O: Wakes> Drop for Handle<T, O> {
    fn drop(&mut self) {
        self.abort();
        self.let_go();
    }
}
