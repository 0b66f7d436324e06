//! The machine's CPUs, nodes, memory and distances, restricted to what this process may use.
//!
//! A [`Topology`] is plain data of our own, built from a [`Description`]. [`Topology::discover`] makes the
//! description from three sources, because none of them says everything:
//! - **hwloc** (feature `hwloc`, through hwlocality): packages, cores, which CPUs are siblings and share
//!   caches, and nodes, memory and distances where sysfs has none. Without the feature sysfs says the same of
//!   CPUs. hwloc also finds caches by the CPUID instruction where a machine's sysfs shows none, and knows of
//!   faults in the tables of some machines;
//! - **sysfs**: the home node of each CPU, and nodes without memory. hwloc leaves out a node without memory
//!   and its CPUs then belong to no node; it gives a node without CPUs (CXL memory) the CPUs of its nearest
//!   neighbour;
//! - **the kernel's answers for this thread**: affinity mask, memory nodes of the cpuset, an inherited
//!   MPOL_BIND mask.
//!
//! Tests and tools build other machines from a description of their own.

#[cfg(all(test, feature = "hwloc"))]
mod agreement;
#[cfg(any(test, not(feature = "hwloc")))]
mod cores;
mod describe;
mod discover;
mod hardware;
#[cfg(feature = "hwloc")]
mod hwloc;
mod parts;
mod proximity;
pub(crate) mod sysfs;

use std::collections::BTreeMap;

pub use describe::{CpuFacts, Description, NodeFacts};
pub use hardware::Hardware;
pub use proximity::Proximity;

use crate::{CpuId, CpuSet, Error, NodeId, NodeSet, Result};

/// The distance of a node to itself in the firmware's table (ACPI SLIT); all others are relative to it.
const LOCAL_DISTANCE: u32 = 10;
/// What the kernel assumes between two nodes when the firmware says nothing (`REMOTE_DISTANCE`).
const REMOTE_DISTANCE: u32 = 20;

/// A NUMA node as this process may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// The CPUs that belong to it and that the process may run on. It is empty for a node of memory only.
    pub cpus: CpuSet,
    /// Its memory in bytes, as the kernel tells it: 0 for a node without memory. The figure can be wrong on
    /// machines with hot-added memory, so do not size anything from it.
    pub memory_total: u64,
    /// Its free memory in bytes when the topology was made.
    pub memory_free: u64,
}

/// A CPU that the process may run on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cpu {
    /// Its number.
    pub id: CpuId,
    /// Its home node, also where that node has no memory.
    pub node: NodeId,
    /// The socket.
    pub package: u32,
    /// The physical core, unique in the machine.
    pub core: u32,
    /// 0 for the first allowed CPU of its physical core, 1 for the second (its SMT sibling), and so on.
    pub smt_rank: u32,
}

/// A machine, restricted to what a process may use of it.
#[derive(Clone, Debug)]
pub struct Topology {
    machine: Description,
    nodes: Vec<Node>,
    cpus: Vec<Cpu>,
    memory_of: BTreeMap<NodeId, NodeId>,
}

impl Topology {
    /// This machine, restricted to what the calling thread may use: its affinity mask, the cgroup's cpuset,
    /// and the nodes of an inherited MPOL_BIND policy (`numactl --membind`). It takes some 10 to 40 ms.
    ///
    /// # Errors
    /// [`ErrorKind::Platform`](crate::ErrorKind::Platform) when /proc, /sys or hwloc do not say enough;
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) when an `HWLOC_*` variable makes hwloc describe another
    /// machine, where hwloc is asked.
    pub fn discover() -> Result<Self> {
        Self::new(discover::this_machine()?)
    }

    /// A machine as described.
    ///
    /// # Errors
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) when the description contradicts itself, or leaves no
    /// CPU to run on or no memory to use.
    pub fn new(machine: Description) -> Result<Self> {
        let machine = machine.checked()?;
        let mut rank_in_core: BTreeMap<u32, u32> = BTreeMap::new();
        let cpus: Vec<Cpu> = machine
            .cpus
            .iter()
            .filter(|c| machine.allowed_cpus.contains(c.id))
            .map(|c| {
                let rank = rank_in_core.entry(c.core).or_default();
                let smt_rank = *rank;
                *rank += 1;
                Cpu { id: c.id, node: c.node, package: c.package, core: c.core, smt_rank }
            })
            .collect();
        let memory_of =
            machine.nodes.iter().filter_map(|n| Some((n.id, machine.nearest_memory(n.id)?))).collect();
        let nodes = machine
            .nodes
            .iter()
            .map(|n| Node {
                id: n.id,
                cpus: cpus.iter().filter(|c| c.node == n.id).map(|c| c.id).collect(),
                memory_total: n.memory_total,
                memory_free: n.memory_free,
            })
            .filter(|n| !n.cpus.is_empty() || machine.may_use_memory_of(n.id))
            .collect();
        Ok(Self { machine, nodes, cpus, memory_of })
    }

    /// The nodes of which the process may use CPUs or memory, in ascending order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The CPUs that the process may run on, in ascending order.
    pub fn cpus(&self) -> &[Cpu] {
        &self.cpus
    }

    /// The node of that number, if the process may use anything of it.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.iter().find(|n| n.id == id)
    }

    /// The CPU of that number, if the process may run on it.
    pub fn cpu(&self, id: CpuId) -> Option<&Cpu> {
        self.cpus.iter().find(|c| c.id == id)
    }

    /// All CPUs of the machine that are online, also those that the process may not run on.
    pub fn online(&self) -> CpuSet {
        self.machine.cpus.iter().map(|c| c.id).collect()
    }

    /// The nodes whose memory the process may use.
    pub fn memory_nodes(&self) -> NodeSet {
        self.nodes.iter().map(|n| n.id).filter(|&n| self.machine.may_use_memory_of(n)).collect()
    }

    /// The node that a CPU of the machine belongs to.
    ///
    /// # Errors
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) when no CPU of that number is online.
    pub fn home_node(&self, cpu: CpuId) -> Result<NodeId> {
        let found = self.machine.cpus.iter().find(|c| c.id == cpu);
        found.map(|c| c.node).ok_or_else(|| {
            Error::input(format!("CPU {cpu} does not exist or is offline; online are {}", self.online()))
        })
    }

    /// The node that the memory of a thread on `node` comes from: the node itself, or the nearest one with
    /// memory that the process may use (nodes that have CPUs before far memory without). None when the
    /// machine has no such node.
    pub fn memory_node(&self, node: NodeId) -> Option<NodeId> {
        self.memory_of.get(&node).copied()
    }

    /// How far `to` is from `from`, in the firmware's units: 10 is local. Where the firmware gives no matrix,
    /// and for nodes that do not exist, it is 10 within a node and 20 between two, as the kernel assumes.
    pub fn distance(&self, from: NodeId, to: NodeId) -> u32 {
        self.machine.distance(from, to)
    }

    /// Whether the kernel knows NUMA at all. Without it there is one node, no policy to set, and nothing to
    /// verify.
    pub fn numa_available(&self) -> bool {
        self.machine.numa
    }

    /// What `numactl --hardware` prints. As there, it is the whole machine and not only the allowed part.
    pub fn hardware(&self) -> Hardware<'_> {
        Hardware(&self.machine)
    }
}
