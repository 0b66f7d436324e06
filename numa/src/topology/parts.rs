//! What one source says of a machine's CPUs and nodes: hwloc, or sysfs alone.

use std::collections::BTreeMap;

use crate::{CpuId, NodeId, NodeSet};

/// The CPUs, and what the source knows of nodes beyond what [`Sysfs::nodes`](super::sysfs::Sysfs::nodes)
/// reads.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) cpus: Vec<Pu>,
    /// Bytes of memory of each node that has some.
    pub(super) memory: BTreeMap<NodeId, u64>,
    /// Distances by (from, to); empty on machines with one node.
    pub(super) distances: BTreeMap<(NodeId, NodeId), u32>,
    /// What the cgroup's cpuset allows; None where the source does not say.
    pub(super) allowed_nodes: Option<NodeSet>,
}

/// A hardware thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pu {
    pub(super) id: CpuId,
    pub(super) package: u32,
    /// The same for the threads of one physical core, and for no other.
    pub(super) core: u32,
    /// The last level of cache above it: the same for those that share it, and for no other.
    pub(super) cache: Option<u32>,
    /// The node that the source gives it; None on a node without memory, and where it leaves that to sysfs.
    pub(super) node: Option<NodeId>,
}
