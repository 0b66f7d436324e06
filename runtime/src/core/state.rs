//! What the cores of one runtime share: whether to go on, which cores have not ended, and the listener
//! groups.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::groups::Groups;
use super::shared::CoreShared;
use crate::contained::{contained, told};
use crate::error::os;

const GO_ON: u8 = 0;
const STOP: u8 = 1;
const CUT: u8 = 2;

/// How far the cores have come, together.
#[derive(Default)]
struct Progress {
    /// `true`: every core is up, and all may begin. `false`: one is not, and all must give up.
    gate: Option<bool>,
    /// Cores that have not yet reaped their last CQE.
    busy: usize,
}

/// Shared by the cores of a runtime.
pub(crate) struct RuntimeShared {
    cores: usize,
    stop_state: AtomicU8,
    progress: Mutex<Progress>,
    changed: Condvar,
    members: Mutex<Vec<Weak<CoreShared>>>,
    pub(crate) groups: Groups,
    /// Readable when every core has ended.
    pub(crate) finished: OwnedFd,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while one of these is held leaves nothing half-done: each critical section is one store.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RuntimeShared {
    pub(crate) fn new(cores: usize) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            cores,
            stop_state: AtomicU8::new(GO_ON),
            progress: Mutex::new(Progress { gate: None, busy: cores }),
            changed: Condvar::new(),
            members: Mutex::default(),
            groups: Groups::default(),
            finished: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(os)?,
        }))
    }

    /// How many cores there are.
    pub(crate) fn cores(&self) -> usize {
        self.cores
    }

    pub(crate) fn set_members(&self, members: &[Arc<CoreShared>]) {
        *lock(&self.members) = members.iter().map(Arc::downgrade).collect();
    }

    /// The cores, by index. There are fewer than planned when one has not come up.
    pub(crate) fn members(&self) -> Vec<Arc<CoreShared>> {
        lock(&self.members).iter().filter_map(Weak::upgrade).collect()
    }

    /// Whether the root futures were asked to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop_state.load(Ordering::Acquire) >= STOP
    }

    /// Whether all tasks are to be dropped now.
    pub(crate) fn is_cut(&self) -> bool {
        self.stop_state.load(Ordering::Acquire) >= CUT
    }

    /// Asks every core to end.
    pub(crate) fn stop(&self) {
        self.raise(STOP);
    }

    /// Ends every core now.
    pub(crate) fn cut(&self) {
        self.raise(CUT);
    }

    fn raise(&self, state: u8) {
        self.stop_state.fetch_max(state, Ordering::AcqRel);
        for core in self.members() {
            // It is signalled whatever its doorbell says: a core whose ring has failed may have cleared
            // `SLEEPY` and never sent the signal.
            core.signal();
        }
    }

    /// Lets the cores begin (`true`), or has them give up; the first call decides.
    fn open_gate(&self, go: bool) {
        lock(&self.progress).gate.get_or_insert(go);
        self.changed.notify_all();
    }

    /// Waits until every core is up. `false`: one is not, and the caller gives up.
    pub(crate) fn wait_at_gate(&self) -> bool {
        let mut progress = lock(&self.progress);
        loop {
            if let Some(go) = progress.gate {
                return go;
            }
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Counts one more core that the others wait for at the end.
    pub(crate) fn awaited(self: &Arc<Self>) -> Arrival {
        Arrival(Some(Arc::clone(self)))
    }

    fn arrive(&self) {
        let all = {
            let mut progress = lock(&self.progress);
            progress.busy = progress.busy.saturating_sub(1);
            progress.busy == 0
        };
        if !all {
            return;
        }
        self.changed.notify_all();
        if let Err(e) = rustix::io::write(&self.finished, &1u64.to_ne_bytes()) {
            told(|| tracing::error!("the end of the runtime cannot be signalled: {e}"));
        }
    }

    /// Waits at most `patience` until every core has arrived. Returns whether they have.
    pub(crate) fn all_arrived_within(&self, patience: Duration) -> bool {
        let progress = lock(&self.progress);
        let waited = self.changed.wait_timeout_while(progress, patience, |progress| progress.busy > 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.busy == 0
    }

    /// Waits until every core has arrived.
    pub(crate) fn wait_for_all(&self) {
        let mut progress = lock(&self.progress);
        while progress.busy > 0 {
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A core that the others wait for at the end. It arrives however its thread ends, and even if the thread
/// never began. If it is dropped before [`arrive`](Self::arrive) was called, it ends the others as well.
pub(crate) struct Arrival(Option<Arc<RuntimeShared>>);

impl Arrival {
    /// This core will not access another's memory any more, and no kernel work writes to its own.
    pub(crate) fn arrive(mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.arrive();
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let Some(runtime) = self.0.take() else { return };
        // The thread may be panicking: a second panic that left this destructor would end the process.
        contained("the end of the other cores", || runtime.cut());
        runtime.arrive();
    }
}

/// Holds the cores back until it is known whether all are up. If it is dropped unopened, they give up.
pub(crate) struct Gate(Arc<RuntimeShared>);

impl Gate {
    pub(crate) fn new(runtime: &Arc<RuntimeShared>) -> Self {
        Self(Arc::clone(runtime))
    }

    /// Lets the cores begin.
    pub(crate) fn open(self) {
        self.0.open_gate(true);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.0.open_gate(false);
    }
}
