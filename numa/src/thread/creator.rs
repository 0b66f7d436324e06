//! Where a thread or a process begins: on the CPUs, and with the memory policy, of the thread that starts it.

use std::io;

use libc::{MPOL_BIND, MPOL_DEFAULT, MPOL_LOCAL, MPOL_PREFERRED};

use super::policy::{self, InheritedPolicy, PolicyState};
use crate::{
    CpuId, CpuSet, Error, ErrorKind, NodeId, NodeSet, Result,
    sys::{self, Policy},
};

const CHECK_CPU: &str = "check that it is online, that the cgroup's cpuset allows it, and that no seccomp profile refuses sched_setaffinity";

/// Runs `f` with the calling thread on `cpus` and with memory of the node that it runs on. So a process that
/// is started in `f` begins there: what the kernel makes for it (its page tables and the like), the pages
/// that it writes, and the threads that it starts in turn.
///
/// The policy is MPOL_LOCAL meanwhile, or MPOL_PREFERRED for a node that is named because some of the CPUs
/// have no memory of their own; a binding (MPOL_BIND) that the thread has already is kept. Affinity and
/// policy are restored when this returns, also when `f` panics. A policy call that a filter refuses is no
/// failure, because without a policy memory comes from where a thread runs as well. sched_setaffinity(2),
/// set_mempolicy(2), Linux 3.8.
///
/// # Errors
/// [`ErrorKind::Input`] when the process may run on none of the CPUs, [`ErrorKind::Platform`] when a filter
/// refuses to choose any.
pub fn starting_at<T>(cpus: &CpuSet, memory: Option<NodeId>, f: impl FnOnce() -> T) -> Result<T> {
    let (policy, state) = match memory {
        None => (Policy::new(MPOL_LOCAL, NodeSet::new()), PolicyState::Local),
        Some(node) => (Policy::new(MPOL_PREFERRED, node), PolicyState::Preferred(node)),
    };
    let there = Creator::go_to(cpus, policy, state, true)?;
    let result = f();
    drop(there);
    Ok(result)
}

/// The creating thread while it has the affinity and the policy that the new one shall begin with. Dropping
/// it restores its own.
pub(super) struct Creator {
    affinity: CpuSet,
    /// The policy to restore, and to judge by; the error when it cannot be read.
    policy: io::Result<Policy>,
    changed_policy: bool,
    /// The policy that it has meanwhile.
    pub(super) birth: PolicyState,
}

impl Creator {
    /// Moves to a thread's CPU, with a preference for its memory.
    pub(super) fn of_thread(cpu: CpuId, memory: NodeId) -> Result<Self> {
        Self::go_to(&cpu.into(), Policy::new(MPOL_PREFERRED, memory), PolicyState::Preferred(memory), false)
    }

    fn go_to(cpus: &CpuSet, policy: Policy, birth: PolicyState, keep_binding: bool) -> Result<Self> {
        let affinity = super::affinity_of_current()?;
        let mut creator = Self { affinity, policy: sys::policy(), changed_policy: false, birth };
        sys::set_affinity(cpus).map_err(|e| {
            let kind = match e.raw_os_error() {
                Some(libc::EINVAL) => ErrorKind::Input,
                Some(libc::EPERM) => ErrorKind::Platform,
                _ => ErrorKind::Io,
            };
            Error::io(format_args!("cannot run on CPU {cpus} (sched_setaffinity)"), e, CHECK_CPU)
                .with_kind(kind)
        })?;
        // A policy that cannot be read could not be restored.
        match &creator.policy {
            Err(e) => creator.birth = PolicyState::refused("get_mempolicy", e),
            Ok(came) if keep_binding && came.mode() == MPOL_BIND => {
                creator.birth = PolicyState::Bound(came.nodes.clone());
            }
            Ok(_) => match sys::set_policy(&policy) {
                Ok(()) => creator.changed_policy = true,
                Err(e) => creator.birth = PolicyState::refused("set_mempolicy", &e),
            },
        }
        Ok(creator)
    }

    pub(super) fn inherited(&self) -> InheritedPolicy {
        match &self.policy {
            Ok(policy) => policy::name(policy.clone()),
            Err(e) => InheritedPolicy::Unknown(e.raw_os_error().unwrap_or(0)),
        }
    }

    /// The policy that the creator had before, where it can be read.
    pub(super) fn policy(&self) -> Option<Policy> {
        self.policy.as_ref().ok().cloned()
    }

    pub(super) fn bind_to_keep(&self) -> Option<Policy> {
        self.policy().filter(|p| p.mode() == MPOL_BIND)
    }
}

impl Drop for Creator {
    fn drop(&mut self) {
        if let (true, Ok(before)) = (self.changed_policy, &self.policy)
            && let Err(e) = sys::set_policy(before)
        {
            // The policy's nodes may have left the cpuset in between. The default is always possible and
            // binds nothing.
            let fallback = sys::set_policy(&Policy::new(MPOL_DEFAULT, NodeSet::new()));
            tracing::warn!(error = %e, ?fallback, "the creating thread's memory policy could not be put back; it is the default now");
        }
        if let Err(e) = sys::set_affinity(&self.affinity) {
            // Its CPUs may have left the cpuset in between. The kernel intersects a full mask with what is
            // allowed.
            let fallback = sys::set_affinity(&(0..8192).map(CpuId).collect());
            tracing::warn!(error = %e, ?fallback, cpus = %self.affinity, "the creating thread's CPU affinity could not be put back; it may run anywhere allowed now");
        }
    }
}
