//! The values that belong to the calling thread: its core, that core's buffers, its blocks.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;
use std::thread::LocalKey;

/// A thread's value, or none. Each kind has one thread-local variable.
pub(crate) struct Current<T>(Cell<*const T>);

impl<T: 'static> Current<T> {
    pub(crate) const fn none() -> Self {
        Self(Cell::new(ptr::null()))
    }

    /// Makes `value` the one of the calling thread, until the guard is dropped.
    pub(crate) fn enter<'a>(of: &'static LocalKey<Self>, value: &'a T) -> Entered<'a, T> {
        of.with(|current| {
            debug_assert!(current.0.get().is_null(), "a thread has one value of a kind at a time");
            current.0.set(value);
        });
        Entered { of, _value: PhantomData }
    }

    /// Runs `f` with the value of this thread; `None` where it has none.
    #[inline(always)]
    pub(crate) fn try_with<R>(of: &'static LocalKey<Self>, f: impl FnOnce(&T) -> R) -> Option<R> {
        let value = of.with(|current| current.0.get());
        // SAFETY: the pointer is set by `enter` and reset when its guard, which borrows the value, is
        // dropped; it never leaves this thread.
        unsafe { value.as_ref() }.map(f)
    }

    /// The same, where `none` does not return: the result is not copied out of an `Option`.
    #[inline(always)]
    pub(crate) fn with<R>(of: &'static LocalKey<Self>, f: impl FnOnce(&T) -> R, none: fn() -> !) -> R {
        let value = of.with(|current| current.0.get());
        // SAFETY: as in `try_with`.
        match unsafe { value.as_ref() } {
            Some(value) => f(value),
            None => none(),
        }
    }
}

/// The value belongs to the thread until this is dropped.
pub(crate) struct Entered<'a, T: 'static> {
    of: &'static LocalKey<Current<T>>,
    _value: PhantomData<&'a T>,
}

impl<T> Drop for Entered<'_, T> {
    fn drop(&mut self) {
        self.of.with(|current| current.0.set(ptr::null()));
    }
}
