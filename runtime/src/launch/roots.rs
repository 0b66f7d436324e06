//! Other shapes of a program than one root future for each core: one body whose value is wanted, one core
//! that does something else than the others, a value of each core.

use std::future::Future;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};

use super::builder::Runtime;
use crate::contained::{Kept, Payload};
use crate::cores;
use crate::task::caught::caught_of;
use crate::{Error, ErrorKind, Result};

/// A value on its way from a core to the thread that waits for the end of all.
struct Slot<T>(Arc<Mutex<Option<Kept<T>>>>);

impl<T> Slot<T> {
    fn holding(value: Option<T>) -> Self {
        Self(Arc::new(Mutex::new(value.map(Kept::new))))
    }

    fn put(&self, value: T) {
        // What it replaces, if anything, is dropped outside the lock.
        let old = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(Kept::new(value));
        drop(old);
    }

    fn take(&self) -> Option<T> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        held.map(Kept::take)
    }
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The error of a core that was ended before its root future.
fn cut_short() -> Error {
    Error::new(ErrorKind::Ended, "a core was ended before its root future had given its value")
}

impl Runtime {
    /// Runs `body` once, on the first core of the plan, and returns its value. Other cores, if the plan has
    /// any, serve [`submit_to`](crate::cores::submit_to) and [`Sharded`](crate::cores::Sharded) until `body`
    /// has ended; then all end, as in [`run`](Self::run), and tasks that are left are dropped.
    ///
    /// The body runs on the core's own thread, so it is `Send`, and so is its value. The future that it makes
    /// need not be. On a core's thread of another runtime this call stops that core meanwhile, so
    /// [`spawn_blocking`](crate::spawn_blocking) should make it there.
    ///
    /// ```
    /// # fn main() -> annulus::Result<()> {
    /// let runtime = annulus::Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?;
    /// let name = String::from("embedded");
    /// let length = runtime.block_on(async move || {
    ///     annulus::yield_now().await;
    ///     name.len()
    /// })?;
    /// assert_eq!(length, 8);
    /// # annulus::Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`run`](Self::run) when the runtime could not start; [`ErrorKind::Panicked`] when code of the
    /// application panicked outside its tasks. Linux 6.1 is needed.
    ///
    /// # Panics
    /// When `body` does, with the same payload, once all cores have ended.
    #[track_caller]
    pub fn block_on<F, T>(self, body: F) -> Result<T>
    where
        F: AsyncFnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let contained = async move || Ok(caught_of(async move { body().await }).await);
        let output: Result<T, Payload> = self.run_with_first(contained, serve)?;
        output.or_else(|payload| resume_unwind(payload))
    }

    /// Runs `first` once, on the first core of the plan, and `others` once on each of the others, and returns
    /// the value of `first`.
    ///
    /// When `first` has ended the others are asked to stop ([`cores::stopping`] completes there), and this
    /// waits until they have. One of the others may end earlier. Its core ends then, and serves nobody. The
    /// first error, or panic, ends all cores.
    ///
    /// ```
    /// # fn main() -> annulus::Result<()> {
    /// use annulus::cores;
    ///
    /// let runtime = annulus::Runtime::builder().pool_bytes(1 << 20).build()?;
    /// let cores = runtime.run_with_first(
    ///     async || annulus::Ok(cores::count()), // such as a console, or the server of metrics
    ///     || async {
    ///         assert!(cores::index() > 0);
    ///         cores::stopping().await;
    ///         annulus::Ok(())
    ///     },
    /// )?;
    /// assert!(cores >= 1);
    /// # annulus::Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors that `first` or one of the others returned, and those of [`run`](Self::run).
    #[track_caller]
    pub fn run_with_first<F, T, G, Fut>(self, first: F, others: G) -> Result<T>
    where
        F: AsyncFnOnce() -> Result<T> + Send + 'static,
        T: Send + 'static,
        G: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + 'static,
    {
        let (first, value) = (Slot::holding(Some(first)), Slot::holding(None));
        let put = value.clone();
        let running = self.start(move || {
            let first = if cores::index() == 0 { first.take() } else { None };
            let other = if first.is_none() { Some(others()) } else { None };
            let put = put.clone();
            async move {
                if let Some(other) = other {
                    return other.await;
                }
                if let Some(first) = first {
                    put.put(first().await?);
                    cores::handle().stop();
                }
                crate::Ok(())
            }
        })?;
        running.wait()?;
        value.take().ok_or_else(cut_short)
    }

    /// Runs `root` as [`run`](Self::run) does and returns a value of each core, in the order of the cores.
    ///
    /// ```
    /// # fn main() -> annulus::Result<()> {
    /// let runtime = annulus::Runtime::builder().pool_bytes(1 << 20).build()?;
    /// let planned: Vec<_> = runtime.plan().cores().iter().map(|core| core.cpu).collect();
    /// let ran_on = runtime.run_for_each(|| async { annulus::Ok(annulus::cores::cpu()) })?;
    /// assert_eq!(ran_on, planned);
    /// # annulus::Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    #[track_caller]
    pub fn run_for_each<F, Fut, T>(self, root: F) -> Result<Vec<T>>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T>> + 'static,
        T: Send + 'static,
    {
        let values: Vec<Slot<T>> = self.plan.cores().iter().map(|_| Slot::holding(None)).collect();
        let put = values.clone();
        let running = self.start(move || {
            let (future, put) = (root(), put[cores::index()].clone());
            async move {
                put.put(future.await?);
                crate::Ok(())
            }
        })?;
        running.wait()?;
        // All are taken first, because a missing one drops the others.
        let taken: Vec<_> = values.iter().map(|slot| slot.take().map(Kept::new)).collect();
        taken.into_iter().map(|value| value.map(Kept::take).ok_or_else(cut_short)).collect()
    }
}

/// The root future of a core that others send work to.
async fn serve() -> Result<()> {
    cores::stopping().await;
    Ok(())
}
