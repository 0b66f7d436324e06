//! A machine as plain data. Discovery finds it, and tests make it up.

use std::collections::BTreeSet;

use super::{LOCAL_DISTANCE, REMOTE_DISTANCE};
use crate::{CpuId, CpuSet, Error, NodeId, NodeSet, Result};

/// A whole machine, and which part of it a process may use. All fields of it and of its parts are public on
/// purpose: whoever describes a machine gives all of it, and a field that is added later must not be guessed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Whether the kernel knows NUMA.
    pub numa: bool,
    /// The online CPUs.
    pub cpus: Vec<CpuFacts>,
    /// The online nodes, also those without memory and those without CPUs.
    pub nodes: Vec<NodeFacts>,
    /// The CPUs that the process may run on. More than the online ones does no harm.
    pub allowed_cpus: CpuSet,
    /// The nodes whose memory the process may use. More than there are does no harm.
    pub allowed_memory: NodeSet,
}

/// One online CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuFacts {
    /// Its number.
    pub id: CpuId,
    /// Its home node.
    pub node: NodeId,
    /// The socket.
    pub package: u32,
    /// The physical core, unique in the machine: CPUs with the same one are SMT siblings.
    pub core: u32,
    /// The last level of cache that it has, unique in the machine. CPUs with the same one share it. None
    /// where the machine does not say.
    pub cache: Option<u32>,
}

/// One online node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its number.
    pub id: NodeId,
    /// Bytes of memory, 0 for none.
    pub memory_total: u64,
    /// Bytes of it that are free.
    pub memory_free: u64,
    /// How far each node is, in the order of [`Description::nodes`]; empty where the firmware says nothing.
    pub distances: Vec<u32>,
}

impl Description {
    /// Sorts CPUs and nodes and refuses a description that contradicts itself.
    pub(super) fn checked(mut self) -> Result<Self> {
        self.cpus.sort_by_key(|c| c.id);
        let order = {
            let mut order: Vec<usize> = (0..self.nodes.len()).collect();
            order.sort_by_key(|&i| self.nodes[i].id);
            order
        };
        for node in &mut self.nodes {
            if !node.distances.is_empty() && node.distances.len() != order.len() {
                return Err(Error::input(format!(
                    "node {} has {} distances for {} nodes; give one for each node or none",
                    node.id,
                    node.distances.len(),
                    order.len()
                )));
            }
            if !node.distances.is_empty() {
                node.distances = order.iter().map(|&i| node.distances[i]).collect();
            }
        }
        self.nodes.sort_by_key(|n| n.id);
        let nodes: BTreeSet<NodeId> = self.nodes.iter().map(|n| n.id).collect();
        if nodes.len() != self.nodes.len() {
            return Err(Error::input("a node is described twice; give each node once"));
        }
        if let Some(pair) = self.cpus.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(Error::input(format!("CPU {} is described twice; give each CPU once", pair[0].id)));
        }
        if let Some(cpu) = self.cpus.iter().find(|c| !nodes.contains(&c.node)) {
            return Err(Error::input(format!(
                "CPU {} is said to be on node {}, which is not described; describe the node",
                cpu.id, cpu.node
            )));
        }
        if !self.cpus.iter().any(|c| self.allowed_cpus.contains(c.id)) {
            return Err(Error::input(format!(
                "none of the online CPUs ({}) is among those that the process may use ({}); widen its affinity mask or cpuset",
                self.cpus.iter().map(|c| c.id).collect::<CpuSet>(),
                self.allowed_cpus
            )));
        }
        if !self.nodes.iter().any(|n| self.may_use_memory_of(n.id)) {
            return Err(Error::input(format!(
                "no node has memory that the process may use (allowed: nodes {}); widen its cpuset.mems or memory binding",
                self.allowed_memory
            )));
        }
        Ok(self)
    }

    /// Whether that node has memory and the process may use it.
    pub(super) fn may_use_memory_of(&self, node: NodeId) -> bool {
        self.allowed_memory.contains(node) && self.nodes.iter().any(|n| n.id == node && n.memory_total > 0)
    }

    pub(super) fn distance(&self, from: NodeId, to: NodeId) -> u32 {
        let column = self.nodes.iter().position(|n| n.id == to);
        let row = self.nodes.iter().find(|n| n.id == from);
        match (row, column) {
            (Some(row), Some(column)) if !row.distances.is_empty() => row.distances[column],
            _ if from == to => LOCAL_DISTANCE,
            _ => REMOTE_DISTANCE,
        }
    }

    /// The node itself, or the nearest with usable memory. A node that has CPUs is taken before one without,
    /// because memory without CPUs is far memory, which nobody should get without asking. Where two are
    /// equally near it is the lower number.
    pub(super) fn nearest_memory(&self, node: NodeId) -> Option<NodeId> {
        if self.may_use_memory_of(node) {
            return Some(node);
        }
        let usable = self.nodes.iter().map(|n| n.id).filter(|&n| self.may_use_memory_of(n));
        usable.min_by_key(|&n| {
            let far_memory = !self.cpus.iter().any(|c| c.node == n);
            (far_memory, self.distance(node, n), n)
        })
    }
}
