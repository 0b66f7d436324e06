//! A task in its one allocation: a header, and behind it the future, and later the output in its place.
//!
//! # Whose a field is
//!
//! [`State`] says who may still use the memory, and what of the task is alive. Of the header, other threads
//! use the state's shared word, the link, and what never changes. Everything else, the future and the output
//! are of the thread of the task's own core.
//!
//! Code of the application runs in a poll, in destructors of the future and of the output, and in the waker
//! of who awaits the handle. It may wake the task, drop its handle, spawn. So each of these is called when
//! the state says already what holds, and what they may have changed is looked at again.

use std::cell::{Cell, UnsafeCell};
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::task::{Context, Poll, RawWakerVTable, Waker};

use super::state::State;
use crate::contained::{Kept, Payload, bury, caught, contained, tell_panic};
use crate::sync::mailbox::Link;

/// The core of a task, as tasks see it.
pub(crate) trait Owner: Send + Sync + Sized + 'static {
    /// The functions of its tasks' wakers: a static, because wakers are compared by its address.
    fn wakers() -> &'static RawWakerVTable;
}

/// A pointer to a task of which something is left, with the right to all of its allocation.
pub(super) type Task<O> = NonNull<Header<O>>;

/// What every task has, whatever its future.
pub(super) struct Header<O: Owner> {
    pub(super) state: State,
    /// The task behind this one in the run queue.
    pub(super) next: Cell<Option<Task<O>>>,
    /// The tasks before and behind this one in the list of those that wait.
    pub(super) before: Cell<Option<Task<O>>>,
    pub(super) behind: Cell<Option<Task<O>>>,
    /// The waker of who awaits the handle.
    awaiter: UnsafeCell<Option<Waker>>,
    functions: &'static Functions<O>,
    /// The core, of an `Arc`. It lives as long as the futures of its tasks, which it drops; and as long as
    /// this task, if the state says that wakers were left then.
    pub(super) owner: *const O,
    pub(super) spawned_at: &'static Location<'static>,
    /// In the wake list.
    pub(super) link: Link,
}

/// What only the type of the future knows how to do. Each is for the thread of the own core, but `free`.
struct Functions<O: Owner> {
    /// Polls the future. True: it has ended, and the output is in its place.
    poll: unsafe fn(Task<O>) -> bool,
    drop_future: unsafe fn(Task<O>),
    drop_output: unsafe fn(Task<O>),
    /// Moves the output to a place of its type.
    move_output: unsafe fn(Task<O>, *mut ()),
    /// Frees the allocation, in which there is neither future nor output.
    free: unsafe fn(Task<O>),
}

/// What a task leaves.
pub(super) type Output<T> = Result<T, Payload>;

/// The allocation.
#[repr(C)]
struct Whole<F: Future, O: Owner> {
    header: Header<O>,
    content: UnsafeCell<Content<F>>,
}

/// A place for the one and then the other. The state says which is there.
#[repr(C)]
union Content<F: Future> {
    future: ManuallyDrop<F>,
    output: ManuallyDrop<Output<F::Output>>,
}

/// Makes a task that is to be put into the queue, and has a handle.
pub(super) fn new<F, O>(future: F, owner: &Arc<O>, spawned_at: &'static Location<'static>) -> Task<O>
where
    F: Future + 'static,
    O: Owner,
{
    let header = Header {
        state: State::new(),
        next: Cell::new(None),
        before: Cell::new(None),
        behind: Cell::new(None),
        awaiter: UnsafeCell::new(None),
        functions: const { &Whole::<F, O>::FUNCTIONS },
        owner: Arc::as_ptr(owner),
        spawned_at,
        link: Link::new(),
    };
    let content = UnsafeCell::new(Content { future: ManuallyDrop::new(future) });
    NonNull::from(Box::leak(Box::new(Whole { header, content }))).cast()
}

impl<F: Future, O: Owner> Whole<F, O> {
    const FUNCTIONS: Functions<O> = Functions {
        poll: Self::poll,
        drop_future: Self::drop_future,
        drop_output: Self::drop_output,
        move_output: Self::move_output,
        free: Self::free,
    };

    /// Where the future lies.
    ///
    /// # Safety
    /// `task` is of this type and has not been freed.
    #[inline(always)]
    unsafe fn future(task: Task<O>) -> *mut F {
        // SAFETY: the caller's promise. No reference to the whole is made, so those to its header stay valid.
        unsafe { UnsafeCell::raw_get(&raw const (*task.cast::<Self>().as_ptr()).content) }.cast()
    }

    /// Where the output lies.
    ///
    /// # Safety
    /// As for `future`.
    #[inline(always)]
    unsafe fn output(task: Task<O>) -> *mut Output<F::Output> {
        // SAFETY: the caller's promise; both lie at the beginning of the same place.
        unsafe { Self::future(task) }.cast()
    }

    /// Logs a panic of the future.
    #[cold]
    fn tell(task: Task<O>, payload: &Payload) {
        // SAFETY: only the functions of a task call this, and it is not freed before they return.
        let spawned_at = unsafe { task.as_ref() }.spawned_at;
        tell_panic(format_args!("a task spawned at {spawned_at}"), payload);
    }

    unsafe fn poll(task: Task<O>) -> bool {
        // SAFETY: the future is in its place (`raw::poll`), which lies on the heap until it is dropped there.
        // Nobody else has a reference to it: it is of this thread, and polled by one at a time.
        let future = unsafe { Pin::new_unchecked(&mut *Self::future(task)) };
        // SAFETY: the functions keep the contract of wakers. This one is not counted and never dropped: the
        // poll has the task.
        let waker = ManuallyDrop::new(unsafe { Waker::new(task.as_ptr().cast_const().cast(), O::wakers()) });
        let output = match caught(|| future.poll(&mut Context::from_waker(&waker))) {
            Ok(Poll::Pending) => return false,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(payload) => {
                Self::tell(task, &payload);
                Err(payload)
            }
        };
        // In its wrapping at once: the future's destructor may panic, and then that of an output that is
        // lost.
        let output = Kept::new(output);
        // SAFETY: the future is in its place and is dropped once, here, also if that panics. No reference to
        // it is left.
        let output = match caught(|| unsafe { Self::future(task).drop_in_place() }) {
            Ok(()) => output.take(),
            Err(payload) => {
                Self::tell(task, &payload);
                drop(output);
                Err(payload)
            }
        };
        // SAFETY: nothing is in the place any more.
        unsafe { Self::output(task).write(output) };
        true
    }

    unsafe fn drop_future(task: Task<O>) {
        // SAFETY: the future is in its place (`raw::drop_future`), and is dropped once, here.
        if let Err(payload) = caught(|| unsafe { Self::future(task).drop_in_place() }) {
            Self::tell(task, &payload);
            bury(payload);
        }
    }

    unsafe fn drop_output(task: Task<O>) {
        contained("the destructor of a value that nobody took", || {
            // SAFETY: the output is in its place (`raw::end`), and is dropped once, here.
            unsafe { Self::output(task).drop_in_place() };
        });
    }

    unsafe fn move_output(task: Task<O>, to: *mut ()) {
        // SAFETY: the output is in its place, is moved once, here, and `to` is for one (`raw::move_output`).
        unsafe { to.cast::<Output<F::Output>>().write(Self::output(task).read()) };
    }

    unsafe fn free(task: Task<O>) {
        // SAFETY: `new` made it of such a box, and nobody else has it any more (`raw::free`). A union drops
        // nothing.
        drop(unsafe { Box::from_raw(task.cast::<Self>().as_ptr()) });
    }
}

impl<O: Owner> Header<O> {
    /// Whether the handle is awaited with a waker like this.
    pub(super) fn is_awaited_by(&self, waker: &Waker) -> bool {
        // SAFETY: only the own core's thread uses the field, and no reference to it outlives a method. What
        // is called here compares two pointers.
        unsafe { &*self.awaiter.get() }.as_ref().is_some_and(|kept| kept.will_wake(waker))
    }

    /// Replaces the waker of who awaits the handle.
    pub(super) fn set_awaiter(&self, waker: Option<Waker>) -> Option<Waker> {
        // SAFETY: as above.
        unsafe { ptr::replace(self.awaiter.get(), waker) }
    }
}

/// Polls the future of a task. True: it has ended, and the output is in its place.
///
/// # Safety
/// The future is in its place, and is not being polled or dropped; on the thread of the task's core.
#[inline(always)]
pub(super) unsafe fn poll<O: Owner>(task: Task<O>) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (task.as_ref().functions.poll)(task) }
}

/// Drops the future of a task.
///
/// # Safety
/// As for [`poll`]; nothing is in the place afterwards.
pub(super) unsafe fn drop_future<O: Owner>(task: Task<O>) {
    // SAFETY: the caller's promise.
    unsafe { (task.as_ref().functions.drop_future)(task) }
}

/// Moves the output to `to`, which is for one.
///
/// # Safety
/// The state has just said that the output is there, and says so no more; on the thread of the task's core.
pub(super) unsafe fn move_output<O: Owner>(task: Task<O>, to: *mut ()) {
    // SAFETY: the caller's promise.
    unsafe { (task.as_ref().functions.move_output)(task, to) }
}

/// Ends a task whose future has been dropped. Its output is in its place if `output`. What has the task by
/// its future may not use it after this.
///
/// # Safety
/// On the thread of the task's core, which lives; once for each task.
pub(super) unsafe fn end<O: Owner>(task: Task<O>, mut output: bool) {
    // SAFETY: the task is not freed before its state says so.
    let header = unsafe { task.as_ref() };
    if output && !header.state.wants_output() {
        // SAFETY: the output is in its place.
        unsafe { (header.functions.drop_output)(task) };
        output = false;
    }
    let awaiter = header.set_awaiter(None);
    // SAFETY: the owner lives, and the pointer is that of an `Arc` (`new`).
    if header.state.end(output, || unsafe { Arc::increment_strong_count(header.owner) }) {
        // SAFETY: the state has said so.
        unsafe { free(task) };
    }
    if let Some(awaiter) = awaiter {
        wake_contained::<O>(awaiter);
    }
}

/// Frees a task's memory. On any thread.
///
/// # Safety
/// Its state has said that it is to be freed.
pub(super) unsafe fn free<O: Owner>(task: Task<O>) {
    // SAFETY: nobody else uses the task any more. Its future has been dropped, and so has its output, which a
    // handle takes before it goes. If the state has merged, `end` has added a count to the owner.
    unsafe {
        let Header { functions, owner, state, .. } = task.as_ref();
        let (free, owner, retained) = (functions.free, *owner, state.has_merged());
        free(task);
        if retained {
            Arc::decrement_strong_count(owner);
        }
    }
}

/// Whether the waker is a task's of such a core. Such a one may be cloned, called and dropped anywhere: it
/// runs no code of the application and does not panic.
#[inline(always)]
pub(super) fn is_ours<O: Owner>(waker: &Waker) -> bool {
    ptr::eq(waker.vtable(), O::wakers())
}

/// Wakes by a waker that may be the application's.
#[inline(always)]
fn wake_contained<O: Owner>(waker: Waker) {
    if is_ours::<O>(&waker) { waker.wake() } else { wake_foreign(waker) }
}

#[cold]
fn wake_foreign(waker: Waker) {
    // Called and dropped one by one: two panics at once would end the process.
    let waker = ManuallyDrop::new(waker);
    contained("a waker", || waker.wake_by_ref());
    contained("the destructor of a waker", || drop(ManuallyDrop::into_inner(waker)));
}

/// Drops a waker that may be the application's.
#[inline(always)]
pub(super) fn drop_contained<O: Owner>(waker: Option<Waker>) {
    match waker {
        None => {}
        Some(waker) if is_ours::<O>(&waker) => drop(waker),
        Some(waker) => contained("the destructor of a waker", || drop(waker)),
    }
}
