//! Where a thread or a process begins: on the CPUs, and with the memory policy, of the thread that starts it.

use std::io;

use libc::{MPOL_BIND, MPOL_DEFAULT, MPOL_LOCAL, MPOL_PREFERRED};

use super::policy::{self, InheritedPolicy, PolicyState};
use crate::{
    CpuId, CpuSet, Error, ErrorKind, NodeId, NodeSet, Result,
    contained::told,
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
        // Both are put back before a log is told of either.
        let policy = match &self.policy {
            Ok(before) if self.changed_policy => sys::set_policy(before).err(),
            _ => None,
        };
        // The policy's nodes may have left the cpuset in between. The default is always possible and binds
        // nothing.
        let policy = policy.map(|e| (e, sys::set_policy(&Policy::new(MPOL_DEFAULT, NodeSet::new()))));
        // So may its CPUs. The kernel intersects a full mask with what is allowed.
        let affinity = sys::set_affinity(&self.affinity).err();
        let affinity = affinity.map(|e| (e, sys::set_affinity(&(0..8192).map(CpuId).collect())));
        if let Some((e, fallback)) = policy {
            told(|| {
                tracing::warn!(error = %e, ?fallback, "the creating thread's memory policy could not be put back; it is the default now");
            });
        }
        if let Some((e, fallback)) = affinity {
            told(|| {
                tracing::warn!(error = %e, ?fallback, cpus = %self.affinity, "the creating thread's CPU affinity could not be put back; it may run anywhere allowed now");
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contained::tests::dropped_by_a_panic;
    use crate::thread::affinity_of_current;

    /// Seen to fail, by an abort: with either event as it is. On a thread that does not panic the first would
    /// leave it on the CPU of the thread that it has made.
    #[test]
    fn a_subscriber_that_panics_over_a_creator_leaves_the_thread_on_its_cpus() {
        let all = affinity_of_current().unwrap();
        let thread = std::thread::spawn(move || {
            for affinity in [all.clone(), CpuSet::new()] {
                sys::set_affinity(&all.first().unwrap().into()).unwrap();
                // No policy has such a mode, and no thread runs on no CPU.
                let policy = Ok(Policy::new(0x7fff, NodeSet::new()));
                let birth = PolicyState::Local;
                dropped_by_a_panic(Creator { affinity, policy, changed_policy: true, birth });
                assert_eq!(affinity_of_current().unwrap(), all);
            }
        });
        thread.join().unwrap();
    }
}
