//! The threads of a node that blocking work runs on, and the queue before them.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_task::Runnable;

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
    /// There is work, or the pool has ended.
    work: Condvar,
    /// A thread has ended.
    gone: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Runnable>,
    threads: usize,
    /// Threads that wait for work.
    idle: usize,
    ended: bool,
    /// Why the last closures that found no thread at all did not: what `Error`'s text was.
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

    /// One pool for each node that has a core. No thread is started.
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

    /// Starts a thread if more work waits than threads do. Where there is none at all, and none can be started, all that
    /// waits is dropped: [`refusal`](Self::refusal) tells why.
    pub(crate) fn ensure_thread(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.queue.len() <= state.idle || state.threads >= self.most || state.ended {
            return;
        }
        state.threads += 1;
        drop(state);
        let pool = Arc::clone(self);
        let started =
            spawn_helper(self.name.clone(), self.cpus.clone(), Arc::clone(&self.origin), move || {
                pool.serve()
            });
        let Err(e) = started else { return };
        let mut state = self.lock();
        state.threads -= 1;
        if state.threads > 0 {
            // It will be done, only later.
            let threads = state.threads;
            drop(state);
            tracing::warn!("blocking work waits for one of {threads} threads: {e}");
            return;
        }
        let stranded = std::mem::take(&mut state.queue);
        state.refusal = Some(e.to_string());
        drop(state);
        drop(stranded);
    }

    /// Why work was dropped that was not run; `None` when it was because of the end.
    pub(crate) fn refusal(&self) -> Option<Error> {
        let state = self.lock();
        if state.ended {
            return None;
        }
        state.refusal.as_ref().map(|why| Error::new(ErrorKind::Platform, why.clone()))
    }

    /// A thread's life.
    fn serve(&self) {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.queue.pop_front() {
                drop(state);
                // Closures are contained; what may panic here is a waker that is not ours.
                if catch_unwind(AssertUnwindSafe(|| work.run())).is_err() {
                    tracing::error!("a waker panicked on a thread for blocking work");
                }
                state = self.lock();
                continue;
            }
            if state.ended {
                break;
            }
            state.idle += 1;
            let (after, waited) =
                self.work.wait_timeout(state, self.idle_time).unwrap_or_else(PoisonError::into_inner);
            state = after;
            state.idle -= 1;
            if waited.timed_out() && state.queue.is_empty() {
                break;
            }
        }
        // Under the same lock as the last look at the queue: whoever pushes now sees that a thread is to be started.
        state.threads -= 1;
        drop(state);
        self.gone.notify_all();
    }

    /// Drops what has not begun and waits for what runs, until `deadline`. Returns how many threads run on.
    pub(crate) fn end(&self, deadline: Instant) -> usize {
        let mut state = self.lock();
        state.ended = true;
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        drop(queue);
        self.work.notify_all();
        let mut state = self.lock();
        while state.threads > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.gone.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.threads
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
