//! The memory policy that a thread began with, and what became of the one we gave it.

use std::{fmt, io};

use libc::{EPERM, MPOL_BIND, MPOL_DEFAULT, MPOL_INTERLEAVE, MPOL_LOCAL, MPOL_PREFERRED};

use crate::{
    NodeId, NodeSet,
    sys::{self, MPOL_PREFERRED_MANY, MPOL_WEIGHTED_INTERLEAVE},
};

/// What a person can do when the kernel or a filter refuses a memory policy call.
pub(crate) const POLICY_REMEDY: &str =
    "give the container CAP_SYS_NICE or a seccomp profile that allows mbind, set_mempolicy and get_mempolicy";

/// The memory policy of the calling thread: the one that `numactl` or a parent set, unless it was changed
/// here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InheritedPolicy {
    /// No policy: a page comes from the node of the CPU that touches it first.
    Default,
    /// The same, set explicitly (MPOL_LOCAL).
    Local,
    /// Memory of these nodes only (`numactl --membind`). Annulus keeps it: it bounds the plan and every pool.
    Bind(NodeSet),
    /// These nodes first (`numactl --preferred`); Annulus overrides it on its threads.
    Preferred(NodeSet),
    /// Spread over these nodes (`numactl --interleave`); Annulus overrides it on its threads.
    Interleave(NodeSet),
    /// A policy newer than this crate, by its number in linux/mempolicy.h.
    Other(i32),
    /// The kernel does not say: the errno of get_mempolicy(2), EPERM under a seccomp filter, ENOSYS without
    /// NUMA.
    Unknown(i32),
}

impl InheritedPolicy {
    /// Whether Annulus overrides it where it places memory: it asks for another node than the policy would,
    /// and binds nothing. A binding is kept. What cannot be read is left alone, because it may be a binding.
    pub fn is_overridden(&self) -> bool {
        matches!(self, Self::Preferred(_) | Self::Interleave(_) | Self::Other(_))
    }
}

/// The calling thread's memory policy (get_mempolicy(2)).
pub fn inherited_policy() -> InheritedPolicy {
    match sys::policy() {
        Ok(policy) => name(policy),
        Err(e) => InheritedPolicy::Unknown(e.raw_os_error().unwrap_or(0)),
    }
}

pub(super) fn name(policy: sys::Policy) -> InheritedPolicy {
    match policy.mode() {
        MPOL_DEFAULT => InheritedPolicy::Default,
        MPOL_LOCAL => InheritedPolicy::Local,
        MPOL_BIND => InheritedPolicy::Bind(policy.nodes),
        MPOL_PREFERRED | MPOL_PREFERRED_MANY => InheritedPolicy::Preferred(policy.nodes),
        MPOL_INTERLEAVE | MPOL_WEIGHTED_INTERLEAVE => InheritedPolicy::Interleave(policy.nodes),
        other => InheritedPolicy::Other(other),
    }
}

impl fmt::Display for InheritedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Local => f.write_str("local"),
            Self::Bind(nodes) => write!(f, "bound to node(s) {nodes}"),
            Self::Preferred(nodes) => write!(f, "preferring node(s) {nodes}"),
            Self::Interleave(nodes) => write!(f, "interleaved over node(s) {nodes}"),
            Self::Other(number) => write!(f, "policy number {number}, which is newer than this program"),
            Self::Unknown(errno) => {
                write!(f, "unknown: get_mempolicy: {}", io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

/// A memory policy that was set for a thread, or why it was not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyState {
    /// Pages come from the node of the thread's CPU (MPOL_LOCAL).
    Local,
    /// Pages come from this node as long as it has some (MPOL_PREFERRED).
    Preferred(NodeId),
    /// The binding that the process came with was kept (MPOL_BIND).
    Bound(NodeSet),
    /// It could not be set. Pages of a pinned thread still come from its node by first touch.
    Refused {
        /// What was refused and why.
        reason: String,
        /// What to do.
        remedy: String,
    },
}

impl PolicyState {
    pub(super) fn refused(call: &str, error: &io::Error) -> Self {
        Self::Refused { reason: refusal(call, error), remedy: remedy(error) }
    }
}

/// An error line: `call` failed with `error`, and the usual cause.
pub(crate) fn refusal(call: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(EPERM) => format!("{call}: {error}: a seccomp filter (the default of containers) refuses it"),
        Some(libc::ENOSYS) => format!("{call}: {error}: this kernel is built without NUMA"),
        _ => format!("{call}: {error}"),
    }
}

pub(crate) fn remedy(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(EPERM) => POLICY_REMEDY.into(),
        Some(libc::ENOSYS) => {
            "nothing to do on a machine of one node; else boot a kernel with CONFIG_NUMA".into()
        }
        Some(libc::EINVAL) => {
            "check that the cpuset.mems of the cgroup allows the node and that it has memory".into()
        }
        _ => "see mbind(2) and set_mempolicy(2)".into(),
    }
}

impl fmt::Display for PolicyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Preferred(node) => write!(f, "preferring node {node}"),
            Self::Bound(nodes) => write!(f, "bound to node(s) {nodes}, as the process was started"),
            Self::Refused { reason, remedy } => write!(f, "refused ({reason}; {remedy})"),
        }
    }
}
