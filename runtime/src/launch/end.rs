//! The end of a core, in two phases.
//!
//! First every core by itself: tasks are dropped, operations cancelled, and every CQE reaped, until the kernel holds
//! nothing of this core. Then all cores wait for each other, and only then rings and memory are released, since until
//! then another core may still hand something over.
//!
//! Closing a ring does **not** wait for what is in flight: a 32 MiB read was seen landing in memory 60 ms after
//! `close(2)` had returned. So what the kernel does not give back in [`PATIENCE`] is leaked, with a line that says so,
//! and never freed.
//!
//! The network keeps what was sent without a copy until the peer has acknowledged it, and no cancel changes that. A peer
//! that reads has [`GRACE`]; then the connection is reset, and the memory comes back. A connection that was handed over is
//! another core's to end: it is reset when that has closed it, so once more when all cores have come to their end. What
//! has left the runtime is never reset.

use std::time::{Duration, Instant};

use io_uring::{opcode, types};

use crate::contained::contained;
use crate::core::Core;
use crate::ring::Wait;
use crate::ring::user_data::Tag;
use crate::task::Woken;

/// How long the last CQEs may take. A disk that hangs for longer costs the memory of its operations.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long peers may take to acknowledge what was sent to them without a copy.
const GRACE: Duration = Duration::from_secs(1);
/// How often cancels are repeated: an operation that was between two states may have missed one.
const REPEAT: Duration = Duration::from_millis(50);

/// Ends a core on its own thread.
pub(super) fn of_core(core: Core) {
    let drained = {
        let _entered = core.enter();
        let shared = &core.shared;
        // What was sent here and not begun is dropped, and its senders told.
        // A panic of what is not ours must not keep the other cores waiting for this one, nor free what the kernel holds.
        contained("the end of a core's inbox", || core.close_inbox());
        contained("the end of a core's tasks", || {
            core.tasks.drop_all(|| shared.woken.take_all().collect::<Vec<Woken>>());
        });
        core.shards.clear();
        core.tasks.drop_ready();
        // From here on a task that another thread wakes is leaked by its waker.
        drop(shared.woken.close());
        contained("the end of a core's timers", || core.timers.clear());
        contained("the end of a core's memory", || core.growth.end());
        // What the last of them woke.
        core.tasks.drop_ready();
        // Destructors may have had something to say to other cores, which sleep until they are told.
        core.notify_peers_now();
        let grace = GRACE.min(core.zero_copy.patience);
        drain(&core, grace, PATIENCE)
    };
    let leaked = |drained| if drained { 0 } else { core.ops.in_kernel() as u64 };
    core.shared.counters.ops_leaked.set(leaked(drained));
    core.shared.runtime.arrive();
    core.shared.runtime.wait_for_all();
    let drained = drained || {
        let _entered = core.enter();
        drain(&core, Duration::ZERO, GRACE)
    };
    core.shared.counters.ops_leaked.set(leaked(drained));
    let Core { ring, ops, bufs, fairness, shared, .. } = core;
    // Streams that still stand in its lists: they go before the buffers.
    drop(fairness);
    if drained {
        bufs.close(&ring);
        return;
    }
    let left = ops.in_kernel();
    tracing::error!(
        "core {}: the kernel still holds {left} operations {} s after the end; their memory is leaked",
        shared.index,
        (PATIENCE + GRACE).as_secs()
    );
    ops.leak();
    bufs.leak();
    std::mem::forget(ring);
}

/// Cancels everything and takes every CQE; after `grace` it hurries what can be. False when the kernel did not give
/// everything back within `patience`.
fn drain(core: &Core, grace: Duration, patience: Duration) -> bool {
    let begun = Instant::now();
    let deadline = begun + patience;
    loop {
        // In each round: a connection that another core has may be closed there meanwhile.
        if begun.elapsed() >= grace {
            core.ops.force_release();
        }
        let entry = opcode::AsyncCancel2::new(types::CancelBuilder::any().all())
            .build()
            .user_data(Tag::Cancel.with(0));
        // SAFETY: a cancel points to nothing.
        unsafe { core.ring.push(&entry) };
        let round = Instant::now() + REPEAT;
        loop {
            let now = Instant::now();
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
