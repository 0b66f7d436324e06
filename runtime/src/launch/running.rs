//! A runtime at work, seen from outside.

use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::report::{CoreReport, Report};
use super::stalls::{Sampler, Stall};
use crate::blocking::pool::BlockingPool;
use crate::contained::panic_text;
use crate::core::handle::Handle;
use crate::core::shared::CoreShared;
use crate::core::state::RuntimeShared;
use crate::core::submit::SubmitError;
use crate::metrics::counters::Counters;
use crate::{Error, ErrorKind, Result};

/// How long closures that block may hold the end of the runtime up.
const BLOCKING_PATIENCE: Duration = Duration::from_secs(5);

/// A handle on a started runtime. Dropping it cuts the runtime and waits for its end.
pub struct Running<E = Error> {
    shared: Arc<RuntimeShared>,
    members: Vec<Arc<CoreShared>>,
    threads: Vec<JoinHandle<Result<(), E>>>,
    /// Looks out for stalls, if that was asked for; ends by itself when the cores have.
    watch: Option<JoinHandle<()>>,
    blocking: Vec<Arc<BlockingPool>>,
    reports: Vec<CoreReport>,
}

impl<E: From<Error> + Send + 'static> Running<E> {
    pub(super) fn new(
        shared: Arc<RuntimeShared>,
        members: Vec<Arc<CoreShared>>,
        threads: Vec<JoinHandle<Result<(), E>>>,
        watch: Option<JoinHandle<()>>,
        blocking: Vec<Arc<BlockingPool>>,
        reports: Vec<CoreReport>,
    ) -> Self {
        Self { shared, members, threads, watch, blocking, reports }
    }

    /// Asks every core to come to its end: [`cores::stopping`](crate::cores::stopping) completes there. Does not wait.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Ends every core now: tasks are dropped where they stand. Does not wait.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Waits until every core has ended, and for [blocking work](crate::spawn_blocking) that still runs, up to five seconds.
    ///
    /// # Errors
    /// The error of the first core, in the order of the plan, that had one.
    pub fn wait(mut self) -> Result<(), E> {
        let mut result = Ok(());
        for thread in std::mem::take(&mut self.threads) {
            let end = thread.join().unwrap_or_else(|payload| {
                let what = format!("a core panicked: {}", panic_text(&payload));
                Err(Error::new(ErrorKind::Panicked, what).into())
            });
            result = result.and(end);
        }
        self.end_watch();
        end_blocking(&self.blocking);
        result
    }

    /// A way in for other threads: send work to a core, ask for the end.
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.shared), self.members.iter().cloned().collect())
    }

    /// Runs an async closure on core `core` and gives its output, from any thread: [`Handle::submit_to`].
    ///
    /// # Errors
    /// [`SubmitError`](crate::cores::SubmitError).
    ///
    /// # Cancellation
    /// What was not begun never runs, what was begun is aborted.
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

    /// An eventfd that becomes readable when every core has ended, for a main thread that polls.
    pub fn finished_fd(&self) -> BorrowedFd<'_> {
        self.shared.finished.as_fd()
    }

    /// What is in force on each core, and where memory lies now.
    pub fn report(&self) -> Report {
        Report::inspect(&self.reports, &self.members)
    }

    /// Polls of tasks that keep their core from everything else: looks twice, `threshold` apart, and gives those that lasted
    /// from the first look to the second. So it blocks the calling thread for that long; the cores do not notice. Call it
    /// from a thread that is no core's.
    ///
    /// [`Builder::report_stalls`](crate::Builder::report_stalls) has a thread that goes on looking.
    pub fn stalls(&self, threshold: Duration) -> Vec<Stall> {
        let mut sampler = Sampler::new(&self.members);
        std::thread::sleep(threshold);
        sampler.sample(threshold)
    }

    /// The counters of every core.
    pub fn counters(&self) -> Vec<Counters> {
        self.members.iter().map(|core| core.counters.read(core.index)).collect()
    }
}

/// Ends the threads for blocking work. The cores have ended: nobody waits for results any more.
fn end_blocking(pools: &[Arc<BlockingPool>]) {
    let deadline = Instant::now() + BLOCKING_PATIENCE;
    for pool in pools {
        let left = pool.end(deadline);
        if left > 0 {
            tracing::warn!(
                "{left} blocking closures still run {} s after the runtime's end and are left to themselves",
                BLOCKING_PATIENCE.as_secs()
            );
        }
    }
}

impl<E> Drop for Running<E> {
    fn drop(&mut self) {
        if self.threads.is_empty() {
            return;
        }
        self.shared.cut();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a core panicked at the end of the runtime");
            }
        }
        self.end_watch();
        end_blocking(&self.blocking);
    }
}

impl<E> Running<E> {
    /// The cores have ended, and the watch with them.
    fn end_watch(&mut self) {
        if self.watch.take().is_some_and(|watch| watch.join().is_err()) {
            tracing::error!("the thread that looked out for stalls panicked");
        }
    }
}

impl<E> std::fmt::Debug for Running<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("cores", &self.members.len()).finish_non_exhaustive()
    }
}
