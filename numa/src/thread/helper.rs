//! Threads beside the pinned ones: for work that blocks, near a node but on no CPU in particular.
//!
//! A thread inherits affinity, memory policy and signal mask from the one that starts it. Started by a pinned
//! thread, a helper would share that thread's one CPU and keep its policy. So the process's own are saved
//! before the first pinned thread is made, and each helper gets them back.

use std::{io, mem::MaybeUninit, thread::JoinHandle};

use crate::{
    CpuSet, Error, Result,
    sys::{self, Policy},
};

use super::spawn::CHECK_THREADS;

/// What a thread passes on to the threads that it starts: its memory policy and its signal mask.
pub struct Origin {
    policy: io::Result<Policy>,
    signals: libc::sigset_t,
}

impl Origin {
    /// The calling thread's (get_mempolicy(2), pthread_sigmask(3)).
    pub fn of_current() -> Self {
        let mut signals = MaybeUninit::uninit();
        // SAFETY: pthread_sigmask with no new mask only writes the present one into `signals`; it fails for a
        // bad `how` alone, which is not read without a new mask.
        let signals = unsafe {
            libc::sigemptyset(signals.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), signals.as_mut_ptr());
            signals.assume_init()
        };
        Self { policy: sys::policy(), signals }
    }

    /// Gives the calling thread this policy and mask, and lets it run on `cpus`. A refused call is logged and
    /// nothing else: the thread works nevertheless, with the CPU or the policy of the thread that started it.
    fn take_on(&self, cpus: &CpuSet) {
        if let Err(e) = sys::set_affinity(cpus) {
            tracing::warn!(error = %e, %cpus, "a helper thread stays on the CPU of the thread that started it (sched_setaffinity)");
        }
        if let Ok(policy) = &self.policy
            && let Err(e) = sys::set_policy(policy)
        {
            tracing::warn!(error = %e, "a helper thread keeps the memory policy of the thread that started it (set_mempolicy)");
        }
        // SAFETY: pthread_sigmask reads a mask that pthread_sigmask has written, and changes that of the
        // calling thread only.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.signals, std::ptr::null_mut()) };
    }
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// Starts `f` on a thread that may run on all of `cpus`, with the memory policy and the signal mask of
/// `origin`, whatever the calling thread has. Its stack comes from the calling thread's node. The calls are
/// pthread_create(3), sched_setaffinity(2) and set_mempolicy(2). A filter's refusal of one of the last two is
/// logged.
///
/// # Errors
/// [`ErrorKind::Input`](crate::ErrorKind::Input) when the name holds a NUL byte;
/// [`ErrorKind::Io`](crate::ErrorKind::Io) when the thread cannot be started.
pub fn spawn_helper<F>(
    name: String,
    cpus: CpuSet,
    origin: std::sync::Arc<Origin>,
    f: F,
) -> Result<JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    if name.contains('\0') {
        return Err(Error::input(format!("the thread name {name:?} holds a NUL byte; leave it out")));
    }
    let spawned = std::thread::Builder::new().name(name.clone()).spawn(move || {
        origin.take_on(&cpus);
        drop((origin, cpus));
        f();
    });
    spawned.map_err(|e| Error::io(format_args!("cannot start thread {name:?}"), e, CHECK_THREADS))
}
