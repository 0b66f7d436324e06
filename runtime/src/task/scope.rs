//! A scope: child futures that may borrow what their parent owns.
//!
//! A spawned task must be `'static`, because nothing guarantees that its parent outlives it. A parent's
//! future can be leaked (`std::mem::forget`), and then its destructor never runs, so the borrow checker
//! cannot rely on a parent that waits for its children. Here the children are *inside* the parent's future,
//! which polls them. If that future is dropped, they are dropped with it. If it is leaked, nothing polls them
//! any more, and the borrow lasts for ever. So this file needs no unsafe code. The price is that the parent's
//! task polls its children.
//!
//! Each child has a waker of its own, so a wake polls the one child that it is for.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use slab::Slab;

use super::JoinError;
use super::caught::caught_of;
use crate::contained::{Kept, Payload, bury, contained};

/// Runs `body` with a [`Scope`] in which it can spawn children that borrow from outside the scope, and
/// completes when the body and all children have.
///
/// ```
/// # use annulus::{Runtime, scope};
/// # let core = annulus::numa::thread::affinity_of_current().unwrap().first().unwrap();
/// # Runtime::builder().cores(core.to_string().parse()?).pool_bytes(1 << 20).build()?.run(|| async {
/// let names = vec!["one".to_owned(), "three".to_owned()];
/// let total = scope(async |s| {
///     let handles: Vec<_> = names.iter().map(|name| s.spawn(async move { name.len() })).collect();
///     let mut total = 0;
///     for handle in handles {
///         total += handle.await.expect("no panic");
///     }
///     total
/// })
/// .await;
/// assert_eq!(total, names[0].len() + names[1].len());
/// # Ok(())
/// # })?;
/// # annulus::Ok(())
/// ```
///
/// # Panics
/// When the body does, or when a child did whose handle was dropped. The other children have ended by then,
/// or are dropped.
///
/// # Cancellation
/// Dropping the future drops the body and all children where they are.
pub async fn scope<'env, T>(body: impl AsyncFnOnce(&Scope<'env>) -> T) -> T {
    let scope = Scope {
        children: RefCell::default(),
        panic: RefCell::default(),
        ready: Open(Arc::new(Ready { keys: Mutex::new(Some(Vec::new())), parent: Mutex::default() })),
    };
    let mut output = None;
    let mut body = pin!(body(&scope));
    poll_fn(|cx| {
        scope.ready.0.set_parent(cx.waker());
        if output.is_none()
            && let Poll::Ready(value) = body.as_mut().poll(cx)
        {
            output = Some(value);
        }
        scope.poll_children();
        if output.is_some() && scope.children.borrow().is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let panic = scope.panic.take();
    if let Some(payload) = panic {
        resume_unwind(payload);
    }
    output.expect("the body has ended")
}

type ChildFuture<'env> = Pin<Box<dyn Future<Output = Option<Payload>> + 'env>>;

struct Child<'env> {
    /// `None` while it is being polled.
    future: Option<ChildFuture<'env>>,
    waker: Waker,
}

/// Where [`scope`]'s children are spawned.
pub struct Scope<'env> {
    children: RefCell<Slab<Child<'env>>>,
    /// The first panic of a child that nobody waits for.
    panic: RefCell<Option<Payload>>,
    /// Dropped last: children wake each other when they are dropped.
    ready: Open,
}

impl<'env> Scope<'env> {
    /// Adds a child. It is first polled when the body has come to its next `.await` that waits.
    ///
    /// # Cancellation
    /// Dropping the handle does not end the child: the scope waits for it. Dropping the scope's future drops
    /// the child.
    pub fn spawn<F: Future + 'env>(&self, future: F) -> ScopedHandle<F::Output>
    where
        F::Output: 'env,
    {
        let end = Rc::new(RefCell::new(End { output: None, waiter: None }));
        let tell = Rc::clone(&end);
        let future = Box::pin(async move {
            let output = caught_of(future).await;
            // If the handle has been dropped, this is the only reference, and the scope raises the panic.
            match output {
                Err(payload) if Rc::strong_count(&tell) == 1 => return Some(payload),
                output => tell.borrow_mut().output = Some(output),
            }
            // In its wrapping: it is called and dropped one after the other, and either may panic. Such a
            // panic would end the parent, with all other children.
            let waiter = tell.borrow_mut().waiter.take().map(Kept::new);
            contained("a waker", || waiter.iter().filter_map(Kept::get).for_each(Waker::wake_by_ref));
            None
        });
        let mut children = self.children.borrow_mut();
        let entry = children.vacant_entry();
        let waker = Arc::new(ChildWaker {
            key: entry.key(),
            queued: AtomicBool::new(false),
            ready: Arc::clone(&self.ready.0),
        });
        let waker = Waker::from(waker);
        entry.insert(Child { future: Some(future), waker: waker.clone() });
        drop(children);
        // Nothing is borrowed, because this wakes the parent.
        waker.wake();
        ScopedHandle { end }
    }

    /// Keeps the first panic that the scope will raise.
    #[cold]
    fn keep_first(&self, payload: Payload) {
        if self.panic.borrow().is_some() {
            bury(payload);
            return;
        }
        self.panic.replace(Some(payload));
    }

    /// Polls the children that were woken since the last call. Those that they wake wait for the next call.
    fn poll_children(&self) {
        let woken = lock(&self.ready.0.keys).as_mut().map(std::mem::take);
        for ready in woken.into_iter().flatten() {
            ready.queued.store(false, Ordering::Release);
            // A waker may outlive its child, and another child may have its place. Only the child's own waker
            // counts.
            let taken = self.children.borrow_mut().get_mut(ready.key).and_then(|child| {
                let same = child.waker.data() == Arc::as_ptr(&ready).cast();
                if same { Some((child.future.take()?, child.waker.clone())) } else { None }
            });
            let Some((mut future, waker)) = taken else { continue };
            // Nothing is borrowed while the child runs: it may wake others, and its destructors may do
            // anything.
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Pending => self.children.borrow_mut()[ready.key].future = Some(future),
                Poll::Ready(panic) => {
                    drop(future);
                    let child = self.children.borrow_mut().remove(ready.key);
                    drop(child);
                    if let Some(payload) = panic {
                        self.keep_first(payload);
                    }
                }
            }
        }
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        loop {
            // One by one, with nothing borrowed: a destructor may wake another child, and the thread may be
            // panicking.
            let mut children = self.children.borrow_mut();
            let Some(key) = children.iter().next().map(|(key, _)| key) else { break };
            let child = children.remove(key);
            drop(children);
            contained("a child of a scope", || drop(child));
        }
        // That of a child, if the body has panicked too.
        if let Some(payload) = self.panic.take() {
            bury(payload);
        }
    }
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("children", &self.children.borrow().len()).finish_non_exhaustive()
    }
}

struct End<T> {
    output: Option<Result<T, Payload>>,
    waiter: Option<Waker>,
}

/// A handle on a child of a [`Scope`]: await it for the child's output, or drop it.
///
/// # Cancellation
/// Dropping it ends nothing: the scope still waits for the child.
#[must_use = "await it for the output; the child runs without it too"]
pub struct ScopedHandle<T> {
    end: Rc<RefCell<End<T>>>,
}

impl<T> Future for ScopedHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let output = self.end.borrow_mut().output.take();
        if let Some(output) = output {
            return Poll::Ready(output.map_err(JoinError::Panicked));
        }
        // Cloned and dropped with nothing borrowed: either may run foreign code.
        let waker = cx.waker().clone();
        let mut end = self.end.borrow_mut();
        // The clone may have brought the child to its end, which then woke nobody.
        let output = end.output.take();
        let late = if output.is_some() { Some(waker) } else { end.waiter.replace(waker) };
        drop(end);
        contained("the destructor of a waker", || drop(late));
        output.map_or(Poll::Pending, |output| Poll::Ready(output.map_err(JoinError::Panicked)))
    }
}

impl<T> fmt::Debug for ScopedHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedHandle").finish_non_exhaustive()
    }
}

/// Children to be polled, and the waker of their parent. Wakers are `Send`, so these are behind locks, which
/// are held for a push or a swap.
struct Ready {
    /// `None` once the scope has gone: a waker that outlives it does nothing.
    keys: Mutex<Option<Vec<Arc<ChildWaker>>>>,
    /// In an `Arc`, because an application's waker may not be cloned under the lock: its clone may wake a
    /// child. Who drops it last may be panicking.
    parent: Mutex<Option<Arc<Kept<Waker>>>>,
}

/// The list of a scope that has not ended. The list and the wakers in it refer to each other until the scope
/// ends.
struct Open(Arc<Ready>);

impl Drop for Open {
    fn drop(&mut self) {
        let keys = lock(&self.0.keys).take();
        let parent = lock(&self.0.parent).take();
        // Outside the locks: dropping a waker may run foreign code.
        drop((keys, parent));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ready {
    fn set_parent(&self, waker: &Waker) {
        let is_same = |parent: &Arc<Kept<Waker>>| parent.get().is_some_and(|parent| parent.will_wake(waker));
        if lock(&self.parent).as_ref().is_some_and(is_same) {
            return;
        }
        let parent = Arc::new(Kept::new(waker.clone()));
        let old = lock(&self.parent).replace(parent);
        drop(old);
    }
}

struct ChildWaker {
    key: usize,
    /// Whether it is in the list already.
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for ChildWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        match &mut *lock(&self.ready.keys) {
            Some(keys) => keys.push(Arc::clone(self)),
            None => return,
        }
        // Woken outside the lock: waking runs the parent's scheduler.
        let parent = lock(&self.ready.parent).clone();
        parent.iter().filter_map(|parent| parent.get()).for_each(Waker::wake_by_ref);
    }
}
