//! Puts what hwloc, sysfs and the kernel say together into one description.

use super::{
    CpuFacts, Description, NodeFacts,
    hwloc::{self, Hwloc},
    sysfs::{self, Sysfs},
};
use crate::{
    CpuSet, Error, NodeId, NodeSet, Result,
    thread::{self, InheritedPolicy},
};

/// What the kernel lets the calling thread use.
pub(super) struct Allowed {
    pub(super) cpus: CpuSet,
    pub(super) memory: Option<NodeSet>,
    pub(super) bound_to: Option<NodeSet>,
}

pub(super) fn this_machine() -> Result<Description> {
    let bound_to = match thread::inherited_policy() {
        InheritedPolicy::Bind(nodes) => Some(nodes),
        _ => None,
    };
    let allowed =
        Allowed { cpus: thread::affinity_of_current()?, memory: sysfs::allowed_memory_nodes()?, bound_to };
    let total = sysfs::meminfo_bytes(&sysfs::meminfo()?, "MemTotal");
    let free = sysfs::meminfo_bytes(&sysfs::meminfo()?, "MemFree");
    let whole = NodeFacts {
        id: NodeId(0),
        memory_total: total.ok_or_else(|| {
            Error::platform("/proc/meminfo has no MemTotal; is /proc mounted as Linux gives it?")
        })?,
        memory_free: free.unwrap_or(0),
        distances: Vec::new(),
    };
    merge(hwloc::this_machine()?, &Sysfs::at("/sys"), whole, allowed)
}

/// `whole` is the one node of a machine whose kernel knows no NUMA.
pub(super) fn merge(hwloc: Hwloc, sys: &Sysfs, whole: NodeFacts, allowed: Allowed) -> Result<Description> {
    let sys_nodes = sys.nodes()?;
    let homes = sys_nodes.as_ref().map(sysfs::home_nodes).unwrap_or_default();
    let nodes = match &sys_nodes {
        None => vec![whole],
        Some(nodes) => nodes
            .iter()
            .map(|(&id, node)| NodeFacts {
                id,
                memory_total: match node.memory_total {
                    0 => hwloc.memory.get(&id).copied().unwrap_or(0),
                    bytes => bytes,
                },
                memory_free: node.memory_free,
                // hwloc's matrix has no row for a node without memory; sysfs has them all.
                distances: if node.distances.len() == nodes.len() {
                    node.distances.clone()
                } else {
                    nodes.keys().filter_map(|&to| hwloc.distances.get(&(id, to)).copied()).collect()
                },
            })
            .map(|mut node| {
                // Half a row says nothing about whom it is to.
                if node.distances.len() != nodes.len() {
                    node.distances.clear();
                }
                node
            })
            .collect(),
    };
    let online = sys.online_cpus()?;
    let lowest = nodes.first().map_or(NodeId(0), |n| n.id);
    let cpus = hwloc
        .cpus
        .iter()
        .filter(|pu| online.as_ref().is_none_or(|online| online.contains(pu.id)))
        .map(|pu| CpuFacts {
            id: pu.id,
            node: match sys_nodes {
                Some(_) => homes.get(&pu.id).copied().or(pu.node).unwrap_or(lowest),
                None => lowest,
            },
            package: pu.package,
            core: pu.core,
        })
        .collect();
    let every: NodeSet = nodes.iter().map(|n| n.id).collect();
    let mut allowed_memory = match (&sys_nodes, allowed.memory) {
        (None, _) => every.clone(),
        (Some(_), Some(mems)) => mems,
        (Some(_), None) => hwloc.allowed_nodes,
    };
    if let (Some(_), Some(bound)) = (&sys_nodes, allowed.bound_to) {
        allowed_memory = allowed_memory.intersection(&bound);
    }
    Ok(Description {
        numa: sys_nodes.is_some(),
        cpus,
        nodes,
        allowed_cpus: allowed.cpus.intersection(&hwloc.allowed_cpus),
        allowed_memory,
    })
}
