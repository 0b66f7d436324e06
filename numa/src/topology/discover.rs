//! Merges what hwloc, sysfs and the kernel say into one description.

#[cfg(feature = "hwloc")]
use super::hwloc;
use super::{
    CpuFacts, Description, NodeFacts,
    parts::Parts,
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
    let (sys, allowed) = (Sysfs::at("/sys"), allowed_here()?);
    #[cfg(feature = "hwloc")]
    let parts = hwloc::this_machine()?;
    #[cfg(not(feature = "hwloc"))]
    let parts = sys.parts(&sys.online_cpus()?.unwrap_or_else(|| allowed.cpus.clone()))?;
    merge(parts, &sys, whole_machine()?, allowed)
}

/// What the kernel lets the calling thread use.
pub(super) fn allowed_here() -> Result<Allowed> {
    let bound_to = match thread::inherited_policy() {
        InheritedPolicy::Bind(nodes) => Some(nodes),
        _ => None,
    };
    Ok(Allowed { cpus: thread::affinity_of_current()?, memory: sysfs::allowed_memory_nodes()?, bound_to })
}

/// The one node of a machine whose kernel knows no NUMA.
pub(super) fn whole_machine() -> Result<NodeFacts> {
    let meminfo = sysfs::meminfo()?;
    let total = sysfs::meminfo_bytes(&meminfo, "MemTotal").ok_or_else(|| {
        Error::platform("/proc/meminfo has no MemTotal; is /proc mounted as Linux gives it?")
    })?;
    let free = sysfs::meminfo_bytes(&meminfo, "MemFree").unwrap_or(0);
    Ok(NodeFacts { id: NodeId(0), memory_total: total, memory_free: free, distances: Vec::new() })
}

/// Merges the sources. `whole` is the one node of a machine whose kernel knows no NUMA.
pub(super) fn merge(parts: Parts, sys: &Sysfs, whole: NodeFacts, allowed: Allowed) -> Result<Description> {
    let sys_nodes = sys.nodes()?;
    let homes = sys_nodes.as_ref().map(sysfs::home_nodes).unwrap_or_default();
    let nodes = match &sys_nodes {
        None => vec![whole],
        Some(nodes) => nodes
            .iter()
            .map(|(&id, node)| NodeFacts {
                id,
                memory_total: match node.memory_total {
                    0 => parts.memory.get(&id).copied().unwrap_or(0),
                    bytes => bytes,
                },
                memory_free: node.memory_free,
                // hwloc's matrix has no row for a node without memory; sysfs has a row for every node.
                distances: if node.distances.len() == nodes.len() {
                    node.distances.clone()
                } else {
                    nodes.keys().filter_map(|&to| parts.distances.get(&(id, to)).copied()).collect()
                },
            })
            .map(|mut node| {
                // An incomplete row does not say which nodes its distances belong to.
                if node.distances.len() != nodes.len() {
                    node.distances.clear();
                }
                node
            })
            .collect(),
    };
    let online = sys.online_cpus()?;
    let lowest = nodes.first().map_or(NodeId(0), |n| n.id);
    let cpus = parts
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
            cache: pu.cache,
        })
        .collect();
    let every: NodeSet = nodes.iter().map(|n| n.id).collect();
    let mut allowed_memory = match (&sys_nodes, allowed.memory) {
        (None, _) => every,
        (Some(_), Some(mems)) => mems,
        (Some(_), None) => parts.allowed_nodes.unwrap_or(every),
    };
    if let (Some(_), Some(bound)) = (&sys_nodes, allowed.bound_to) {
        allowed_memory = allowed_memory.intersection(&bound);
    }
    Ok(Description {
        numa: sys_nodes.is_some(),
        cpus,
        nodes,
        // The kernel keeps a thread's affinity mask within its cpuset, so nothing else has to be asked.
        allowed_cpus: allowed.cpus,
        allowed_memory,
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::{
        CpuId,
        topology::{Topology, parts::Pu},
    };

    /// A directory that goes away with the test.
    struct Fixture(PathBuf);

    impl Fixture {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("annulus-numa-{}-{name}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        fn file(&self, path: &str, text: &str) {
            let path = self.0.join("devices/system").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn node(&self, id: u32, cpus: &str, megabytes: u64, distance: &str) {
            self.file(&format!("node/node{id}/cpulist"), &format!("{cpus}\n"));
            self.file(&format!("node/node{id}/distance"), &format!("{distance}\n"));
            let kilobytes = megabytes << 10;
            let meminfo = format!(
                "Node {id} MemTotal:       {kilobytes} kB\nNode {id} MemFree:        {} kB\n",
                kilobytes / 2
            );
            self.file(&format!("node/node{id}/meminfo"), &meminfo);
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn parts(cpus: u32, node_of: impl Fn(u32) -> Option<u32>) -> Parts {
        let pu = |i| Pu { id: CpuId(i), package: i / 2, core: i, cache: None, node: node_of(i).map(NodeId) };
        Parts { cpus: (0..cpus).map(pu).collect(), allowed_nodes: Some(NodeSet::new()), ..Parts::default() }
    }

    fn whole() -> NodeFacts {
        NodeFacts { id: NodeId(0), memory_total: 1 << 30, memory_free: 1 << 29, distances: Vec::new() }
    }

    fn allowed(cpus: &str, memory: Option<&str>, bound_to: Option<&str>) -> Allowed {
        Allowed {
            cpus: cpus.parse().unwrap(),
            memory: memory.map(|m| m.parse().unwrap()),
            bound_to: bound_to.map(|b| b.parse().unwrap()),
        }
    }

    /// The shape of the guest `4odd`: node 2 has CPUs and no memory, node 3 has memory and no CPU. hwloc is
    /// as it was seen there.
    #[test]
    fn what_hwloc_leaves_out_comes_from_sysfs() {
        let sys = Fixture::new("4odd");
        sys.file("node/online", "0-3\n");
        sys.file("cpu/online", "0-5\n");
        sys.node(0, "0-1", 256, "10 21 21 14");
        sys.node(1, "2-3", 256, "21 10 12 24");
        sys.node(2, "4-5", 0, "21 12 10 28");
        sys.node(3, "", 128, "14 24 28 10");
        let seen = || parts(6, |cpu| (cpu < 4).then_some(cpu / 2));

        let machine = merge(seen(), &Sysfs::at(&sys.0), whole(), allowed("0-5", Some("0-3"), None)).unwrap();
        let topology = Topology::new(machine).unwrap();
        assert_eq!(topology.home_node(CpuId(5)).unwrap(), NodeId(2));
        assert_eq!(topology.memory_node(NodeId(2)), Some(NodeId(1)));
        assert_eq!(topology.memory_nodes().to_string(), "0-1,3");
        assert_eq!(topology.distance(NodeId(2), NodeId(3)), 28);
        assert_eq!(topology.nodes().len(), 4);
        assert_eq!(topology.node(NodeId(0)).unwrap().memory_free, 128 << 20);

        // As under `numactl --membind=0,3`: the far memory of node 3 is near node 1, but node 0 has CPUs.
        let bound =
            merge(seen(), &Sysfs::at(&sys.0), whole(), allowed("2-5", Some("0-3"), Some("0,3"))).unwrap();
        let topology = Topology::new(bound).unwrap();
        assert_eq!(topology.memory_node(NodeId(1)), Some(NodeId(0)));
        assert_eq!(topology.memory_nodes().to_string(), "0,3");
        assert!(topology.cpu(CpuId(0)).is_none() && topology.online().contains(CpuId(0)));
    }

    /// Numbers with holes and beyond 64, as on machines with many boards and CXL memory; masks of more than
    /// one word.
    #[test]
    fn nodes_beyond_the_first_word_of_a_mask() {
        let sys = Fixture::new("far-nodes");
        sys.file("node/online", "0,70,130\n");
        sys.file("cpu/online", "0-2\n");
        sys.node(0, "0", 256, "10 30 40");
        sys.node(70, "1-2", 0, "30 10 15");
        sys.node(130, "", 256, "40 15 10");
        let seen = || parts(3, |_| None);
        let far = merge(seen(), &Sysfs::at(&sys.0), whole(), allowed("0-2", Some("0-130"), None)).unwrap();
        let topology = Topology::new(far).unwrap();
        assert_eq!(topology.home_node(CpuId(2)).unwrap(), NodeId(70));
        assert_eq!(topology.memory_nodes().to_string(), "0,130");
        // A node with CPUs is taken before far memory without, though that is nearer.
        assert_eq!(topology.memory_node(NodeId(70)), Some(NodeId(0)));
        let bound =
            merge(seen(), &Sysfs::at(&sys.0), whole(), allowed("0-2", Some("0-130"), Some("130"))).unwrap();
        assert_eq!(Topology::new(bound).unwrap().memory_node(NodeId(70)), Some(NodeId(130)));
    }

    #[test]
    fn an_offline_cpu_is_not_there() {
        let sys = Fixture::new("offline");
        sys.file("node/online", "0\n");
        sys.file("cpu/online", "0,2\n");
        sys.node(0, "0,2", 256, "10");
        let machine =
            merge(parts(3, |_| Some(0)), &Sysfs::at(&sys.0), whole(), allowed("0-2", None, None)).unwrap();
        assert_eq!(machine.cpus.len(), 2);
        // The cpuset is unknown here and the source allows no node, so there is nothing to use.
        assert!(Topology::new(machine).is_err());
        // A source that does not say allows all of them: a kernel without cpusets.
        let mut silent = parts(3, |_| Some(0));
        silent.allowed_nodes = None;
        let machine = merge(silent, &Sysfs::at(&sys.0), whole(), allowed("0-2", None, None)).unwrap();
        assert_eq!(Topology::new(machine).unwrap().memory_nodes().to_string(), "0");
    }

    #[test]
    fn without_numa_in_the_kernel_there_is_one_node() {
        let sys = Fixture::new("nonuma");
        sys.file("cpu/online", "0-3\n");
        let machine =
            merge(parts(4, |_| Some(0)), &Sysfs::at(&sys.0), whole(), allowed("1-3", Some(""), None))
                .unwrap();
        let topology = Topology::new(machine).unwrap();
        assert!(!topology.numa_available());
        assert_eq!(topology.hardware().to_string(), "No NUMA available on this system\n");
        assert_eq!((topology.nodes().len(), topology.cpus().len()), (1, 3));
        assert_eq!(topology.memory_node(NodeId(0)), Some(NodeId(0)));
        assert_eq!(topology.distance(NodeId(0), NodeId(0)), 10);
    }

    #[test]
    fn a_broken_list_is_an_error_and_no_panic() {
        let sys = Fixture::new("broken");
        sys.file("node/online", "zero\n");
        let error = merge(parts(1, |_| None), &Sysfs::at(&sys.0), whole(), allowed("0", None, None));
        assert!(error.unwrap_err().to_string().contains("zero"));
    }
}
