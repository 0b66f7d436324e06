//! One value per core, each made, used and dropped on its own core.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::Core;
use crate::contained::Kept;
use crate::sync::oneshot::{self, oneshot};
use crate::{Error, ErrorKind, Handle, Result};

/// Distinguishes the values of one `Sharded` from those of another. 2^64 are never made.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A core's value. The fields are dropped in this order, so that the task that waits for the end is told
/// after the value is dropped.
struct Shard<T> {
    value: T,
    _gone: oneshot::CellSender<()>,
    /// Taken by `stop`.
    when_gone: RefCell<Option<oneshot::CellReceiver<()>>>,
}

impl<T> Shard<T> {
    fn made(value: T) -> Rc<Self> {
        let (gone, when_gone) = oneshot();
        Rc::new(Self { value, _gone: gone, when_gone: RefCell::new(Some(when_gone)) })
    }
}

type ShardMaker = dyn Fn(&Core) -> Result<()> + Send + Sync;

/// Makes a core's values before any core begins.
#[derive(Clone, Default)]
pub(crate) struct ShardMakers {
    makers: Vec<Arc<ShardMaker>>,
    /// The runtime whose cores their handles reach.
    runtime: Arc<OnceLock<Handle>>,
}

impl ShardMakers {
    pub(crate) fn add<T: 'static>(
        &mut self,
        make: impl Fn() -> Result<T> + Send + Sync + 'static,
    ) -> Sharded<T> {
        let sharded = Sharded::of(Arc::clone(&self.runtime));
        let id = sharded.id;
        self.makers.push(Arc::new(move |core| {
            core.shards.insert(id, Shard::made(make()?));
            Ok(())
        }));
        sharded
    }

    /// The runtime starts, and its cores can be reached by `handle`.
    pub(crate) fn begin(&self, handle: Handle) {
        self.runtime.get_or_init(|| handle);
    }

    /// Makes the values of `core`, the current one, in the order in which they were asked for.
    pub(crate) fn make(&self, core: &Core) -> Result<()> {
        self.makers.iter().try_for_each(|make| make(core))
    }
}

impl fmt::Debug for ShardMakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ShardMakers").field(&self.makers.len()).finish()
    }
}

/// One `T` on each core of a runtime: state that is split by core, so that nobody locks it.
///
/// Each `T` is made on its core, used there only, and dropped there: it need not be `Send`. The handle is
/// cloned freely and used from any core and any thread. Without [`stop`](Sharded::stop) each `T` lives until
/// its core ends. [`Runtime::sharded`](crate::Runtime::sharded) makes one before the cores begin.
///
/// ```
/// # fn main() -> annulus::Result<()> {
/// # let runtime = annulus::Runtime::builder().pool_bytes(1 << 20).build()?;
/// # let running = runtime.start(|| async {
/// #     annulus::cores::stopping().await;
/// #     annulus::Ok(())
/// # })?;
/// # let cores = running.handle().cores();
/// # let total = running.handle().submit_to_blocking(0, async || {
/// use annulus::cores::Sharded;
/// use std::cell::Cell;
///
/// let hits = Sharded::new(async || annulus::Ok(Cell::new(0))).await?;
/// hits.invoke_on(0, async |hits| hits.set(hits.get() + 5)).await?;
/// hits.invoke_on_all(async |hits| hits.set(hits.get() + 1)).await?;
/// let total = hits.map_reduce(async |hits| hits.get(), 0, |sum, hits| sum + hits).await?;
/// hits.stop(async |_| ()).await?;
/// # annulus::Ok(total)
/// # })??;
/// assert_eq!(total, 5 + cores);
/// # running.stop();
/// # running.wait()
/// # }
/// ```
pub struct Sharded<T: 'static> {
    id: u64,
    /// Empty until the runtime starts, if it was made before that.
    runtime: Arc<OnceLock<Handle>>,
    _value: PhantomData<fn() -> T>,
}

impl<T: 'static> Sharded<T> {
    fn of(runtime: Arc<OnceLock<Handle>>) -> Self {
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), runtime, _value: PhantomData }
    }

    fn runtime(&self) -> Result<&Handle> {
        self.runtime.get().ok_or_else(|| {
            let what = "the runtime has not started, so none of its cores has one of these yet";
            Error::new(ErrorKind::Ended, what)
        })
    }

    /// Makes a `T` on each core of the current core's runtime, by `factory`, all at the same time.
    ///
    /// # Errors
    /// The first error in the order of the cores: what a factory returned, [`ErrorKind::Panicked`] when it
    /// panicked, [`ErrorKind::Ended`] when a core has ended. The values of other cores are then dropped, each
    /// on its core.
    ///
    /// # Cancellation
    /// Factories that have begun are aborted. Values that were made stay until their core ends.
    ///
    /// # Panics
    /// On a thread that is no core's.
    pub async fn new<F>(factory: F) -> Result<Self>
    where
        F: AsyncFnOnce() -> Result<T> + Clone + Send + 'static,
    {
        let this = Self::of(Arc::new(OnceLock::from(Handle::of_current())));
        let id = this.id;
        let made = this.on_each(|runtime, core| {
            let factory = factory.clone();
            runtime.submit_to(core, async move || {
                let value = factory().await?;
                Core::with(|core| core.shards.insert(id, Shard::made(value)));
                Ok(())
            })
        });
        let made: Result<()> =
            made.await?.into_iter().try_for_each(|made| made.take().map_err(Error::from)?);
        if let Err(e) = made {
            // Where no value was made, or the core has ended, there is nothing to stop.
            drop(this.stop(async |_| ()).await);
            return Err(e);
        }
        Ok(this)
    }

    /// The current core's `T`.
    ///
    /// # Errors
    /// [`ErrorKind::Ended`] after [`stop`](Self::stop), and before the core has made it.
    ///
    /// # Panics
    /// On a thread that is no core's. A core of another runtime has none of these.
    pub fn local(&self) -> Result<Local<T>> {
        local(self.id)
    }

    /// Calls `f` with the `T` of core `core`, on that core.
    ///
    /// # Errors
    /// Those of [`SubmitError`](crate::cores::SubmitError), as an [`Error`]; [`ErrorKind::Ended`] after
    /// [`stop`](Self::stop), and before its runtime has started.
    ///
    /// # Cancellation
    /// As for [`submit_to`](crate::cores::submit_to).
    pub async fn invoke_on<F, R>(&self, core: usize, f: F) -> Result<R>
    where
        F: AsyncFnOnce(&T) -> R + Send + 'static,
        R: Send + 'static,
    {
        let id = self.id;
        self.runtime()?.submit_to(core, async move || Ok(f(&*local::<T>(id)?).await)).await?
    }

    /// Calls `f` on each core with its `T`, all at the same time, and waits until all have returned.
    ///
    /// # Errors
    /// The first error in the order of the cores, as for [`invoke_on`](Self::invoke_on). The calls on the
    /// other cores are finished first.
    ///
    /// # Cancellation
    /// As for [`submit_to`](crate::cores::submit_to), on each core.
    pub async fn invoke_on_all<F>(&self, f: F) -> Result<()>
    where
        F: AsyncFnOnce(&T) + Clone + Send + 'static,
    {
        self.map_reduce(f, (), |(), ()| ()).await
    }

    /// Calls `map` on each core with its `T`, all at the same time, and folds the results in the order of the
    /// cores.
    ///
    /// # Errors
    /// As for [`invoke_on_all`](Self::invoke_on_all).
    ///
    /// # Cancellation
    /// As for [`submit_to`](crate::cores::submit_to), on each core.
    pub async fn map_reduce<M, R, A>(&self, map: M, first: A, reduce: impl FnMut(A, R) -> A) -> Result<A>
    where
        M: AsyncFnOnce(&T) -> R + Clone + Send + 'static,
        R: Send + 'static,
    {
        let mapped = self.on_each(|_, core| self.invoke_on(core, map.clone())).await?;
        let mapped: Result<Vec<Kept<R>>> =
            mapped.into_iter().map(|mapped| mapped.take().map(Kept::new)).collect();
        Ok(mapped?.into_iter().map(Kept::take).fold(first, reduce))
    }

    /// Ends it in order, on all cores at the same time: no more calls find the `T`, `f` is called with it,
    /// and it is dropped when the last user has released it. Completes when all have been dropped.
    ///
    /// A [`Local`] that is kept keeps its `T`, and this waits for it. Stopping twice does nothing.
    ///
    /// # Errors
    /// The first error in the order of the cores: a core has ended (its `T` was dropped then), or `f`
    /// panicked.
    ///
    /// # Cancellation
    /// Cores that have begun still drop their `T`, but `f` may not have finished.
    pub async fn stop<F>(&self, f: F) -> Result<()>
    where
        F: AsyncFnOnce(&T) + Clone + Send + 'static,
    {
        let id = self.id;
        let ended = self.on_each(|runtime, core| {
            let f = f.clone();
            runtime.submit_to(core, async move || {
                let Some(shard) = Core::with(|core| core.shards.remove::<Shard<T>>(id)) else { return };
                let gone = shard.when_gone.take();
                f(&shard.value).await;
                drop(shard);
                if let Some(gone) = gone {
                    // Nothing is ever sent: the sender is dropped with the value, so this is no error.
                    let Err(oneshot::Canceled) = gone.await else { return };
                }
            })
        });
        ended.await?.into_iter().try_for_each(|ended| ended.take().map_err(Error::from))
    }

    /// One future for each core, all running at the same time. Their outputs are in the order of the cores.
    async fn on_each<Fut: Future>(
        &self,
        mut future: impl FnMut(&Handle, usize) -> Fut,
    ) -> Result<Vec<Kept<Fut::Output>>> {
        let runtime = self.runtime()?;
        Ok(super::all::all((0..runtime.cores()).map(|core| future(runtime, core))).await)
    }
}

fn local<T: 'static>(id: u64) -> Result<Local<T>> {
    let shard = Core::with(|core| core.shards.get(id)).ok_or_else(|| {
        Error::new(
            ErrorKind::Ended,
            "this core has none of these any more: it was stopped, or is of another runtime",
        )
    })?;
    Ok(Local(shard))
}

impl<T: 'static> Clone for Sharded<T> {
    fn clone(&self) -> Self {
        Self { id: self.id, runtime: Arc::clone(&self.runtime), _value: PhantomData }
    }
}

impl<T: 'static> fmt::Debug for Sharded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = self.runtime.get().map(Handle::cores);
        f.debug_struct("Sharded").field("cores", &cores).finish_non_exhaustive()
    }
}

/// The current core's value of a [`Sharded`]: derefs to it, and keeps it.
pub struct Local<T: 'static>(Rc<Shard<T>>);

impl<T: 'static> Deref for Local<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: fmt::Debug + 'static> fmt::Debug for Local<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
