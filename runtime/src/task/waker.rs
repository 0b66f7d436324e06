//! The wakers of tasks. Each function asks first whether this is the thread of the task's core: then nobody
//! else uses the task's own word, and there is neither a locked instruction nor an allocation.
//!
//! On other threads a wake goes onto the core's [wake list](crate::sync::mailbox), through a link that lies
//! in the task itself: waking never waits, needs no memory and cannot fail. Once the core has ended its
//! futures have been dropped, so the wakers that are left wake nobody.

use std::sync::Arc;
use std::task::{RawWaker, RawWakerVTable};

use super::queue::Tasks;
use super::raw::{self, Header, Owner, Task};
use super::state::AfterWake;
use super::woken::{Woken, drop_there};

/// How wakers reach the core of their task.
pub(crate) trait Wakes: Owner {
    /// Runs `f` with the tasks of `owner`, a pointer that may dangle, if this thread is that core's. It is
    /// always so while a task of the core runs.
    fn here<R>(owner: *const Self, f: impl FnOnce(&Tasks<Self>) -> R) -> Option<R>;

    /// Puts a woken task on the core's wake list, from any thread.
    fn take(&self, woken: Woken<Self>);
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
            AfterWake::Nothing => {}
            AfterWake::Push => push(task),
            AfterWake::Free => raw::free(task),
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
    // SAFETY: the caller gives a hold that the state has told it to push.
    owner.take(unsafe { Woken::of(task) });
}
