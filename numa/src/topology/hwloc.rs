//! What hwloc knows, in our own types. This is the only file that names hwlocality, because every release of
//! it is an alpha.

use hwlocality::{
    Topology,
    object::{TopologyObject, attributes::ObjectAttributes, depth::Depth, types::ObjectType},
    topology::builder::BuildFlags,
};

use super::parts::{Parts, Pu};
use crate::{CpuId, Error, NodeId, NodeSet, Result};

/// This machine, with the CPUs and nodes that the cpuset forbids too, so that an error can tell "not allowed"
/// from "does not exist".
pub(super) fn this_machine() -> Result<Parts> {
    let topology = Topology::builder()
        .with_flags(BuildFlags::INCLUDE_DISALLOWED)
        .map_err(|e| {
            Error::platform(format!(
                "hwloc refuses to include disallowed CPUs: {e}; is libhwloc older than 2.1?"
            ))
        })?
        .build()
        .map_err(|e| Error::platform(format!("hwloc cannot read this machine: {e}; is /sys mounted?")))?;
    if !topology.is_this_system() {
        return Err(Error::input(
            "hwloc describes another machine than this one, because of HWLOC_SYNTHETIC, HWLOC_XMLFILE or HWLOC_FSROOT in the environment; unset it",
        ));
    }
    read(&topology)
}

/// Reads any hwloc topology. Tests pass synthetic ones.
pub(super) fn read(topology: &Topology) -> Result<Parts> {
    let mut seen = Parts::default();
    let mut allowed_nodes = NodeSet::new();
    let nodes: Vec<&TopologyObject> = topology.objects_at_depth(Depth::NUMANode).collect();
    for node in &nodes {
        let id = NodeId(os_index(node)?);
        if let Some(ObjectAttributes::NUMANode(numa)) = node.attributes() {
            seen.memory.insert(id, numa.local_memory().map_or(0, |bytes| bytes.get()));
        }
        if node.nodeset().is_some_and(|set| topology.allowed_nodeset().includes(set)) {
            allowed_nodes.insert(id);
        }
    }
    for pu in topology.objects_with_type(ObjectType::PU) {
        let id = CpuId(os_index(pu)?);
        let ancestor = |ty| pu.first_ancestor_with_type(ty);
        let package = ancestor(ObjectType::Package).and_then(TopologyObject::os_index).unwrap_or(0);
        // The logical index counts cores over the whole machine; the OS index of a core starts again in each
        // package.
        let core = ancestor(ObjectType::Core).unwrap_or(pu).logical_index();
        let cache = pu.ancestors().filter(|o| o.object_type().is_cpu_data_cache()).last();
        let cache = cache.map(|o| narrow(o.global_persistent_index() as usize)).transpose()?;
        let node = nodes.iter().find(|n| pu.cpuset().is_some_and(|set| n.covers_cpuset(set)));
        let node = node.map(|n| os_index(n)).transpose()?.map(NodeId);
        seen.cpus.push(Pu { id, package: narrow(package)?, core: narrow(core)?, cache, node });
    }
    let matrices = topology
        .distances_with_type(None, ObjectType::NUMANode)
        .map_err(|e| Error::platform(format!("hwloc cannot give the node distances: {e}; report this")))?;
    // Latency as the firmware tells it. Other matrices (bandwidth) have other units.
    let latency = matrices
        .iter()
        .find(|m| m.kind().contains(hwlocality::object::distance::DistancesKind::MEANS_LATENCY));
    for ((from, to), distance) in latency.into_iter().flat_map(|m| m.enumerate_distances()) {
        let at = |i: usize| latency.and_then(|m| m.objects().nth(i).flatten());
        if let (Some(from), Some(to)) = (at(from), at(to)) {
            seen.distances
                .insert((NodeId(os_index(from)?), NodeId(os_index(to)?)), narrow(distance as usize)?);
        }
    }
    seen.allowed_nodes = Some(allowed_nodes);
    Ok(seen)
}

fn os_index(object: &TopologyObject) -> Result<u32> {
    let index = object.os_index().ok_or_else(|| {
        Error::platform(format!("hwloc gives a {} without its number; report this", object.object_type()))
    })?;
    narrow(index)
}

fn narrow(number: usize) -> Result<u32> {
    u32::try_from(number).map_err(|_| {
        Error::platform(format!("hwloc gives the number {number}, which no machine has; report this"))
    })
}

#[cfg(test)]
mod tests {
    use hwlocality::object::distance::{AddDistancesFlags, DistancesKind};

    use super::*;

    #[test]
    fn a_synthetic_machine_is_read() {
        let mut machine = Topology::builder()
            .from_synthetic("pack:2 [numa(memory=4GB)] core:2 pu:2")
            .unwrap()
            .build()
            .unwrap();
        machine
            .edit(|e| {
                e.add_distances(
                    None,
                    DistancesKind::FROM_USER | DistancesKind::MEANS_LATENCY,
                    AddDistancesFlags::empty(),
                    |t| {
                        (
                            t.objects_at_depth(Depth::NUMANode).map(Some).collect::<Vec<_>>(),
                            vec![10, 21, 31, 10],
                        )
                    },
                )
            })
            .unwrap();
        let seen = read(&machine).unwrap();
        let cpus: Vec<_> = seen.cpus.iter().map(|p| (p.id.0, p.package, p.core, p.node)).collect();
        let (zero, one) = (Some(NodeId(0)), Some(NodeId(1)));
        assert_eq!(cpus[..4], [(0, 0, 0, zero), (1, 0, 0, zero), (2, 0, 1, zero), (3, 0, 1, zero)]);
        assert_eq!(cpus[4..], [(4, 1, 2, one), (5, 1, 2, one), (6, 1, 3, one), (7, 1, 3, one)]);
        assert_eq!(seen.memory.values().copied().collect::<Vec<_>>(), [4_000_000_000; 2]);
        let distances: Vec<u32> = seen.distances.values().copied().collect();
        assert_eq!(distances, [10, 21, 31, 10], "row by row");
        assert_eq!(seen.allowed_nodes.unwrap().to_string(), "0-1");
    }

    /// What `lstopo --of xml` printed in the guest `4odd`: node 2 has CPUs and no memory, which hwloc leaves
    /// out, and node 3 memory and no CPUs, for which it gives those of its nearest neighbour.
    #[test]
    fn an_odd_machine_is_read_from_xml() {
        let xml = include_str!("../../tests/fixtures/4odd.xml");
        let machine = Topology::builder().from_xml(xml).unwrap().build().unwrap();
        let seen = read(&machine).unwrap();
        let homes: Vec<_> = seen.cpus.iter().map(|pu| (pu.id.0, pu.node.map(|node| node.0))).collect();
        assert_eq!(homes[..4], [(0, Some(0)), (1, Some(0)), (2, Some(1)), (3, Some(1))]);
        assert_eq!(homes[4..], [(4, None), (5, None)], "the home of these is for sysfs to tell");
        assert_eq!(seen.memory.keys().map(|node| node.0).collect::<Vec<_>>(), [0, 1, 3]);
        assert_eq!(seen.allowed_nodes.unwrap().to_string(), "0-1,3");
        assert_eq!(seen.distances[&(NodeId(0), NodeId(3))], 14);
        assert_eq!(seen.distances.len(), 9);
        let mut cores: Vec<u32> = seen.cpus.iter().map(|pu| pu.core).collect();
        cores.dedup();
        assert_eq!(cores.len(), 6, "each CPU is a physical core");
    }

    #[test]
    fn the_last_level_of_cache_is_found() {
        let machine = Topology::builder()
            .from_synthetic("pack:2 [numa] l3:2 l2:2 core:1 pu:2")
            .unwrap()
            .build()
            .unwrap();
        let caches: Vec<_> = read(&machine).unwrap().cpus.iter().map(|pu| pu.cache).collect();
        assert!(caches.iter().all(Option::is_some));
        for (i, chunk) in caches.chunks(4).enumerate() {
            assert!(chunk.iter().all(|cache| *cache == chunk[0]), "four threads below an L3: {caches:?}");
            assert!(caches.chunks(4).enumerate().all(|(j, other)| i == j || other[0] != chunk[0]));
        }
        let bare = Topology::builder().from_synthetic("core:2 pu:1").unwrap().build().unwrap();
        assert!(read(&bare).unwrap().cpus.iter().all(|pu| pu.cache.is_none()));
    }

    #[test]
    fn this_machine_has_a_cpu() {
        assert!(!this_machine().unwrap().cpus.is_empty());
    }
}
