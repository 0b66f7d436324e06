//! One process for each NUMA node, in place of one for all cores.
//!
//! A process has one copy of its constants, its variables and its heap, one set of page tables and one table
//! of descriptors, and all of that lies on one node: for cores of the other nodes it is remote memory. So the
//! program starts itself once more for each node ([`parent`]) and each of these serves with the cores of its
//! node ([`member`]). They share the address: the first process makes a listening socket for each core and
//! hands it on.

pub(crate) mod figures;
mod given;
pub(crate) mod line;
pub(crate) mod member;
mod orders;
pub(crate) mod parent;

use annulus::PlacementPolicy;
use annulus::numa::plan::{Circumstances, CorePlan, CoreSelection, PlannedCore};
use annulus::numa::topology::Topology;
use annulus::numa::{CpuId, CpuSet, NodeId};

use crate::exit::Failure;
use crate::options::processes::Processes;

/// The cores of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessShare {
    /// Where its memory comes from.
    pub(crate) node: NodeId,
    /// The CPUs of its cores, in the order of their plan.
    pub(crate) cores: Vec<CpuId>,
    /// Every CPU that it may run on: all that take their memory from there.
    pub(crate) cpus: CpuSet,
    /// Some of them belong to a node that has no memory.
    pub(crate) some_without_memory: bool,
}

/// Which cores of this machine each process would run, and why they are fewer than its CPUs, a line each.
///
/// # Errors
/// Those of the topology and the plan.
pub(crate) fn shares(
    asked: Processes,
    cores: &CoreSelection,
    nic: Option<&str>,
) -> Result<(Vec<ProcessShare>, Vec<String>), Failure> {
    let topology = Topology::discover()?;
    let plan = CorePlan::under(&topology, cores, &Circumstances::of_this_process(nic)?)?;
    let mut shares = divide(&topology, &plan);
    if matches!(asked, Processes::Core | Processes::AutoCore) {
        let of_core = |share: &ProcessShare, cpu: &CpuId| ProcessShare { cores: vec![*cpu], ..share.clone() };
        shares =
            shares.iter().flat_map(|share| share.cores.iter().map(move |cpu| of_core(share, cpu))).collect();
    }
    Ok((shares, plan.reasons().to_vec()))
}

fn divide(topology: &Topology, plan: &CorePlan) -> Vec<ProcessShare> {
    let share = |(node, cores): (NodeId, Vec<&PlannedCore>)| {
        let near = || topology.cpus().iter().filter(|cpu| topology.memory_node(cpu.node) == Some(node));
        ProcessShare {
            node,
            // As the process will plan them: a list runs in the order of the CPU numbers.
            cores: cores.iter().map(|core| core.cpu).collect::<CpuSet>().iter().collect(),
            cpus: near().map(|cpu| cpu.id).collect(),
            some_without_memory: near().any(|cpu| cpu.node != node),
        }
    };
    plan.by_memory().into_iter().map(share).collect()
}

/// One share with the cores of all, for a process of its own that has rights of its own.
pub(crate) fn one_for_all(shares: Vec<ProcessShare>) -> Vec<ProcessShare> {
    let all = shares.into_iter().reduce(|all, share| ProcessShare {
        node: all.node,
        // As the process will plan them: a list runs in the order of the CPU numbers.
        cores: all.cores.into_iter().chain(share.cores).collect::<CpuSet>().iter().collect(),
        cpus: all.cpus.iter().chain(share.cpus.iter()).collect(),
        // Each core takes the memory of its node; the rest comes from wherever it is touched.
        some_without_memory: false,
    });
    all.into_iter().collect()
}

/// What rules out more than one process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SplitConstraints {
    /// Where memory has to lie.
    pub(crate) placement: PlacementPolicy,
    /// Whether CPUs for submission pollers were named, which are dealt out to all cores in turn.
    pub(crate) named_pollers: bool,
}

/// Whether to serve with a process for each of the shares.
///
/// # Errors
/// [`crate::exit::Kind::Input`] when it was asked for and another option stands against it.
pub(crate) fn split(
    asked: Processes,
    constraints: SplitConstraints,
    shares: &[ProcessShare],
) -> Result<bool, Failure> {
    let against = if constraints.placement == PlacementPolicy::Off {
        Some("--placement off places nothing")
    } else if constraints.named_pollers {
        Some("--sqpoll-cpus deals out its CPUs to the cores of one process")
    } else {
        None
    };
    match (asked, against) {
        (Processes::One, _) => Ok(false),
        (_, Some(_)) if asked.may_be_one() => Ok(false),
        (_, Some(why)) => {
            Err(Failure::input(format!("several processes cannot be: {why}; leave out one of the two")))
        }
        (_, None) if shares.len() < 2 => {
            tracing::info!("all cores take their memory from one node: one process, nothing to split");
            Ok(false)
        }
        (_, None) => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use annulus::numa::topology::{CpuFacts, Description, NodeFacts};

    use super::*;
    use crate::exit::Kind;

    const PLAIN: SplitConstraints =
        SplitConstraints { placement: PlacementPolicy::Prefer, named_pollers: false };

    fn of_node(node: u32) -> ProcessShare {
        let cpu = CpuId(node);
        ProcessShare { node: NodeId(node), cores: vec![cpu], cpus: cpu.into(), some_without_memory: false }
    }

    /// As the guest `4odd`: two CPUs on each of nodes 0, 1 and 2, of which 2 has no memory and is near 1.
    #[test]
    fn cores_are_divided_by_where_their_memory_comes_from() {
        let facts = |cpu: u32| CpuFacts {
            id: CpuId(cpu),
            node: NodeId(cpu / 2),
            package: cpu / 2,
            core: cpu,
            cache: None,
        };
        let node = |id: u32, memory_total: u64, distances: [u32; 3]| NodeFacts {
            id: NodeId(id),
            memory_total,
            memory_free: 0,
            distances: distances.to_vec(),
        };
        let machine = Description {
            numa: true,
            cpus: (0..6).map(facts).collect(),
            nodes: vec![node(0, 1, [10, 21, 21]), node(1, 1, [21, 10, 12]), node(2, 0, [21, 12, 10])],
            allowed_cpus: (0..6).map(CpuId).collect(),
            allowed_memory: (0..3).map(NodeId).collect(),
        };
        let topology = Topology::new(machine).unwrap();
        let divided = |list: &str| {
            let shares = divide(&topology, &CorePlan::new(&topology, &list.parse().unwrap()).unwrap());
            let text = |share: ProcessShare| {
                let cores: CpuSet = share.cores.iter().copied().collect();
                format!("{}: {cores} of {}, {}", share.node, share.cpus, share.some_without_memory)
            };
            shares.into_iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(divided("all"), ["0: 0-1 of 0-1, false", "1: 2-5 of 2-5, true"]);
        assert_eq!(divided("1,3,5"), ["0: 1 of 0-1, false", "1: 3,5 of 2-5, true"]);
        assert_eq!(divided("4"), ["1: 4 of 2-5, true"]);
    }

    #[test]
    fn several_nodes_are_split_unless_something_stands_against_it() {
        let (one, two) = (vec![of_node(0)], vec![of_node(0), of_node(1)]);
        for asked in [Processes::Auto, Processes::Node] {
            assert!(split(asked, PLAIN, &two).unwrap());
            assert!(!split(asked, PLAIN, &one).unwrap());
        }
        assert!(!split(Processes::One, PLAIN, &two).unwrap());
        let off = SplitConstraints { placement: PlacementPolicy::Off, ..PLAIN };
        for (constraints, word) in
            [(off, "--placement"), (SplitConstraints { named_pollers: true, ..PLAIN }, "--sqpoll-cpus")]
        {
            assert!(!split(Processes::Auto, constraints, &two).unwrap());
            assert!(!split(Processes::One, constraints, &two).unwrap());
            let refused = split(Processes::Node, constraints, &two).unwrap_err();
            assert_eq!(refused.kind(), Kind::Input);
            assert!(refused.to_string().contains(word), "{refused}");
        }
    }
}
