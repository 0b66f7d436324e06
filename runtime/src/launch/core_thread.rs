//! A core's thread: brings the core up, runs its loop until it is over, and hands over to the [end](super::end).

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crossbeam_channel::Sender;

use super::bring_up::{WorkerConfig, block_sigpipe, bring_up};
use super::end;
use super::report::CoreReport;
use crate::core::Core;
use crate::task::{JoinHandle, spawn_at};
use crate::{Error, ErrorKind, Result};

/// The thread of a core, from its first instruction to its last.
pub(super) fn run<F, Fut, E>(
    config: WorkerConfig,
    root: &F,
    ready: Sender<Result<CoreReport>>,
) -> Result<(), E>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<(), E>> + 'static,
    E: From<Error> + Send + 'static,
{
    let runtime = Arc::clone(&config.shared.runtime);
    let started_at = config.started_at;
    // What the application logs on a core says on which.
    let _span = tracing::info_span!("core", index = config.core.index, cpu = config.core.cpu.0).entered();
    // A panic out here (a tracing subscriber, an allocator, a destructor of the application) must not leave the other
    // cores waiting for this one for ever.
    let up = contain(|| {
        block_sigpipe().map_err(|e| Error::io("cannot block SIGPIPE", e))?;
        bring_up(config)
    });
    let (core, report) = match up {
        Ok(up) => up,
        Err(e) => {
            // The starter waits for one message of each core; if it has gone, so has everyone.
            drop(ready.send(Err(e)));
            runtime.arrive();
            return Ok(());
        }
    };
    drop(ready.send(Ok(report)));
    drop(ready);
    let result = if runtime.wait_at_gate() {
        core.peers.learn_rings();
        contain(|| Ok(run_until_over(&core, root, started_at))).unwrap_or_else(|e| Err(e.into()))
    } else {
        Ok(())
    };
    if result.is_err() {
        runtime.cut();
    }
    end::of_core(core);
    result
}

/// Runs `f`; a panic becomes an error.
fn contain<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_or_else(|payload| {
        let what = format!("a core panicked: {}", crate::contained::panic_text(&payload));
        Err(Error::new(ErrorKind::Panicked, what))
    })
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
    let mut root = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(root)) {
        Ok(future) => spawn_at(started_at, future),
        Err(payload) => return Err(panicked(&payload).into()),
    };
    let mut told = false;
    let runtime = &core.shared.runtime;
    loop {
        core.run_tasks()?;
        // Looked at before the core may sleep: nothing else would wake it to see this.
        if let Some(result) = finished(&mut root) {
            return result;
        }
        if !told && runtime.is_stopping() {
            told = true;
            core.tasks.wake_stop_waiters();
        }
        if runtime.is_cut() {
            return Ok(());
        }
        core.tick_ring()?;
    }
}

fn panicked(payload: &crate::contained::Payload) -> Error {
    let what = format!("a root future panicked: {}", crate::contained::panic_text(payload));
    Error::new(ErrorKind::Panicked, what)
}

fn finished<E: From<Error>>(root: &mut JoinHandle<Result<(), E>>) -> Option<Result<(), E>> {
    if !root.is_finished() {
        return None;
    }
    match Pin::new(root).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => None,
        Poll::Ready(Ok(result)) => Some(result),
        Poll::Ready(Err(crate::task::JoinError::Panicked(payload))) => Some(Err(panicked(&payload).into())),
        Poll::Ready(Err(crate::task::JoinError::Aborted)) => Some(Ok(())),
    }
}
