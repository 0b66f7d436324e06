//! A handle on a runtime for threads outside it.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;

use super::Core;
use super::state::RuntimeShared;
use crate::block_on::block_on;
use crate::core::shared::CoreShared;
use crate::core::submit::{SubmitError, send};

/// A handle on a runtime, for any thread: an application's own main thread, or a task of another runtime such
/// as tokio. A clone costs two reference counts. A handle keeps nothing running.
///
/// It comes from [`Running::handle`](crate::Running::handle), or on a core from
/// [`cores::handle`](crate::cores::handle).
#[derive(Clone)]
pub struct Handle {
    runtime: Arc<RuntimeShared>,
    members: Arc<[Arc<CoreShared>]>,
}

impl Handle {
    pub(crate) fn new(runtime: Arc<RuntimeShared>, members: Arc<[Arc<CoreShared>]>) -> Self {
        Self { runtime, members }
    }

    /// A handle on the runtime of the current core.
    ///
    /// # Panics
    /// On a thread that is no core's.
    pub(crate) fn of_current() -> Self {
        Core::with(|core| Self::new(Arc::clone(&core.shared.runtime), core.peers.members()))
    }

    /// How many cores the runtime has.
    pub fn cores(&self) -> usize {
        self.members.len()
    }

    /// Runs an async closure on core `core` and gives its output:
    /// [`cores::submit_to`](crate::cores::submit_to) for any thread. The future is tied to no runtime: the
    /// waker of its poller wakes it.
    ///
    /// # Errors
    /// [`SubmitError`], as for [`cores::submit_to`](crate::cores::submit_to).
    ///
    /// # Cancellation
    /// As there: work that has not begun never runs, and work that has begun is aborted.
    #[track_caller]
    pub fn submit_to<F, T>(
        &self,
        core: usize,
        f: F,
    ) -> impl Future<Output = Result<T, SubmitError>> + Send + use<F, T>
    where
        F: AsyncFnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let at = Location::caller();
        let (target, cores) = (self.members.get(core).cloned(), self.cores());
        async move {
            match target {
                Some(target) => send(target, f, at).await,
                None => Err(SubmitError::NoSuchCore { core, cores }),
            }
        }
    }

    /// As [`submit_to`](Self::submit_to), and blocks the thread until the output is there.
    ///
    /// ```
    /// # fn main() -> annulus::Result<()> {
    /// let runtime = annulus::Runtime::builder().pool_bytes(1 << 20).build()?;
    /// let running = runtime.start(|| async {
    ///     annulus::cores::stopping().await;
    ///     annulus::Ok(())
    /// })?;
    /// let answer = running.handle().submit_to_blocking(0, async || 6 * 7)?;
    /// assert_eq!(answer, 42);
    /// running.stop();
    /// running.wait()
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SubmitError`].
    ///
    /// # Panics
    /// On a core's thread, which must not sleep: use [`cores::submit_to`](crate::cores::submit_to) there.
    #[track_caller]
    pub fn submit_to_blocking<F, T>(&self, core: usize, f: F) -> Result<T, SubmitError>
    where
        F: AsyncFnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        block_on(self.submit_to(core, f))
    }

    /// Asks every core to end, as [`Running::stop`](crate::Running::stop) does.
    pub fn stop(&self) {
        self.runtime.stop();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("cores", &self.cores()).finish_non_exhaustive()
    }
}
