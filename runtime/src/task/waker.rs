//! The wakers of tasks. Each function asks first whether this is the thread of the task's core: then nobody
//! else uses the task's own word, and there is neither a locked instruction nor an allocation.
//!
//! On other threads a wake goes onto the core's [wake list](crate::sync::mailbox), through a link that lies
//! in the task itself: waking never waits, needs no memory and cannot fail. Once the core has ended its
//! futures have been dropped, so the wakers that are left wake nobody.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{RawWaker, RawWakerVTable};

use super::queue::Tasks;
use super::raw::{self, Header, Owner, Task};
use super::state::There;
use crate::sync::mailbox::{Link, Node};

/// How wakers reach the core of their task.
pub(crate) trait Wakes: Owner {
    /// Runs `f` with the tasks of `owner`, a pointer that may dangle, if this thread is that core's. It is
    /// always so while a task of the core runs.
    fn here<R>(owner: *const Self, f: impl FnOnce(&Tasks<Self>) -> R) -> Option<R>;

    /// Puts a woken task on the core's wake list, from any thread.
    fn take(&self, woken: Woken<Self>);
}

/// A task on a wake list, or on its way there. It keeps the task's memory, not its future. Dropped, the wake
/// is lost.
pub(crate) struct Woken<O: Owner>(Task<O>);

// SAFETY: it uses the task's shared word and its link only, which any thread may, and frees memory in which
// there is neither a future nor an output.
unsafe impl<O: Owner> Send for Woken<O> {}

impl<O: Owner> Woken<O> {
    /// The core takes the task in. `Push`: it is to be put into the queue. It is held no more by this.
    pub(super) fn taken(self) -> (Task<O>, There) {
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

/// The functions of wakers, for [`Owner::wakers`].
pub(crate) const fn functions<O: Wakes>() -> RawWakerVTable {
    RawWakerVTable::new(clone::<O>, wake::<O>, wake_by_ref::<O>, drop_waker::<O>)
}

/// The task of a waker.
///
/// # Safety
/// The pointer is that of a task's waker.
#[inline(always)]
unsafe fn task<O: Owner>(waker: *const ()) -> Task<O> {
    // SAFETY: the caller's promise: it is made of a task's pointer (`raw`), with the right to all of it.
    unsafe { Task::new_unchecked(waker.cast::<Header<O>>().cast_mut()) }
}

/// Runs `f` with the task's header and its core's tasks, if this is the core's thread.
///
/// # Safety
/// The caller holds the task.
#[inline(always)]
unsafe fn here<O: Wakes, R>(task: Task<O>, f: impl FnOnce(&Tasks<O>, &Header<O>) -> R) -> Option<R> {
    // SAFETY: the caller's promise.
    unsafe { O::here((*task.as_ptr()).owner, |tasks| f(tasks, task.as_ref())) }
}

unsafe fn clone<O: Wakes>(waker: *const ()) -> RawWaker {
    // SAFETY: the waker that is cloned holds its task.
    unsafe {
        let task = task::<O>(waker);
        if !here(task, |_, header| header.state.clone_here()).unwrap_or(false) {
            (*task.as_ptr()).state.clone_there();
        }
    }
    RawWaker::new(waker, O::wakers())
}

unsafe fn drop_waker<O: Wakes>(waker: *const ()) {
    // SAFETY: the waker holds its task, and does so no more.
    unsafe {
        let task = task::<O>(waker);
        if !here(task, |_, header| header.state.drop_here()).unwrap_or(false) {
            drop_there(task);
        }
    }
}

unsafe fn wake_by_ref<O: Wakes>(waker: *const ()) {
    // SAFETY: the waker holds its task.
    unsafe {
        let task = task::<O>(waker);
        if here(task, |tasks, _| tasks.wake(task)).is_none() && (*task.as_ptr()).state.wake_there() {
            push(task);
        }
    }
}

unsafe fn wake<O: Wakes>(waker: *const ()) {
    // SAFETY: the waker holds its task, and does so no more.
    unsafe {
        let task = task::<O>(waker);
        let dropped = here(task, |tasks, header| {
            tasks.wake(task);
            header.state.drop_here()
        });
        match dropped {
            Some(true) => {}
            Some(false) => drop_there(task),
            None => wake_from_elsewhere(task),
        }
    }
}

/// [`wake`] on another thread.
///
/// # Safety
/// The caller holds the task, and does so no more.
#[inline(never)]
unsafe fn wake_from_elsewhere<O: Wakes>(task: Task<O>) {
    // SAFETY: the caller's promise. What is done with its hold is what the state says.
    unsafe {
        match (*task.as_ptr()).state.wake_and_drop_there() {
            There::Nothing => {}
            There::Push => push(task),
            There::Free => raw::free(task),
        }
    }
}

/// Puts a task on the wake list of its core.
///
/// # Safety
/// The state has told this thread to, and the caller gives a hold on the task away.
unsafe fn push<O: Wakes>(task: Task<O>) {
    // Once pushed, the task may be taken, run and freed by its core at once: what is still needed must not
    // lie in it.
    //
    // SAFETY: the task is held, so its memory is there. So is its owner. The state had not merged when it was
    // notified, so the core finds this hold when it ends the task. If it has not ended it, the core lives;
    // and if it has, it has added a count to the owner before (`raw::end`).
    let owner = unsafe {
        let owner = (*task.as_ptr()).owner;
        Arc::increment_strong_count(owner);
        Arc::from_raw(owner)
    };
    owner.take(Woken(task));
}

/// Gives a hold up, on any thread.
///
/// # Safety
/// The caller had it.
#[inline(never)]
unsafe fn drop_there<O: Owner>(task: Task<O>) {
    // SAFETY: the caller's promise. Others may free the task as soon as its word has changed, and no
    // reference to the header is left then.
    unsafe {
        if (*task.as_ptr()).state.drop_there() {
            raw::free(task);
        }
    }
}
