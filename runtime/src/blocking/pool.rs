//! The threads of a node that blocking work runs on, and the queue before them.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_task::Runnable;

use crate::contained::{contained, told};
use crate::numa::plan::PlannedCore;
use crate::numa::thread::{Origin, spawn_helper};
use crate::numa::topology::Topology;
use crate::numa::{CpuSet, NodeId};
use crate::{Error, ErrorKind};

/// How long a thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// The threads of one node.
pub(crate) struct BlockingPool {
    name: String,
    cpus: CpuSet,
    origin: Arc<Origin>,
    most: usize,
    idle_time: Duration,
    state: Mutex<State>,
    /// Notified when there is work, or the pool has ended.
    work: Condvar,
    /// Notified when a thread has ended.
    gone: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Runnable>,
    threads: usize,
    /// How many threads wait for work.
    idle: usize,
    ended: bool,
    /// Why the last closures that found no thread at all were not run: an `Error`'s text.
    refusal: Option<String>,
}

impl BlockingPool {
    pub(crate) fn new(name: String, cpus: CpuSet, origin: Arc<Origin>, most: usize) -> Arc<Self> {
        Arc::new(Self {
            name,
            cpus,
            origin,
            most,
            idle_time: IDLE,
            state: Mutex::default(),
            work: Condvar::new(),
            gone: Condvar::new(),
        })
    }

    /// One pool for each node that has a core. It starts no thread.
    pub(crate) fn for_nodes(
        name: &str,
        cores: &[PlannedCore],
        topology: &Topology,
        most: usize,
    ) -> BTreeMap<NodeId, Arc<Self>> {
        let origin = Arc::new(Origin::of_current());
        let mut pools = BTreeMap::new();
        for core in cores {
            pools.entry(core.node).or_insert_with(|| {
                let cpus = topology.node(core.node).map_or_else(|| core.cpu.into(), |node| node.cpus.clone());
                Self::new(format!("{name}-blk{}", core.node), cpus, Arc::clone(&origin), most)
            });
        }
        pools
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of the application runs while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts work into the queue. After the end it is dropped, which tells its handle.
    pub(crate) fn push(&self, work: Runnable) {
        let mut state = self.lock();
        if state.ended {
            drop(state);
            drop(work);
            return;
        }
        state.queue.push_back(work);
        drop(state);
        self.work.notify_one();
    }

    /// Starts a thread if more closures wait than threads do. If there is no thread at all and none can be
    /// started, all that waits is dropped, and [`refusal`](Self::refusal) has the reason.
    pub(crate) fn ensure_thread(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.queue.len() <= state.idle || state.threads >= self.most || state.ended {
            return;
        }
        state.threads += 1;
        drop(state);
        let place = Place { pool: Arc::clone(self), left: false };
        let started =
            spawn_helper(self.name.clone(), self.cpus.clone(), Arc::clone(&self.origin), move || {
                place.serve()
            });
        let Err(e) = started else { return };
        // The closure's `Place` was dropped with it, so this thread is not counted any more.
        let threads = self.strand(|| e.to_string());
        if threads > 0 {
            // The work is done later, by another thread. Destructors of sockets that linger come here, and
            // they must not panic.
            told(|| tracing::warn!("blocking work waits for one of {threads} threads: {e}"));
        }
    }

    /// A thread has ended, or could not be started. If there is none left, what waits is dropped, because of
    /// `why`. Returns how many threads there are.
    fn strand(&self, why: impl FnOnce() -> String) -> usize {
        let mut state = self.lock();
        if state.threads > 0 || state.queue.is_empty() {
            return state.threads;
        }
        let stranded = std::mem::take(&mut state.queue);
        state.refusal = Some(why());
        drop(state);
        drop(stranded);
        0
    }

    /// Why work was dropped that was not run; `None` when the reason was the end.
    pub(crate) fn refusal(&self) -> Option<Error> {
        let state = self.lock();
        if state.ended {
            return None;
        }
        state.refusal.as_ref().map(|why| Error::new(ErrorKind::Platform, why.clone()))
    }

    /// Drops what has not begun. Nothing begins after it.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.ended = true;
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        drop(queue);
        self.work.notify_all();
    }

    /// Drops what has not begun and waits for what runs, until `deadline`. Returns how many threads are still
    /// running. It does not wait for the calling thread, if that is one of them.
    pub(crate) fn end(&self, deadline: Instant) -> usize {
        self.close();
        let own = usize::from(SERVES.get() == std::ptr::from_ref(self).addr());
        let mut state = self.lock();
        while state.threads > own {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.gone.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.threads - own
    }
}

thread_local! {
    /// The address of the pool that this thread works for. The thread keeps the pool alive.
    static SERVES: Cell<usize> = const { Cell::new(0) };
}

/// One thread that the pool counts, until this is dropped: however the thread ends, and also if it never
/// begins.
struct Place {
    pool: Arc<BlockingPool>,
    /// It is not counted any more.
    left: bool,
}

impl Place {
    /// Runs work until there is none, or the pool has ended.
    fn serve(mut self) {
        let pool = Arc::clone(&self.pool);
        SERVES.set(Arc::as_ptr(&pool).addr());
        let mut state = pool.lock();
        loop {
            if let Some(work) = state.queue.pop_front() {
                drop(state);
                // Closures and wakers are contained, and async-task itself does not panic.
                contained("a thread for blocking work", || _ = work.run());
                state = pool.lock();
                continue;
            }
            if state.ended {
                break;
            }
            state.idle += 1;
            let (after, waited) =
                pool.work.wait_timeout(state, pool.idle_time).unwrap_or_else(PoisonError::into_inner);
            state = after;
            state.idle -= 1;
            if waited.timed_out() && state.queue.is_empty() {
                break;
            }
        }
        // It happens under the same lock as the last check of the queue, so a thread that pushes afterwards
        // sees that another one must be started.
        self.leave(state);
    }

    fn leave(&mut self, mut state: MutexGuard<'_, State>) {
        if !std::mem::replace(&mut self.left, true) {
            state.threads -= 1;
        }
        drop(state);
        self.pool.gone.notify_all();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        // The thread panicked before its first closure, or could not be started.
        let pool = Arc::clone(&self.pool);
        self.leave(pool.lock());
        if std::thread::panicking() {
            contained("blocking work that was not run", || {
                pool.strand(|| "its thread panicked while it began".to_owned());
            });
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
