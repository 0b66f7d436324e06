//! Machines that nobody has: whatever the shape, every allowed core gets one home node and memory that it may
//! use, and no core outside of the allowed ones is planned.

use std::collections::BTreeSet;

use annulus_numa::{
    CpuId, CpuSet, ErrorKind, NodeId, NodeSet,
    cgroup::CpuQuota,
    plan::{Circumstances, CorePlan, CoreSelection},
    topology::{CpuFacts, Description, NodeFacts, Topology},
};
use proptest::prelude::*;

/// Nodes with and without memory, numbers with holes and beyond 64, SMT up to 4, a distance matrix or none,
/// masks of any kind.
fn machine() -> impl Strategy<Value = Description> {
    let nodes = proptest::collection::btree_map(0_u32..130, any::<bool>(), 1..9);
    (nodes, 1_u32..24, 1_u32..5, any::<bool>()).prop_flat_map(|(nodes, cores, smt, matrix)| {
        let ids: Vec<u32> = nodes.keys().copied().collect();
        let (n, cpus) = (ids.len(), (cores * smt) as usize);
        let homes = proptest::collection::vec(0..n, cores as usize);
        let distances = proptest::collection::vec(11_u32..60, n * n);
        let cpu_mask = proptest::collection::vec(any::<bool>(), cpus);
        let node_mask = proptest::collection::vec(any::<bool>(), n);
        (homes, distances, cpu_mask, node_mask, any::<bool>()).prop_map(
            move |(homes, distances, cpu_mask, node_mask, siblings_adjacent)| {
                let core_of = |cpu: u32| if siblings_adjacent { cpu / smt } else { cpu % cores };
                let facts = |cpu: u32| CpuFacts {
                    id: CpuId(cpu),
                    node: NodeId(ids[homes[core_of(cpu) as usize]]),
                    package: 0,
                    core: core_of(cpu),
                    cache: None,
                };
                let row = |i: usize| {
                    let distance = |j: usize| if i == j { 10 } else { distances[i * n + j] };
                    if matrix { (0..n).map(distance).collect() } else { Vec::new() }
                };
                let node = |(i, (&id, &memory)): (usize, (&u32, &bool))| NodeFacts {
                    id: NodeId(id),
                    memory_total: u64::from(memory) << 30,
                    memory_free: 0,
                    distances: row(i),
                };
                Description {
                    numa: true,
                    // Out of order, to see it put in order.
                    cpus: (0..cores * smt).rev().map(facts).collect(),
                    nodes: nodes.iter().enumerate().map(node).collect(),
                    allowed_cpus: (0..cores * smt).filter(|&c| cpu_mask[c as usize]).map(CpuId).collect(),
                    allowed_memory: ids
                        .iter()
                        .zip(&node_mask)
                        .filter(|m| *m.1)
                        .map(|m| NodeId(*m.0))
                        .collect(),
                }
            },
        )
    })
}

proptest! {
    #[test]
    fn every_allowed_core_gets_a_home_and_memory_and_no_other_core_is_planned(machine in machine()) {
        let usable: NodeSet = machine.nodes.iter()
            .filter(|n| n.memory_total > 0 && machine.allowed_memory.contains(n.id)).map(|n| n.id).collect();
        let possible = !usable.is_empty() && !machine.allowed_cpus.is_empty();
        let topology = Topology::new(machine.clone());
        prop_assert_eq!(topology.is_ok(), possible);
        let Ok(topology) = topology else { return Ok(()) };
        let plan = CorePlan::new(&topology, &CoreSelection::All).unwrap();

        let planned: Vec<CpuId> = plan.cores().iter().map(|c| c.cpu).collect();
        prop_assert_eq!(planned.len(), machine.allowed_cpus.len(), "each once");
        prop_assert_eq!(planned.iter().copied().collect::<CpuSet>(), machine.allowed_cpus.clone());
        let with_cpus: BTreeSet<NodeId> = machine.cpus.iter().map(|c| c.node).collect();
        for (i, core) in plan.cores().iter().enumerate() {
            prop_assert_eq!(core.index, i);
            let facts = machine.cpus.iter().find(|c| c.id == core.cpu).unwrap();
            prop_assert_eq!(core.node, facts.node);
            prop_assert_eq!(topology.home_node(core.cpu).unwrap(), facts.node);
            prop_assert!(usable.contains(core.memory));
            prop_assert_eq!(core.memory == core.node, usable.contains(core.node));
            // Nothing better was left out.
            let cost = |n: NodeId| (!with_cpus.contains(&n), topology.distance(core.node, n));
            if core.memory != core.node {
                prop_assert!(usable.iter().all(|n| cost(core.memory) <= cost(n)));
            }
        }
        // The first cores of a plan are whole ones: no sibling comes before every physical core had its turn.
        prop_assert!(plan.cores().windows(2).all(|pair| pair[0].smt_rank <= pair[1].smt_rank));
        let physical: BTreeSet<u32> = topology.cpus().iter().map(|c| c.core).collect();
        let first: BTreeSet<u32> =
            planned[..physical.len()].iter().map(|&c| topology.cpu(c).unwrap().core).collect();
        prop_assert_eq!(first, physical);
        // Every node that is shown has something to use, and each CPU is on exactly one.
        prop_assert!(topology.nodes().iter().all(|n| !n.cpus.is_empty() || usable.contains(n.id)));
        let on_nodes: usize = topology.nodes().iter().map(|n| n.cpus.len()).sum();
        prop_assert_eq!(on_nodes, planned.len());
        // Printing it never fails.
        prop_assert_eq!(topology.hardware().to_string().lines().count(), 3 * machine.nodes.len() + 3 + machine.nodes.len());
    }

    #[test]
    fn a_quota_takes_the_best_cores_and_an_interface_brings_its_node_forward(
        machine in machine(), cpus in 0.1_f64..20.0, near in any::<prop::sample::Index>(),
    ) {
        let Ok(topology) = Topology::new(machine) else { return Ok(()) };
        let near = near.get(topology.nodes()).id;
        let quota = CpuQuota::new(cpus, "/cg/some");
        let whole = quota.whole_cpus();
        let with = |quota| {
            let mut circumstances = Circumstances::default();
            (circumstances.quota, circumstances.near) = (quota, Some(near));
            circumstances
        };
        let all = CorePlan::under(&topology, &CoreSelection::All, &with(None)).unwrap();
        // Whole cores first; among those of a rank, the interface's node first.
        let order: Vec<_> = all.cores().iter().map(|c| (c.smt_rank, c.node != near)).collect();
        prop_assert!(order.is_sorted(), "{order:?}");
        prop_assert!(all.reasons().is_empty());
        let limited = CorePlan::under(&topology, &CoreSelection::All, &with(Some(quota.clone()))).unwrap();
        prop_assert_eq!(limited.cores(), &all.cores()[..whole.min(all.cores().len())]);
        prop_assert_eq!(limited.reasons().len(), usize::from(whole < all.cores().len()));
        // Who names CPUs knows why.
        let list = CoreSelection::List(topology.cpus().iter().map(|c| c.id).collect());
        prop_assert_eq!(CorePlan::under(&topology, &list, &with(Some(quota))).unwrap().cores().len(), all.cores().len());
    }

    #[test]
    fn a_list_is_planned_whole_or_refused_by_name(machine in machine(), wish in proptest::collection::btree_set(0_u32..120, 1..6)) {
        let Ok(topology) = Topology::new(machine.clone()) else { return Ok(()) };
        let wish: CpuSet = wish.into_iter().map(CpuId).collect();
        match CorePlan::new(&topology, &CoreSelection::List(wish.clone())) {
            Ok(plan) => {
                prop_assert!(wish.is_subset(&machine.allowed_cpus));
                prop_assert_eq!(plan.cores().iter().map(|c| c.cpu).collect::<CpuSet>(), wish);
            }
            Err(error) => {
                prop_assert_eq!(error.kind(), ErrorKind::Input);
                let bad = wish.iter().find(|&c| !machine.allowed_cpus.contains(c)).unwrap();
                let online = machine.cpus.iter().any(|c| c.id == bad);
                let why = if online { "is not allowed" } else { "does not exist" };
                prop_assert!(error.to_string().starts_with(&format!("CPU {bad} {why}")), "{}", error);
            }
        }
    }
}

#[test]
fn a_description_that_contradicts_itself_is_refused() {
    let good = Description {
        numa: true,
        cpus: vec![CpuFacts { id: CpuId(0), node: NodeId(0), package: 0, core: 0, cache: None }],
        nodes: vec![NodeFacts { id: NodeId(0), memory_total: 1, memory_free: 0, distances: vec![10] }],
        allowed_cpus: CpuId(0).into(),
        allowed_memory: NodeId(0).into(),
    };
    assert!(Topology::new(good.clone()).is_ok());
    let refused = |change: &dyn Fn(&mut Description), says: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        let error = Topology::new(bad).unwrap_err();
        assert!(error.kind() == ErrorKind::Input && error.to_string().contains(says), "{error}");
    };
    refused(&|d| d.cpus.push(d.cpus[0].clone()), "CPU 0 is described twice");
    refused(
        &|d| d.nodes.push(NodeFacts { distances: vec![], ..d.nodes[0].clone() }),
        "distances for 2 nodes",
    );
    refused(&|d| d.cpus[0].node = NodeId(7), "node 7, which is not described");
    refused(&|d| d.allowed_cpus = CpuId(3).into(), "none of the online CPUs (0)");
    refused(&|d| d.allowed_memory = NodeId(3).into(), "no node has memory");
    refused(&|d| d.nodes[0].distances = vec![10, 20], "2 distances for 1 nodes");
}
