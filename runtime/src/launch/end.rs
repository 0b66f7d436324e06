//! The end of a core, in two phases.
//!
//! First each core ends by itself: tasks are dropped, operations cancelled, and every CQE is reaped, until
//! the kernel holds nothing of this core. Then all cores wait for each other. Only after that rings and
//! memory are released, because until then another core may still hand something over.
//!
//! Closing a ring does **not** wait for what is in flight: a 32 MiB read was seen landing in memory 60 ms
//! after `close(2)` had returned. So what the kernel does not give back in [`PATIENCE`] is leaked, with a
//! line in the log, and never freed.
//!
//! The network keeps what was sent without a copy until the peer has acknowledged it, and no cancel changes
//! that. A peer that reads has [`GRACE`]; then the connection is reset, and the memory comes back. A
//! connection that was handed over to another core is that core's to end: it is reset when that core has
//! closed it, so resetting is tried once more when all cores have come to their end. A connection that has
//! left the runtime is never reset.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use io_uring::{opcode, types};

use super::faults::{Faults, panicked};

use crate::clock;
use crate::contained::{caught, contained};
use crate::core::Core;
use crate::core::state::Arrival;
use crate::ring::Wait;
use crate::ring::user_data::Tag;

/// How long the last CQEs may take. A disk that hangs for longer costs the memory of its operations.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long peers may take to acknowledge what was sent to them without a copy.
const GRACE: Duration = Duration::from_secs(1);
/// How often cancels are repeated: an operation that was between two states may have missed one.
const REPEAT: Duration = Duration::from_millis(50);

/// Ends a core on its own thread. A panic of code that is not ours becomes a fault and stops nothing: the
/// other cores wait for this one, and a core that could not be drained frees nothing that the kernel holds.
pub(super) fn of_core(core: ManuallyDrop<Core>, arrival: Arrival, faults: &mut Faults) {
    let drained = {
        let _entered = core.enter();
        let shared = &core.shared;
        // Work that was sent here and not begun is dropped, and its senders are told.
        step(faults, "the end of a core's inbox", || core.close_inbox());
        step(faults, "the end of a core's tasks", || core.tasks.drop_all());
        step(faults, "the end of a core's values", || core.shards.clear());
        step(faults, "the end of a core's tasks", || core.tasks.drop_ready());
        // Wakers that are left on other threads wake nobody.
        step(faults, "the end of a core's tasks", || drop(shared.woken.close()));
        step(faults, "the end of a core's timers", || core.timers.clear());
        step(faults, "the end of a core's memory", || core.growth.end());
        // The tasks that the last drops woke.
        step(faults, "the end of a core's tasks", || core.tasks.drop_ready());
        // Destructors may have sent something to other cores, which sleep until they are notified.
        step(faults, "a core's last words", || core.notify_peers_now());
        let grace = GRACE.min(core.zero_copy.patience);
        drain(&core, grace, PATIENCE, faults)
    };
    let runtime = Arc::clone(&core.shared.runtime);
    let leaked = |drained| if drained { 0 } else { core.ops.in_kernel() as u64 };
    core.shared.counters.ops_leaked.set(leaked(drained));
    arrival.arrive();
    runtime.wait_for_all();
    let drained = drained || {
        let _entered = core.enter();
        drain(&core, Duration::ZERO, GRACE, faults)
    };
    core.shared.counters.ops_leaked.set(leaked(drained));
    step(faults, "the end of a core's memory", || release(core, drained));
}

/// Runs a step of the end.
fn step<T>(faults: &mut Faults, what: &'static str, f: impl FnOnce() -> T) -> Option<T> {
    faults.note(caught(f).map_err(|payload| panicked(what, payload)))
}

/// Frees what the core owned, or leaks what the kernel holds.
fn release(core: ManuallyDrop<Core>, drained: bool) {
    let core = ManuallyDrop::into_inner(core);
    let Core { ring, ops, bufs, fairness, shared, .. } = core;
    // Streams that are still in its lists must go before the buffers.
    drop(fairness);
    if drained {
        // Before the buffers: they may have some.
        ops.drop_answered(&ring);
        bufs.close(&ring);
        return;
    }
    let left = ops.in_kernel();
    let index = shared.index;
    // They are leaked before the event, because its subscriber may panic.
    ops.leak();
    bufs.leak();
    std::mem::forget(ring);
    tracing::error!(
        "core {index}: the kernel still holds {left} operations {} s after the end; their memory is leaked",
        (PATIENCE + GRACE).as_secs()
    );
}

/// Drains the core as [`drain_ring`] does. A core whose ring panics is not drained.
fn drain(core: &Core, grace: Duration, patience: Duration, faults: &mut Faults) -> bool {
    step(faults, "the end of a core's operations", || drain_ring(core, grace, patience)).unwrap_or(false)
}

/// Cancels everything and takes every CQE. After `grace` it resets the connections that can be reset. False
/// when the kernel did not give everything back within `patience`.
fn drain_ring(core: &Core, grace: Duration, patience: Duration) -> bool {
    let begun = clock::now();
    let deadline = begun + patience;
    loop {
        // This is done in each round, because another core may close a connection that it was given
        // meanwhile.
        if begun.elapsed() >= grace {
            contained("an operation that was to force_release", || core.ops.force_release());
        }
        let entry = opcode::AsyncCancel2::new(types::CancelBuilder::any().all())
            .build()
            .user_data(Tag::Cancel.with(0));
        // SAFETY: a cancel points to nothing.
        unsafe { core.ring.push(&entry) };
        let round = clock::now() + REPEAT;
        loop {
            let now = clock::now();
            let wait = if core.ops.in_kernel() == 0 {
                Wait::No
            } else {
                Wait::For(round.saturating_duration_since(now))
            };
            if let Err(e) = core.ring.enter(wait) {
                tracing::error!("core {}: the ring cannot be drained: {e}", core.shared.index);
                return false;
            }
            let reaped = core.ring.reap(|cqe| contained("the end of an operation", || core.dispatch(cqe)));
            core.tasks.drop_ready();
            core.notify_peers_now();
            if core.ops.in_kernel() == 0 && reaped == 0 && !core.ring.wants_enter() {
                return true;
            }
            if now >= deadline && core.ops.in_kernel() > 0 {
                return false;
            }
            if now >= round {
                break;
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
