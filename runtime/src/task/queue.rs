//! The tasks of a core: those to be polled, and all that wait.
//!
//! Both are linked through the tasks themselves, so nothing is allocated for them.

use std::cell::Cell;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::sync::Arc;

use super::raw::{self, Header, Owner, Task};
use super::state::{AfterWake, Pause};
use super::stop_waiters::StopWaiters;
use super::woken::Woken;

/// The run queue of a core, and the list of its tasks that wait.
///
/// A task whose future has not been dropped is in the queue, in the list, or running. So the end of the core
/// reaches those that nothing wakes, and a task whose wakers were all dropped is kept until then. One that
/// never waits is in the list never.
pub(crate) struct Tasks<O: Owner> {
    ready: Queue<O>,
    waiting: List<O>,
    /// Tasks that wait for the runtime to be asked to stop.
    pub(crate) stop: StopWaiters,
    /// No task is polled any more; one that is woken or new is dropped.
    ending: Cell<bool>,
    /// The core that the tasks name. It is kept until their futures have been dropped.
    owner: Arc<O>,
}

/// A task that is to be polled. Dropped, its future is dropped instead.
pub(crate) struct Ready<'a, O: Owner> {
    tasks: &'a Tasks<O>,
    task: Task<O>,
}

impl<O: Owner> Ready<'_, O> {
    /// Where the task was spawned.
    #[inline(always)]
    pub(crate) fn spawned_at(&self) -> &'static Location<'static> {
        // SAFETY: the future has not been dropped, and keeps the task.
        unsafe { self.task.as_ref() }.spawned_at
    }

    /// Polls the task. What panics in it is contained.
    #[inline(always)]
    pub(crate) fn run(self) {
        let this = ManuallyDrop::new(self);
        this.tasks.run(this.task);
    }
}

impl<O: Owner> Drop for Ready<'_, O> {
    fn drop(&mut self) {
        self.tasks.drop_future(self.task);
    }
}

impl<O: Owner> Tasks<O> {
    pub(crate) fn new(owner: Arc<O>) -> Self {
        Self {
            ready: Queue::new(),
            waiting: List::new(),
            stop: StopWaiters::default(),
            ending: Cell::new(false),
            owner,
        }
    }

    /// Makes a task and puts it at the end of the queue. The caller makes its handle.
    pub(super) fn spawn<F: Future + 'static>(
        &self,
        future: F,
        spawned_at: &'static Location<'static>,
    ) -> Task<O> {
        let task = raw::new(future, &self.owner, spawned_at);
        // SAFETY: it is new, so it is not in the queue.
        unsafe { self.ready.push(task) };
        task
    }

    /// Wakes a task of this core: puts it at the end of the queue unless it is there. At the core's end too:
    /// the waking code may hold a lock that the task's destructor takes, so no future is dropped in here.
    ///
    /// The caller holds the task.
    #[inline(always)]
    pub(super) fn wake(&self, task: Task<O>) {
        // SAFETY: the caller holds the task. What the state says is to be queued is not in the queue.
        unsafe {
            if task.as_ref().state.wake_here() {
                self.ready.push(task);
            }
        }
    }

    /// Takes in a task that another thread has woken.
    pub(crate) fn take_in(&self, woken: Woken<O>) {
        let (task, next) = woken.taken();
        // SAFETY: what the state says is to be freed is nobody's any more; what is to be queued has a future,
        // which keeps it, and is not in the queue.
        unsafe {
            match next {
                AfterWake::Nothing => {}
                AfterWake::Push => self.ready.push(task),
                AfterWake::Free => raw::free(task),
            }
        }
    }

    /// The next task to poll.
    #[inline(always)]
    pub(crate) fn pop(&self) -> Option<Ready<'_, O>> {
        self.ready.pop().map(|task| Ready { tasks: self, task })
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.ready.len() == 0
    }

    /// Tasks ready to be polled.
    pub(crate) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Whether the core is dropping its tasks.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// Polls a task that was taken out of the queue.
    #[inline(always)]
    fn run(&self, task: Task<O>) {
        // SAFETY: a task in the queue has its future, which is of this thread, and is not running: what
        // runs is not queued (`State::wake_here`). The future keeps the task until `end`.
        unsafe {
            if !task.as_ref().state.begin() {
                return self.drop_running(task);
            }
            if raw::poll(task) {
                return self.end(task, true);
            }
            match task.as_ref().state.pause() {
                Pause::Wait => {}
                Pause::List => self.waiting.push(task),
                Pause::Queue => self.ready.push(task),
                Pause::Drop => self.drop_running(task),
            }
        }
    }

    /// Drops the future of a task that is not in the queue.
    fn drop_future(&self, task: Task<O>) {
        // SAFETY: the task has its future, as above; nothing runs it.
        unsafe {
            task.as_ref().state.abort();
            task.as_ref().state.begin();
            self.drop_running(task);
        }
    }

    /// Drops the future of a task that is marked as running.
    ///
    /// # Safety
    /// The future is in its place and nothing polls it.
    #[cold]
    unsafe fn drop_running(&self, task: Task<O>) {
        // SAFETY: the caller's promise.
        unsafe {
            raw::drop_future(task);
            self.end(task, false);
        }
    }

    /// # Safety
    /// As for [`raw::end`].
    #[inline(always)]
    unsafe fn end(&self, task: Task<O>, output: bool) {
        // SAFETY: the caller's promise. The state says whether the task is in the list.
        unsafe {
            if task.as_ref().state.is_listed() {
                self.waiting.remove(task);
            }
            raw::end(task, output);
        }
    }

    /// Drops the tasks in the queue, and those that this wakes. For the end of the core.
    pub(crate) fn drop_ready(&self) {
        while let Some(task) = self.pop() {
            drop(task);
        }
    }

    /// Drops every task of this core. Futures may spawn and wake in their destructors; what they spawn is
    /// dropped too. Tasks that other threads have woken are in the list like all that wait.
    pub(crate) fn drop_all(&self) {
        self.ending.set(true);
        self.stop.drop_all();
        self.drop_each();
    }

    fn drop_each(&self) {
        loop {
            self.drop_ready();
            let Some(task) = self.waiting.first() else { return };
            // It is not in the queue, which is empty, and stays in the list until it has been dropped.
            self.drop_future(task);
        }
    }
}

impl<O: Owner> Drop for Tasks<O> {
    fn drop(&mut self) {
        // Of a core that has not come to its end in order, and what destructors have spawned since.
        self.drop_each();
    }
}

/// Tasks in the order in which they came, linked by [`Header::next`].
struct Queue<O: Owner> {
    first: Cell<Option<Task<O>>>,
    last: Cell<Option<Task<O>>>,
    len: Cell<usize>,
}

impl<O: Owner> Queue<O> {
    fn new() -> Self {
        Self { first: Cell::new(None), last: Cell::new(None), len: Cell::new(0) }
    }

    fn len(&self) -> usize {
        self.len.get()
    }

    /// # Safety
    /// The task is not in the queue, and is not freed while it is.
    #[inline(always)]
    unsafe fn push(&self, task: Task<O>) {
        // SAFETY: the caller's promise, also for the task that was the last.
        unsafe {
            task.as_ref().next.set(None);
            match self.last.replace(Some(task)) {
                Some(last) => last.as_ref().next.set(Some(task)),
                None => self.first.set(Some(task)),
            }
        }
        self.len.set(self.len.get() + 1);
    }

    #[inline(always)]
    fn pop(&self) -> Option<Task<O>> {
        let task = self.first.get()?;
        // SAFETY: what is in the queue is not freed (`push`).
        let next = unsafe { task.as_ref() }.next.get();
        self.first.set(next);
        if next.is_none() {
            self.last.set(None);
        }
        self.len.set(self.len.get() - 1);
        Some(task)
    }
}

/// Tasks in the order in which they came, linked by [`Header::before`] and [`Header::behind`].
struct List<O: Owner> {
    first: Cell<Option<Task<O>>>,
    last: Cell<Option<Task<O>>>,
}

impl<O: Owner> List<O> {
    fn new() -> Self {
        Self { first: Cell::new(None), last: Cell::new(None) }
    }

    fn first(&self) -> Option<Task<O>> {
        self.first.get()
    }

    /// # Safety
    /// The task is not in the list, and is not freed while it is.
    unsafe fn push(&self, task: Task<O>) {
        let last = self.last.replace(Some(task));
        // SAFETY: the caller's promise, also for the task that was the last.
        unsafe {
            task.as_ref().before.set(last);
            task.as_ref().behind.set(None);
            match last {
                Some(last) => last.as_ref().behind.set(Some(task)),
                None => self.first.set(Some(task)),
            }
        }
    }

    /// # Safety
    /// The task is in the list.
    unsafe fn remove(&self, task: Task<O>) {
        // SAFETY: the caller's promise; its neighbours are in the list too, and not freed (`push`).
        unsafe {
            let Header { before, behind, .. } = task.as_ref();
            let (before, behind) = (before.get(), behind.get());
            match before {
                Some(before) => before.as_ref().behind.set(behind),
                None => self.first.set(behind),
            }
            match behind {
                Some(behind) => behind.as_ref().before.set(before),
                None => self.last.set(before),
            }
        }
    }
}
