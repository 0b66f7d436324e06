//! A core's thread: it brings the core up, runs its loop until that is over, and then runs the
//! [end](super::end).

use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crossbeam_channel::Sender;

use super::bring_up::{CoreConfig, block_sigpipe, bring_up};
use super::end;
use super::faults::{Faults, panicked};
use super::report::CoreReport;
use crate::contained::{Kept, caught};
use crate::core::Core;
use crate::core::inside::Inside;
use crate::core::state::Arrival;
use crate::task::{JoinHandle, spawn_at};
use crate::{Error, Result};

/// The thread of a core, from its first instruction to its last. If anything panics in it, others wait for
/// `arrival` only.
pub(super) fn run<F, Fut, E>(
    config: CoreConfig,
    root: &F,
    ready: Sender<Result<CoreReport>>,
    arrival: Arrival,
) -> Result<(), E>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<(), E>> + 'static,
    E: From<Error> + Send + 'static,
{
    let runtime = Arc::clone(&config.shared.runtime);
    // The makers are the application's, and the last clone may be dropped here.
    let (started_at, shards) = (config.started_at, Kept::new(config.shards.clone()));
    let up = contain(|| {
        // Log lines of the application on a core carry the core's index.
        let span = tracing::info_span!("core", index = config.core.index, cpu = config.core.cpu.0);
        let inside = Inside::enter(span);
        block_sigpipe().map_err(|e| Error::io("cannot block SIGPIPE", e))?;
        Ok((inside, bring_up(config)?))
    });
    let (inside, (core, report)) = match up {
        Ok(up) => up,
        Err(e) => {
            // The starter waits for one message of each core. If the starter has gone, nobody waits.
            drop(ready.send(Err(e)));
            arrival.arrive();
            return Ok(());
        }
    };
    // A panic must not free memory that the kernel may still write to.
    let core = ManuallyDrop::new(core);
    let made = contain(|| {
        let _entered = core.enter();
        shards.take().make(&core)
    });
    drop(ready.send(made.map(|()| report)));
    drop(ready);
    let turned = if runtime.wait_at_gate() {
        core.peers.learn_rings();
        contain(|| Ok(Kept::new(run_until_over(&core, root, started_at))))
    } else {
        Ok(Kept::new(Ok(())))
    };
    let mut faults = Faults::default();
    let result = faults.note(turned).unwrap_or_else(|| Kept::new(Ok(())));
    if faults.any() || result.get().is_some_and(Result::is_err) {
        faults.note(contain(|| {
            runtime.cut();
            Ok(())
        }));
    }
    end::of_core(core, arrival, &mut faults);
    faults.note(contain(|| inside.leave().map_err(|payload| panicked("a core", payload))));
    // The error of the root future comes first. Its content is the application's.
    let result = result.take();
    match faults.first() {
        Some(e) if result.is_ok() => Err(e.into()),
        _ => result,
    }
}

/// Runs `f`; a panic becomes an error.
fn contain<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    caught(f).unwrap_or_else(|payload| Err(panicked("a core", payload)))
}

fn run_until_over<F, Fut, E>(core: &Core, root: &F, started_at: &'static Location<'static>) -> Result<(), E>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<(), E>> + 'static,
    E: From<Error> + Send + 'static,
{
    let _entered = core.enter();
    core.arm_doorbell();
    // The closure runs inside the task: a panic in it is contained like any other.
    let mut root = match caught(root) {
        Ok(future) => spawn_at(started_at, future),
        Err(payload) => return Err(panicked("a root future", payload).into()),
    };
    match core.options.measure_waits {
        true => run_loop::<E, true>(core, &mut root),
        false => run_loop::<E, false>(core, &mut root),
    }
}

/// The loop, until the root future or the runtime is over. With `NOTES` the core notes what tasks wait for:
/// a loop of its own, so that the other one has no branch for it.
fn run_loop<E: From<Error>, const NOTES: bool>(
    core: &Core,
    root: &mut JoinHandle<Result<(), E>>,
) -> Result<(), E> {
    let mut told = false;
    let runtime = &core.shared.runtime;
    loop {
        core.run_tasks::<NOTES>()?;
        // It is checked before the core may sleep, because nothing would wake the core for it.
        if let Some(result) = finished(root) {
            return result;
        }
        if runtime.is_stopping() {
            if !std::mem::replace(&mut told, true) {
                core.tasks.stop.wake_all();
            }
            if runtime.is_cut() {
                return Ok(());
            }
        }
        core.tick_ring::<NOTES>()?;
    }
}

fn finished<E: From<Error>>(root: &mut JoinHandle<Result<(), E>>) -> Option<Result<(), E>> {
    if !root.is_finished() {
        return None;
    }
    match Pin::new(root).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => None,
        Poll::Ready(Ok(result)) => Some(result),
        Poll::Ready(Err(crate::task::JoinError::Panicked(payload))) => {
            Some(Err(panicked("a root future", payload).into()))
        }
        Poll::Ready(Err(crate::task::JoinError::Aborted)) => Some(Ok(())),
    }
}
