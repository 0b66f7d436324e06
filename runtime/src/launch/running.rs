//! The handle on a started runtime.

use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::faults::panicked;
use super::observer::Observer;
use super::report::{CoreReport, Report};
use super::stalls::Stall;
use crate::blocking::pool::BlockingPool;
use crate::contained::{Kept, contained, told};
use crate::core::handle::Handle;
use crate::core::shared::CoreShared;
use crate::core::state::RuntimeShared;
use crate::core::submit::SubmitError;
use crate::metrics::counters::Counters;
use crate::{Error, Result};

/// How long the runtime's end waits for closures that block.
const BLOCKING_PATIENCE: Duration = Duration::from_secs(5);

/// The thread of a core.
pub(super) type CoreThread<E> = JoinHandle<Kept<Result<(), E>>>;

/// Waits for the end of a core's thread. The error says that a panic left the thread.
pub(super) fn end_of<E>(thread: CoreThread<E>) -> Result<Kept<Result<(), E>>> {
    thread.join().map_err(|payload| panicked("a core", payload))
}

/// A handle on a started runtime. Dropping it cuts the runtime and waits for its end. On one of the runtime's
/// own cores dropping it cuts the runtime and does not wait.
pub struct Running<E = Error> {
    shared: Arc<RuntimeShared>,
    observer: Observer,
    threads: Vec<CoreThread<E>>,
    /// The thread that looks for stalls, if that was asked for. It ends by itself when the cores have ended.
    watch: Option<JoinHandle<()>>,
    blocking: Vec<Arc<BlockingPool>>,
}

impl<E: From<Error> + Send + 'static> Running<E> {
    pub(super) fn new(
        shared: Arc<RuntimeShared>,
        members: &[Arc<CoreShared>],
        threads: Vec<CoreThread<E>>,
        watch: Option<JoinHandle<()>>,
        blocking: Vec<Arc<BlockingPool>>,
        reports: &[CoreReport],
    ) -> Self {
        Self { shared, observer: Observer::new(members, reports), threads, watch, blocking }
    }

    /// Asks every core to come to its end: [`cores::stopping`](crate::cores::stopping) completes there. It
    /// does not wait.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Ends every core now: tasks are dropped unfinished. It does not wait.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Waits until every core has ended, and for [blocking work](crate::spawn_blocking) that still runs, up
    /// to five seconds. If such work calls this itself, it is not waited for.
    ///
    /// # Errors
    /// The error of the first core, in the order of the plan, that had one;
    /// [`ErrorKind::Panicked`](crate::ErrorKind::Panicked) where code of the application panicked outside a
    /// task: a waker, a destructor, a subscriber of `tracing`.
    ///
    /// # Panics
    /// On one of the runtime's own cores, which cannot end while it waits. Before the panic the runtime is
    /// cut.
    #[track_caller]
    pub fn wait(mut self) -> Result<(), E> {
        assert!(
            !self.is_on_own_thread(),
            "a runtime's core cannot wait for the runtime's end: wait on another thread, or call stop() here"
        );
        let ended: Vec<_> = self.threads.drain(..).map(end_of).collect();
        self.end_watch();
        end_blocking(&self.blocking, BLOCKING_PATIENCE);
        // All cores have ended before code of the application runs here: an error's conversion, or its
        // destructor.
        let first = ended.into_iter().find(|end| {
            let result = end.as_ref().ok().and_then(Kept::get);
            !result.is_some_and(Result::is_ok)
        });
        match first {
            None => Ok(()),
            Some(Ok(end)) => end.take(),
            Some(Err(e)) => Err(e.into()),
        }
    }

    /// A handle for other threads: it sends work to a core and asks for the end.
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.shared), Arc::clone(&self.observer.members))
    }

    /// Runs an async closure on core `core` and returns its output, from any thread: [`Handle::submit_to`].
    ///
    /// # Errors
    /// [`SubmitError`](crate::cores::SubmitError).
    ///
    /// # Cancellation
    /// A closure that was not begun never runs; one that was begun is aborted.
    #[track_caller]
    pub fn submit_to<F, T>(
        &self,
        core: usize,
        f: F,
    ) -> impl Future<Output = Result<T, SubmitError>> + Send + use<F, T, E>
    where
        F: AsyncFnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.handle().submit_to(core, f)
    }

    /// Reads the figures of this runtime from other threads.
    pub fn observer(&self) -> Observer {
        self.observer.clone()
    }

    /// An eventfd that becomes readable when every core has ended, for a main thread that polls.
    pub fn finished_fd(&self) -> BorrowedFd<'_> {
        self.shared.finished.as_fd()
    }

    /// What is in force on each core, and where memory lies now.
    pub fn report(&self) -> Report {
        self.observer.report()
    }

    /// Polls of tasks that keep their core from everything else. It samples twice, `threshold` apart, and
    /// returns those that lasted from the first sample to the second. It blocks the calling thread for that
    /// long and costs the cores nothing. Call it from a thread that is no core's.
    ///
    /// [`Builder::report_stalls`](crate::Builder::report_stalls) starts a thread that samples all the time.
    ///
    /// # Panics
    /// On a core's thread, which must not sleep.
    #[track_caller]
    pub fn stalls(&self, threshold: Duration) -> Vec<Stall> {
        self.observer.stalls(threshold)
    }

    /// The counters of every core.
    pub fn counters(&self) -> Vec<Counters> {
        self.observer.counters()
    }
}

/// Ends the threads for blocking work. The cores have ended, so nobody waits for results any more.
fn end_blocking(pools: &[Arc<BlockingPool>], patience: Duration) {
    let deadline = Instant::now() + patience;
    for pool in pools {
        let left = pool.end(deadline);
        if left > 0 {
            // The next node's have to end too.
            told(|| {
                tracing::warn!(
                    "{left} blocking closures still run {} s after the runtime's end and are left to themselves",
                    patience.as_secs()
                );
            });
        }
    }
}

impl<E> Drop for Running<E> {
    fn drop(&mut self) {
        if self.threads.is_empty() {
            return;
        }
        // The thread may be panicking already, and a second panic out of this destructor would end the
        // process.
        contained("the end of a runtime", || self.shared.cut());
        if self.is_on_own_thread() {
            // This thread has to end before its pool does. The others end by themselves.
            for pool in &self.blocking {
                contained("the end of blocking work", || pool.close());
            }
            return;
        }
        for thread in self.threads.drain(..) {
            if let Err(e) = end_of(thread) {
                told(|| tracing::error!("at the end of the runtime {e}"));
            }
        }
        self.end_watch();
        contained("the end of blocking work", || end_blocking(&self.blocking, BLOCKING_PATIENCE));
    }
}

impl<E> Running<E> {
    /// Whether the calling thread is one that the end waits for: a core's, or the one that looks for stalls.
    fn is_on_own_thread(&self) -> bool {
        let here = std::thread::current().id();
        let watch = self.watch.as_ref().is_some_and(|watch| watch.thread().id() == here);
        watch || self.threads.iter().any(|thread| thread.thread().id() == here)
    }

    /// Joins the thread that looks for stalls, which ends with the cores.
    fn end_watch(&mut self) {
        if let Some(Err(payload)) = self.watch.take().map(JoinHandle::join) {
            let e = panicked("the thread that watched for stalls", payload);
            told(|| tracing::error!("{e}"));
        }
    }
}

impl<E> std::fmt::Debug for Running<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("cores", &self.observer.members.len()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::numa::thread::Origin;
    use crate::testing::{at_the_next_event, has_acted};

    /// The pool of a node, and what ends its closure.
    fn busy_pool() -> (Arc<BlockingPool>, mpsc::Sender<()>) {
        let cpus = crate::numa::thread::affinity_of_current().unwrap();
        let pool = BlockingPool::new("busy".into(), cpus, Arc::new(Origin::of_current()), 1);
        let ((begin, begun), (end, ended)) = (mpsc::channel(), mpsc::channel::<()>());
        let work = async move {
            begin.send(()).unwrap();
            ended.recv().unwrap_err();
        };
        let queue = Arc::clone(&pool);
        let (runnable, task) = async_task::spawn(work, move |runnable| queue.push(runnable));
        task.detach();
        runnable.schedule();
        pool.ensure_thread();
        begun.recv().unwrap();
        (pool, end)
    }

    /// Seen to fail: with the event as it is, the panic comes out and the second pool goes on.
    #[test]
    fn a_subscriber_that_panics_over_the_threads_of_one_node_leaves_no_other_to_itself() {
        let ((first, _end_first), (second, _end_second)) = (busy_pool(), busy_pool());
        let _guard = at_the_next_event("annulus::launch::running", || panic!("the subscriber, on purpose"));
        end_blocking(&[first, Arc::clone(&second)], Duration::ZERO);
        assert!(has_acted());
        let queue = Arc::clone(&second);
        let (runnable, task) = async_task::spawn(async {}, move |runnable| queue.push(runnable));
        runnable.schedule();
        assert!(task.is_finished(), "a pool that has ended takes nothing more");
        drop(task.fallible());
    }
}
