//! How near two CPUs are to each other.

use std::fmt;

use super::Topology;
use crate::CpuId;

/// How near a CPU is to another, which is what a message between them has to cross. The nearest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Proximity {
    /// The same CPU, or two hardware threads of one physical core (SMT). They share all caches, and the
    /// core's time.
    SameCore,
    /// They share the last level of cache.
    SameCache,
    /// They belong to one node.
    SameNode,
    /// They are on two nodes, this far apart in the firmware's units ([`Topology::distance`]).
    Remote(u32),
}

impl fmt::Display for Proximity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameCore => f.write_str("same core"),
            Self::SameCache => f.write_str("same cache"),
            Self::SameNode => f.write_str("same node"),
            Self::Remote(distance) => write!(f, "remote, distance {distance}"),
        }
    }
}

impl Topology {
    /// How near `to` is to `from`; None when one of them is not online.
    ///
    /// Which CPUs share a cache is in `/sys/devices/system/cpu/cpuN/cache`. Where a machine does not say
    /// (some virtual ones), two CPUs of a node are [`Proximity::SameNode`]. A cache that spans nodes, as
    /// with sub-NUMA clustering, makes no difference to where memory lies: such CPUs are remote.
    pub fn proximity(&self, from: CpuId, to: CpuId) -> Option<Proximity> {
        let cpu = |id| self.machine.cpus.iter().find(|c| c.id == id);
        let (from, to) = (cpu(from)?, cpu(to)?);
        Some(if from.core == to.core {
            Proximity::SameCore
        } else if from.node != to.node {
            Proximity::Remote(self.distance(from.node, to.node))
        } else if from.cache.is_some() && from.cache == to.cache {
            Proximity::SameCache
        } else {
            Proximity::SameNode
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;
    use crate::topology::{CpuFacts, Description, NodeFacts};

    /// Two nodes; on each, two caches of two cores of two threads. `cpu = node * 8 + cache * 4 + core * 2 +
    /// thread`.
    fn machine(cached: bool) -> Topology {
        let cpu = |i: u32| CpuFacts {
            id: CpuId(i),
            node: NodeId(i / 8),
            package: i / 8,
            cache: cached.then_some(i / 4),
            core: i / 2,
        };
        let node = |i: u32| NodeFacts {
            id: NodeId(i),
            memory_total: 1 << 30,
            memory_free: 1 << 29,
            distances: if i == 0 { vec![10, 21] } else { vec![31, 10] },
        };
        Topology::new(Description {
            numa: true,
            cpus: (0..16).map(cpu).collect(),
            nodes: vec![node(0), node(1)],
            allowed_cpus: "0-15".parse().unwrap(),
            allowed_memory: "0-1".parse().unwrap(),
        })
        .unwrap()
    }

    fn from_zero(machine: &Topology, to: u32) -> Option<Proximity> {
        machine.proximity(CpuId(0), CpuId(to))
    }

    #[test]
    fn threads_then_cache_then_node_then_distance() {
        let machine = machine(true);
        assert_eq!(from_zero(&machine, 0), Some(Proximity::SameCore));
        assert_eq!(from_zero(&machine, 1), Some(Proximity::SameCore));
        assert_eq!(from_zero(&machine, 3), Some(Proximity::SameCache));
        assert_eq!(from_zero(&machine, 4), Some(Proximity::SameNode));
        assert_eq!(from_zero(&machine, 8), Some(Proximity::Remote(21)));
        assert_eq!(machine.proximity(CpuId(8), CpuId(0)), Some(Proximity::Remote(31)));
        assert_eq!(from_zero(&machine, 16), None);
        let mut order: Vec<_> = (1..16).rev().filter_map(|to| from_zero(&machine, to)).collect();
        order.sort();
        assert_eq!((order[0], order[14]), (Proximity::SameCore, Proximity::Remote(21)));
    }

    #[test]
    fn a_machine_that_says_nothing_of_caches_has_nodes() {
        let machine = machine(false);
        assert_eq!(from_zero(&machine, 3), Some(Proximity::SameNode));
        assert_eq!(from_zero(&machine, 1), Some(Proximity::SameCore));
    }
}
