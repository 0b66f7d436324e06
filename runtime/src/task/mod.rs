//! Tasks: futures that live on one core and need not be `Send`.
//!
//! Allocation, reference counts and wakers are async-task's; this module decides where a woken task goes. On
//! its own core it goes into the core's queue, from any other thread onto the core's [wake
//! list](crate::sync::mailbox), through a link that lies in the task itself: waking never waits, needs no
//! memory and cannot fail. When the core has ended, a woken task is leaked: its future may only be dropped on
//! its own thread.

pub(crate) mod caught;
mod join;
pub(crate) mod queue;
mod scope;
mod tracker;

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_task::Runnable;

pub use join::{JoinError, JoinHandle};
pub use scope::{Scope, ScopedHandle, scope};
pub use tracker::{AllEnded, TaskTracker};

use crate::contained::{self, Kept, Payload, bury, caught, tell_panic};
use crate::core::Core;
use crate::core::shared::CoreShared;
use crate::sync::mailbox::{Link, Node};

/// What every task carries beside its future.
#[derive(Debug)]
pub(crate) struct Meta {
    link: Link,
    owner: OwnerCore,
    spawned_at: &'static Location<'static>,
}

/// The core of a task.
pub(crate) struct OwnerCore(Arc<CoreShared>);

impl std::fmt::Debug for OwnerCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "core {}", self.0.index)
    }
}

/// A task that is to be polled.
pub(crate) struct Woken(pub(crate) Runnable<Meta>);

impl Woken {
    /// Where the task was spawned.
    pub(crate) fn spawned_at(&self) -> &'static Location<'static> {
        self.0.metadata().spawned_at
    }
}

// SAFETY: async-task makes at most one Runnable of a task at a time (its SCHEDULED and RUNNING bits), so this
// value is the only one for its pointer; the pointer is the task's allocation, which a Runnable keeps alive,
// and the metadata lies in it; into_raw and from_raw only convert.
unsafe impl Node for Woken {
    fn link(&self) -> &Link {
        &self.0.metadata().link
    }

    fn into_raw(self) -> NonNull<()> {
        self.0.into_raw()
    }

    unsafe fn from_raw(raw: NonNull<()>) -> Self {
        // SAFETY: handed on to the caller.
        Self(unsafe { Runnable::from_raw(raw) })
    }
}

/// Where a woken task goes. Runs on whatever thread wakes it.
fn schedule(runnable: Runnable<Meta>) {
    let owner = &runnable.metadata().owner.0;
    if Core::is_current(owner) {
        Core::with(|core| core.tasks.push(Woken(runnable)));
        return;
    }
    // Once pushed, the task may be run and freed by its core at once: what is still needed must not lie in
    // it.
    let owner = Arc::clone(owner);
    owner.wake(Woken(runnable));
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
        let meta = Meta { link: Link::new(), owner: OwnerCore(Arc::clone(&core.shared)), spawned_at };
        let contained = move |_: &Meta| Contained { future: Some(future), spawned_at, registered: None };
        // SAFETY: the future is not Send, so its Runnable must be run and dropped on this thread only:
        // `schedule` hands it to this core's queue or wake list, which only this core's thread empties, and
        // after the core's end leaks it. `schedule` itself is Send, Sync and 'static. Future and output are
        // 'static.
        let (runnable, task) =
            unsafe { async_task::Builder::new().metadata(meta).spawn_unchecked(contained, schedule) };
        core.tasks.push(Woken(runnable));
        JoinHandle::new(task)
    })
}

/// A future whose panics become its output, those of its destructor too: async-task would abort the process.
struct Contained<F> {
    /// `None` once it has ended.
    future: Option<F>,
    spawned_at: &'static Location<'static>,
    /// Since it waited for the first time.
    registered: Option<queue::Registered>,
}

impl<F> Contained<F> {
    /// Enters the task in the registry of its core, once.
    fn register(self: Pin<&mut Self>, cx: &Context<'_>) {
        // SAFETY: nothing is moved; `registered` is not pinned with `self`.
        let registered = unsafe { &mut self.get_unchecked_mut().registered };
        if registered.is_none() {
            *registered = Some(Core::with(|core| core.tasks.register(cx.waker().clone())));
        }
    }

    fn future(self: Pin<&mut Self>) -> Pin<&mut Option<F>> {
        // SAFETY: `future` is pinned whenever `self` is: nothing moves it out, and it is only ever replaced
        // in its place, which drops the old value there.
        unsafe { self.map_unchecked_mut(|this| &mut this.future) }
    }

    /// Runs `f`, which may panic. Nothing outside the future is left half-changed by that: it is not polled
    /// again.
    fn contain<T>(spawned_at: &Location<'_>, f: impl FnOnce() -> T) -> Result<T, Payload> {
        caught(f).inspect_err(|payload| tell_panic(format_args!("a task spawned at {spawned_at}"), payload))
    }
}

impl<F: Future> Future for Contained<F> {
    type Output = Kept<Result<F::Output, Payload>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let spawned_at = self.spawned_at;
        contained::is_polled_with(cx.waker());
        let mut future = self.as_mut().future();
        let polled = Self::contain(spawned_at, || {
            let running = future.as_mut().as_pin_mut().expect("a task that has ended is not polled");
            running.poll(cx)
        });
        // In its wrapping at once: the future's destructor may panic, and so may that of an output that this
        // loses.
        let output = match polled {
            Ok(Poll::Pending) => {
                self.register(cx);
                return Poll::Pending;
            }
            Ok(Poll::Ready(output)) => Kept::new(Ok(output)),
            Err(payload) => Kept::new(Err(payload)),
        };
        Poll::Ready(match Self::contain(spawned_at, || future.set(None)) {
            Ok(()) => output,
            Err(payload) => Kept::new(Err(payload)),
        })
    }
}

impl<F> Drop for Contained<F> {
    fn drop(&mut self) {
        // SAFETY: the value is in its last place: it is dropped and never moved again.
        let this = unsafe { Pin::new_unchecked(self) };
        let spawned_at = this.spawned_at;
        // The message was logged, and no handle is left that takes the payload.
        if let Err(payload) = Self::contain(spawned_at, || this.future().set(None)) {
            bury(payload);
        }
    }
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
    std::future::poll_fn(|cx| {
        Core::try_with(|core| {
            if core.budget.poll(cx).is_pending() {
                return Poll::Pending;
            }
            core.budget.spend();
            Poll::Ready(())
        })
        .unwrap_or(Poll::Ready(()))
    })
    .await;
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::core::state::RuntimeShared;
    use crate::numa::CpuId;

    /// A waker changes the state of a task first and pushes it onto the wake list then. The core may end
    /// between the two.
    ///
    /// Seen to fail: with `CoreShared::wake` dropping the task that the closed list gives back.
    #[test]
    fn a_task_that_comes_to_a_closed_wake_list_is_not_dropped_by_who_woke_it() {
        let core = CoreShared::new(0, CpuId(0), RuntimeShared::new(1).unwrap()).unwrap();
        drop(core.woken.close());
        let held = Arc::new(());
        let inside = Arc::clone(&held);
        let future = async move {
            let _inside = inside;
            std::future::pending::<()>().await;
        };
        let meta =
            Meta { link: Link::new(), owner: OwnerCore(Arc::new(core)), spawned_at: Location::caller() };
        let (runnable, task) = async_task::Builder::new().metadata(meta).spawn(move |_| future, schedule);
        task.detach();
        std::thread::spawn(move || runnable.schedule()).join().unwrap();
        assert_eq!(Arc::strong_count(&held), 2, "the future was dropped on another thread");
    }
}
