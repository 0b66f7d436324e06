//! Starting a pinned thread.
//!
//! glibc maps a thread's stack and writes its descriptor and TLS *in the creating thread*. Without further
//! care they land on the creator's node. So the creator moves itself to the CPU and takes a policy that
//! prefers the node before it spawns, and restores both afterwards. The new thread inherits the affinity, so
//! it never runs anywhere else.
//!
//! The kernel does the same with the kernel stack of the thread ([`super::stacks`]).
//!
//! glibc also keeps the stacks and the heaps (malloc arenas) of ended threads and gives them out again, with
//! pages where the former owner had them. The new thread therefore inspects both and moves pages that lie
//! elsewhere to the node.

use std::{cell::RefCell, io, thread::JoinHandle};

use libc::{MPOL_LOCAL, MPOL_PREFERRED};

use super::creator::Creator;
use super::policy::{InheritedPolicy, PolicyState};
use super::stacks::with_fresh_stacks;
use crate::{
    CpuId, Error, NodeId, Result,
    plan::PlannedCore,
    set::IdSet,
    sys::{self, Policy},
    verify,
};

pub(super) const CHECK_THREADS: &str =
    "check the limits of processes (ulimit -u, cgroup pids.max) and of memory";

/// What was done to place a thread of [`spawn_pinned`], for the report.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadPlacement {
    /// The CPU it is pinned to.
    pub cpu: CpuId,
    /// The node its memory comes from.
    pub memory: NodeId,
    /// The creator's policy while it made the thread. It decides over stack, thread descriptor and TLS.
    pub birth: PolicyState,
    /// The thread's own policy since.
    pub life: PolicyState,
    /// The policy that the process was started with.
    pub inherited: InheritedPolicy,
    /// How many pages of a stack and a heap that glibc had used before were moved to the node.
    pub moved_pages: usize,
}

thread_local! {
    static PLACEMENT: RefCell<Option<ThreadPlacement>> = const { RefCell::new(None) };
    /// The memory policy that the process was started with, on a thread that was given another.
    static ORIGINAL_POLICY: RefCell<Option<Policy>> = const { RefCell::new(None) };
}

/// The memory policy that the process was started with, if the calling thread was given another. None if the
/// thread has that policy itself, or the policy cannot be read.
pub(super) fn original_policy() -> Option<Policy> {
    ORIGINAL_POLICY.with_borrow(Clone::clone)
}

/// How the calling thread was placed; None when [`spawn_pinned`] did not start it.
pub fn placement_of_current() -> Option<ThreadPlacement> {
    PLACEMENT.with_borrow(Clone::clone)
}

/// Starts `f` on a thread that is pinned to `core.cpu` and whose memory comes from `core.memory`.
///
/// The calling thread's affinity and memory policy change while it creates the thread and are restored when
/// this returns, also when it fails or panics. The new thread's own policy is MPOL_LOCAL (MPOL_PREFERRED
/// where its home node has no usable memory), or the process's MPOL_BIND policy if it was started with one. A
/// policy call that a filter refuses is no failure, because pages of a pinned thread come from its node by
/// first touch as well: [`placement_of_current`] on the new thread has the reason. It needs Linux 3.8
/// (MPOL_LOCAL): sched_setaffinity(2), set_mempolicy(2), pthread_create(3).
///
/// It is for a thread that lives long: it starts four other threads on the CPU and waits for them, so that
/// the new thread's kernel stack is on the node too. [`spawn_pinned_briefly`] leaves that out.
///
/// # Errors
/// [`ErrorKind::Input`](crate::ErrorKind::Input) when the name holds a NUL byte or the process may not run on
/// the CPU; [`ErrorKind::Platform`](crate::ErrorKind::Platform) when a filter refuses to pin threads at all;
/// [`ErrorKind::Io`](crate::ErrorKind::Io) when the thread cannot be started.
pub fn spawn_pinned<F, T>(name: String, core: &PlannedCore, f: F) -> Result<JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    spawn(name, core, f, true)
}

/// Starts a pinned thread that does one thing and ends, or whose creator must not wait. Its kernel stack is
/// one that the kernel keeps for the CPU, which may lie on another node.
///
/// # Errors
/// As [`spawn_pinned`].
pub fn spawn_pinned_briefly<F, T>(name: String, core: &PlannedCore, f: F) -> Result<JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    spawn(name, core, f, false)
}

fn spawn<F, T>(name: String, core: &PlannedCore, f: F, lives_long: bool) -> Result<JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    if name.contains('\0') {
        return Err(Error::input(format!("the thread name {name:?} holds a NUL byte; leave it out")));
    }
    let creator = Creator::of_thread(core.cpu, core.memory)?;
    let (birth, inherited, keep) = (creator.birth.clone(), creator.inherited(), creator.bind_to_keep());
    // A pinned thread may start another, so the policy that the process was started with goes on from one to
    // the next.
    let original = original_policy().or_else(|| creator.policy());
    let (cpu, home, memory) = (core.cpu, core.node, core.memory);
    let builder = std::thread::Builder::new().name(name.clone());
    let start = move || {
        let life = live(home, memory, &inherited, keep);
        let moved_pages = verify::bring_own_home(memory);
        let placement = ThreadPlacement { cpu, memory, birth, life, inherited, moved_pages };
        PLACEMENT.set(Some(placement));
        ORIGINAL_POLICY.set(original);
        f()
    };
    let spawned = if lives_long { with_fresh_stacks(|| builder.spawn(start)) } else { builder.spawn(start) };
    drop(creator);
    spawned
        .map_err(|e| Error::io(format_args!("cannot start thread {name:?} on CPU {cpu}"), e, CHECK_THREADS))
}

/// Starts `f` on a thread that pins itself to `core.cpu` and is otherwise as the operating system makes it:
/// no policy is set, nothing is moved. It is there to compare with [`spawn_pinned`].
///
/// # Errors
/// As [`spawn_pinned`].
pub fn spawn_unplaced<F, T>(name: String, core: &PlannedCore, f: F) -> Result<JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    if name.contains('\0') {
        return Err(Error::input(format!("the thread name {name:?} holds a NUL byte; leave it out")));
    }
    let cpu = core.cpu;
    // Moving there and back shows whether the process may run there, while an error can still be returned.
    drop(Creator::of_thread(core.cpu, core.memory)?);
    let spawned = std::thread::Builder::new().name(name.clone()).spawn(move || {
        if let Err(e) = sys::set_affinity(&cpu.into()) {
            tracing::warn!(error = %e, %cpu, "a thread could not be pinned to its CPU, though its creator was allowed there");
        }
        f()
    });
    spawned
        .map_err(|e| Error::io(format_args!("cannot start thread {name:?} on CPU {cpu}"), e, CHECK_THREADS))
}

/// Sets the new thread's own policy.
fn live(home: NodeId, memory: NodeId, inherited: &InheritedPolicy, keep: Option<Policy>) -> PolicyState {
    let (policy, state) = match (keep, inherited) {
        (Some(bind), _) => {
            let state = PolicyState::Bound(bind.nodes.clone());
            (bind, state)
        }
        (None, InheritedPolicy::Unknown(errno)) => {
            // The policy may be a binding, so one that cannot be read is not replaced.
            return PolicyState::refused("get_mempolicy", &io::Error::from_raw_os_error(*errno));
        }
        (None, _) if home == memory => (Policy::new(MPOL_LOCAL, IdSet::new()), PolicyState::Local),
        (None, _) => (Policy::new(MPOL_PREFERRED, memory), PolicyState::Preferred(memory)),
    };
    match sys::set_policy(&policy) {
        Ok(()) => state,
        Err(e) => PolicyState::refused("set_mempolicy", &e),
    }
}
