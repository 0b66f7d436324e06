//! Tasks: futures that live on one core and need not be `Send`.
//!
//! A task is one allocation ([`raw`]) that knows its core. What happens to it there, polls, wakes, clones and
//! drops of its wakers, costs neither a locked instruction nor memory; other threads have the atomic half of
//! its [`state`] and the core's [wake list](crate::sync::mailbox).

pub(crate) mod caught;
mod handle;
mod join;
pub(crate) mod queue;
mod raw;
mod scope;
pub(crate) mod shield;
mod state;
mod stop_waiters;
mod tracker;
mod waker;
mod woken;

use std::future::Future;
use std::panic::Location;
use std::ptr;
use std::sync::Arc;
use std::task::{Poll, RawWakerVTable, Waker};

pub use join::{JoinError, JoinHandle};
pub use scope::{Scope, ScopedHandle, scope};
pub use tracker::{AllEnded, TaskTracker};

use crate::core::Core;
use crate::core::shared::CoreShared;
use handle::Handle;

/// A task of a core on its wake list, or on its way there.
pub(crate) type Woken = woken::Woken<CoreShared>;
/// The tasks of a core.
pub(crate) type Tasks = queue::Tasks<CoreShared>;
/// A task of a core that is to be polled.
pub(crate) type Ready<'a> = queue::Ready<'a, CoreShared>;

static WAKERS: RawWakerVTable = waker::functions::<CoreShared>();

impl raw::Owner for CoreShared {
    #[inline(always)]
    fn wakers() -> &'static RawWakerVTable {
        &WAKERS
    }
}

impl waker::Wakes for CoreShared {
    #[inline(always)]
    fn here<R>(owner: *const Self, f: impl FnOnce(&Tasks) -> R) -> Option<R> {
        Core::try_with(|core| ptr::eq(Arc::as_ptr(&core.shared), owner).then(|| f(&core.tasks))).flatten()
    }

    fn take(&self, woken: Woken) {
        self.wake(woken);
    }
}

/// Whether the waker is that of a task of ours.
#[inline(always)]
pub(crate) fn is_ours(waker: &Waker) -> bool {
    raw::is_ours::<CoreShared>(waker)
}

/// Spawns a future on the current core. It is first polled in a later tick, never inside this call.
///
/// The handle aborts the task when dropped; [`JoinHandle::detach`] lets it run on. Panics of the future stay
/// inside the task: its handle gives them back, and a line is logged with the place where the task was
/// spawned. So is one of an output that nobody takes and that panics when it is dropped.
///
/// # Cancellation
/// Dropping the handle aborts the task: its future is dropped on this core in a later tick. Dropping a
/// `select` arm or a time-out around the handle drops the handle; keep it outside and await `&mut handle` if
/// the task is to live.
///
/// # Panics
/// On a thread that is no core's.
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    spawn_at(Location::caller(), future)
}

/// [`spawn`] on behalf of a caller somewhere else.
pub(crate) fn spawn_at<F>(spawned_at: &'static Location<'static>, future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    Core::with(|core| {
        let task = core.tasks.spawn(future, spawned_at);
        // SAFETY: it was made of this future just now, on this thread, and this is its one handle.
        JoinHandle::new(unsafe { Handle::of(task) })
    })
}

/// Lets the other ready tasks of this core run first.
///
/// # Cancellation
/// Safe.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Counts a step that was done without waiting against the task's poll budget, and yields when it is used up.
/// Off a core there is none to count against.
pub(crate) async fn consume_budget() {
    consume_budget_for(0).await;
}

/// The same for a step that moved so many bytes: 1 MiB uses the budget up. Over loopback that takes 0.2 ms,
/// which others wait for.
pub(crate) async fn consume_budget_for(bytes: usize) {
    std::future::poll_fn(|cx| {
        Core::try_with(|core| {
            if core.budget.poll(cx).is_pending() {
                return Poll::Pending;
            }
            core.budget.spend_for(bytes);
            Poll::Ready(())
        })
        .unwrap_or(Poll::Ready(()))
    })
    .await;
}

#[cfg(all(test, not(loom)))]
mod tests;
