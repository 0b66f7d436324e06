//! Work that blocks, off the core.
//!
//! A core must never wait in the kernel: while it does, none of its tasks runs. Work that waits (listing a
//! directory, resolving a name, a library without futures) and long computations go to a thread of the core's
//! node by [`spawn_blocking`]. Threads are made when they are needed, up to
//! [`Builder::blocking_threads`](crate::Builder::blocking_threads) for a node, and end when they have been
//! idle for ten seconds.

pub(crate) mod pool;

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_task::FallibleTask;

use self::pool::BlockingPool;
use crate::Error;
use crate::contained::{Kept, Payload, caught, panic_text};
use crate::core::Core;
use crate::task::shield::Shield;

/// Runs `f` on a thread of the current core's node, where it may block. Await the handle for its result.
///
/// The thread may run on all CPUs of the node that the process may use. Its memory policy and signal mask are
/// those of the thread that started the runtime, and not the core's: it is not bound to the core's one CPU,
/// and `SIGPIPE` is blocked only if it was blocked there. The queue before the threads has no bound: a
/// program that calls this for each request of a client has to bound the requests.
///
/// The closure may wait for what this core does, because the core goes on. A task must not. If a task blocks
/// its core, by joining a thread for example, until that thread has seen something that the core has begun
/// (bytes sent, a connection dropped, another core woken), it [waits for ever](crate#what-holds-everywhere),
/// since all that leaves at the end of the tick. Join the thread in a closure here instead.
///
/// Starting a thread, if none is idle, takes the core some tens of microseconds; handing work to an idle one
/// takes two.
///
/// # Errors
/// The handle returns [`BlockingError`]: `f` panicked, no thread could be started, or the runtime had ended.
///
/// # Cancellation
/// Nothing stops a closure. Dropping the handle only discards the result: `f` runs nevertheless, and its
/// result is dropped on its thread, or with the handle if it exists by then. A panic of that drop is logged.
/// When the runtime ends, closures that have not begun are dropped, and it waits for those that run, five
/// seconds at most. A closure that takes longer runs on for as long as the process does.
///
/// # Panics
/// On a thread that is no core's.
///
/// ```
/// # annulus::Runtime::builder().pool_bytes(1 << 20).build()?.run(|| async {
/// let entries = annulus::spawn_blocking(|| std::fs::read_dir("/").map(Iterator::count));
/// assert!(entries.await.expect("it does not panic")? > 0);
/// # Ok(())
/// # })?;
/// # Ok::<(), annulus::Error>(())
/// ```
pub fn spawn_blocking<F, T>(f: F) -> BlockingHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let pool = Core::with(|core| Arc::clone(&core.blocking));
    let handle = queue(&pool, f);
    pool.ensure_thread();
    handle
}

/// Queues a closure for the threads of `pool`. It starts no thread.
fn queue<F, T>(pool: &Arc<BlockingPool>, f: F) -> BlockingHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let mut closure = Closure(Some(f));
    let work = async move { Kept::new(caught(move || closure.take()())) };
    let queue = Arc::clone(pool);
    // The future never waits, so it is scheduled once.
    let (runnable, task) = async_task::spawn(work, move |runnable| queue.push(runnable));
    let task = Some(task.fallible());
    runnable.schedule();
    BlockingHandle { task, waker: Shield::default(), pool: Arc::clone(pool), _this_core: PhantomData }
}

/// A closure that may be dropped without having run. It contains a destructor's panic, which would abort the
/// process there.
struct Closure<F>(Option<F>);

impl<F> Closure<F> {
    fn take(&mut self) -> F {
        self.0.take().expect("it runs once")
    }
}

impl<F> Drop for Closure<F> {
    fn drop(&mut self) {
        crate::contained::contained("the destructor of a closure that was not run", || drop(self.0.take()));
    }
}

/// The future result of a [`spawn_blocking`].
#[must_use = "dropping the handle forgets the result: await it, or call detach()"]
pub struct BlockingHandle<T> {
    /// Taken only in `drop`.
    task: Option<FallibleTask<Kept<Result<T, Payload>>>>,
    /// The waker of the task that waits, as the closure's task sees it.
    waker: Shield,
    /// It says why a closure was not run.
    pool: Arc<BlockingPool>,
    _this_core: PhantomData<*const ()>,
}

impl<T> BlockingHandle<T> {
    /// Discards the result, as dropping the handle does.
    pub fn detach(self) {}

    /// Whether the closure has ended.
    pub fn is_finished(&self) -> bool {
        self.task.as_ref().is_some_and(FallibleTask::is_finished)
    }
}

impl<T> Future for BlockingHandle<T> {
    type Output = Result<T, BlockingError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let task = this.task.as_mut().expect("there until the handle is dropped");
        let mut cx = Context::from_waker(this.waker.of(cx.waker()));
        Pin::new(task).poll(&mut cx).map(|end| match end.map(Kept::take) {
            Some(Ok(value)) => Ok(value),
            Some(Err(payload)) => Err(BlockingError::Panicked(payload)),
            None => Err(this.pool.refusal().map_or(BlockingError::Ended, BlockingError::NoThread)),
        })
    }
}

impl<T> Drop for BlockingHandle<T> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.detach();
        }
    }
}

impl<T> fmt::Debug for BlockingHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingHandle").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}

/// Why a [`spawn_blocking`] has no result.
#[non_exhaustive]
pub enum BlockingError {
    /// The closure panicked, with this payload.
    Panicked(Box<dyn std::any::Any + Send>),
    /// There was no thread, and none could be started. The closure was not run.
    NoThread(Error),
    /// The runtime had ended. The closure was not run.
    Ended,
}

impl fmt::Debug for BlockingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockingError::Panicked(payload) => {
                f.debug_tuple("Panicked").field(&panic_text(payload)).finish()
            }
            BlockingError::NoThread(e) => f.debug_tuple("NoThread").field(e).finish(),
            BlockingError::Ended => f.write_str("Ended"),
        }
    }
}

impl fmt::Display for BlockingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockingError::Panicked(payload) => {
                write!(f, "the blocking closure panicked: {}", panic_text(payload))
            }
            BlockingError::NoThread(e) => write!(f, "no thread for blocking work: {e}"),
            BlockingError::Ended => f.write_str("the runtime ended before the blocking closure began"),
        }
    }
}

impl std::error::Error for BlockingError {}

impl From<BlockingError> for Error {
    fn from(e: BlockingError) -> Self {
        let kind = match e {
            BlockingError::Panicked(_) => crate::ErrorKind::Panicked,
            BlockingError::Ended => crate::ErrorKind::Ended,
            _ => crate::ErrorKind::Platform,
        };
        Error::new(kind, e.to_string())
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
