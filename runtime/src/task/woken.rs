//! A task on its way to its core, from a thread that has woken it.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use super::raw::{self, Owner, Task};
use super::state::AfterWake;
use crate::sync::mailbox::{Link, Node};

/// A task on a wake list, or on its way there. It keeps the task's memory, not its future. Dropped, the wake
/// is lost.
pub(crate) struct Woken<O: Owner>(Task<O>);

// SAFETY: it uses the task's shared word and its link only, which any thread may, and frees memory in which
// there is neither a future nor an output.
unsafe impl<O: Owner> Send for Woken<O> {}

impl<O: Owner> Woken<O> {
    /// Takes over a hold on a task that the state has told this thread to put on the list.
    ///
    /// # Safety
    /// That is so.
    pub(super) unsafe fn of(task: Task<O>) -> Self {
        Self(task)
    }

    /// The core takes the task in. `Push`: it is to be put into the queue. It is held no more by this.
    pub(super) fn taken(self) -> (Task<O>, AfterWake) {
        let task = ManuallyDrop::new(self).0;
        // SAFETY: this held the task, and only the state has it released.
        (task, unsafe { (*task.as_ptr()).state.taken() })
    }
}

impl<O: Owner> Drop for Woken<O> {
    fn drop(&mut self) {
        // SAFETY: this holds the task, and does so no more.
        unsafe { drop_there(self.0) };
    }
}

// SAFETY: a place on the wake list is one of a task's holds, and the state lets one thread at a time put the
// task there (`State::wake_there`), so this value is the only one for its pointer. The pointer is the task's
// allocation, which the hold keeps, and the link lies in it; into_raw and from_raw only convert.
unsafe impl<O: Owner> Node for Woken<O> {
    fn link(&self) -> &Link {
        // SAFETY: the task is held.
        unsafe { &(*self.0.as_ptr()).link }
    }

    fn into_raw(self) -> NonNull<()> {
        ManuallyDrop::new(self).0.cast()
    }

    unsafe fn from_raw(raw: NonNull<()>) -> Self {
        Self(raw.cast())
    }
}

/// Gives a hold up, on any thread.
///
/// # Safety
/// The caller had it.
#[inline(never)]
pub(super) unsafe fn drop_there<O: Owner>(task: Task<O>) {
    // SAFETY: the caller's promise. Others may free the task as soon as its word has changed, and no
    // reference to the header is left then.
    unsafe {
        if (*task.as_ptr()).state.drop_there() {
            raw::free(task);
        }
    }
}
