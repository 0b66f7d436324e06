//! Values that stay on their core, for interfaces that ask for `Send`.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::core::Core;
use crate::core::shared::CoreShared;

/// A value that may be carried anywhere, but that only the core on which it was made can use. It is for
/// interfaces that ask for `Send` although they run everything on the core that called them, such as axum's
/// handlers and state.
///
/// ```
/// # annulus::Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?.run(|| async {
/// use std::rc::Rc;
/// use annulus::compat::OnCore;
///
/// fn wants_send<F: Future<Output = usize> + Send>(future: F) -> F {
///     future
/// }
///
/// let state = OnCore::new(Rc::new(vec![1, 2, 3]));
/// let answer = wants_send(OnCore::new(async move {
///     annulus::yield_now().await; // a task, a connection and a file of this core serve in here too
///     state.len()
/// }));
/// assert_eq!(answer.await, 3);
/// # annulus::Ok(())
/// # })?;
/// # annulus::Ok(())
/// ```
///
/// It costs an allocation, and each use a comparison. Dropped on another thread, or after its core has ended,
/// the value is leaked.
///
/// # Panics
/// When it is made on a thread that is no core's, and when it is used, polled or cloned on another thread
/// than its core's.
pub struct OnCore<T> {
    owner: Arc<CoreShared>,
    /// In memory of its own. A leaked value keeps its memory, as what was pinned must: others may know it by
    /// its address until it is dropped.
    value: ManuallyDrop<Box<T>>,
    /// It is pinned with this.
    _pinned: PhantomData<T>,
}

// SAFETY: `value` is touched only on its core's thread: a use elsewhere panics before that, and a drop
// elsewhere leaks it. The rest is an `Arc` of a type that is `Send` and `Sync`.
unsafe impl<T> Send for OnCore<T> {}

// SAFETY: a shared reference gives access to the value only on its core's thread.
unsafe impl<T> Sync for OnCore<T> {}

impl<T> OnCore<T> {
    /// Keeps `value` on the current core.
    ///
    /// # Panics
    /// On a thread that is no core's.
    pub fn new(value: T) -> Self {
        Self::owned(Core::with(|core| Arc::clone(&core.shared)), value)
    }

    fn owned(owner: Arc<CoreShared>, value: T) -> Self {
        Self { owner, value: ManuallyDrop::new(Box::new(value)), _pinned: PhantomData }
    }

    /// Gives the value back.
    ///
    /// # Panics
    /// On another thread than its core's.
    pub fn into_inner(self) -> T {
        self.must_be_here();
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, so each field is taken once.
        let (owner, value) = unsafe { (std::ptr::read(&this.owner), ManuallyDrop::take(&mut this.value)) };
        drop(owner);
        *value
    }

    fn must_be_here(&self) {
        assert!(
            Core::is_current(&self.owner),
            "what stays on core {} was used on another thread",
            self.owner.index
        );
    }
}

impl<T> Deref for OnCore<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.must_be_here();
        &self.value
    }
}

impl<T: Clone> Clone for OnCore<T> {
    fn clone(&self) -> Self {
        Self::owned(Arc::clone(&self.owner), (**self).clone())
    }
}

impl<F: Future> Future for OnCore<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.must_be_here();
        // SAFETY: the value is pinned whenever `self` is: it is dropped in its place or keeps that for ever,
        // and `into_inner` takes an `OnCore` that was never pinned, or whose value does not mind (`_pinned`).
        unsafe { self.map_unchecked_mut(|this| &mut **this.value) }.poll(cx)
    }
}

impl<T> Drop for OnCore<T> {
    fn drop(&mut self) {
        if Core::is_current(&self.owner) {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for OnCore<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if Core::is_current(&self.owner) {
            f.debug_tuple("OnCore").field(&**self.value).finish()
        } else {
            f.debug_tuple("OnCore").finish_non_exhaustive()
        }
    }
}
