//! Where threads and memory may go: policy calls, cpuset, affinity, CPU quota, nodes of the cores.

use annulus::numa::plan::PlannedCore;
use annulus::numa::thread::InheritedPolicy;
use annulus::numa::{CpuSet, NodeSet};

use super::facts::Facts;
use super::finding::Finding;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![policy_calls(facts), inherited(facts), cores(facts), workers_per_node(facts)];
    found.extend(memory_elsewhere(facts));
    found.push(memory_nodes(facts));
    found.push(quota(facts));
    found
}

fn policy_calls(facts: &Facts) -> Finding {
    let what = "memory policy calls";
    let refused = facts.policy_calls.refused();
    if refused.is_empty() {
        return Finding::good(what, "mbind, set_mempolicy, get_mempolicy and move_pages work");
    }
    if refused.iter().all(|(_, errno)| *errno == libc::ENOSYS) {
        return Finding::note(what, "this kernel is built without NUMA: one node, nothing to place");
    }
    let refused = refused
        .iter()
        .map(|(name, errno)| format!("{name} ({})", std::io::Error::from_raw_os_error(*errno)))
        .collect::<Vec<_>>()
        .join(", ");
    let cost = match (facts.policy_calls.mbind, facts.has_remote_memory()) {
        (Some(_), true) => "pools are placed by first touch: right when made, not kept there by the kernel",
        (None, true) => {
            "placement is proven per mapping and not per page, or an inherited binding cannot be seen"
        }
        (_, false) => "nothing as long as there is one node with memory",
    };
    let mend = "docker run --cap-add SYS_NICE, or --security-opt seccomp=scripts/seccomp/annulus.json";
    let found = format!("refused: {refused}");
    let finding =
        if facts.has_remote_memory() { Finding::advice(what, found) } else { Finding::note(what, found) };
    finding.costs(cost).mend(mend)
}

fn inherited(facts: &Facts) -> Finding {
    let what = "inherited memory policy";
    match &facts.inherited {
        InheritedPolicy::Default | InheritedPolicy::Local => Finding::good(what, facts.inherited.to_string()),
        InheritedPolicy::Bind(nodes) => Finding::note(
            what,
            format!("bound to nodes {nodes}: it bounds cores' memory and pools, and is kept"),
        ),
        InheritedPolicy::Unknown(_) => Finding::note(what, facts.inherited.to_string()),
        other => Finding::note(what, format!("{other}: cores override it, other threads keep it")),
    }
}

fn cores(facts: &Facts) -> Finding {
    let cpus: CpuSet = facts.cores.iter().map(|core| core.cpu).collect();
    let allowed: CpuSet = facts.topology.cpus().iter().map(|cpu| cpu.id).collect();
    let online = facts.topology.online();
    let mut found = format!("cores on CPUs {cpus}");
    if allowed != online {
        found.push_str(&format!("; affinity mask and cpuset leave {allowed} of {online}"));
    }
    let siblings = facts.cores.iter().filter(|core| core.smt_rank > 0).count();
    if siblings > 0 {
        return Finding::note("cores", format!("{found}; {siblings} share a physical core with another"))
            .costs("two cores on one physical core do the work of some 1.2 to 1.3")
            .mend("--cores with the first CPU of each physical core, where latency matters (lscpu -e)");
    }
    Finding::good("cores", found)
}

fn workers_per_node(facts: &Facts) -> Finding {
    let nodes: NodeSet = facts.cores.iter().map(|core| core.node).collect();
    let counts: Vec<usize> =
        nodes.iter().map(|node| facts.cores.iter().filter(|core| core.node == node).count()).collect();
    let told: Vec<_> = nodes.iter().zip(&counts).map(|(node, n)| format!("{n} on node {node}")).collect();
    let found = told.join(", ");
    if counts.iter().min() == counts.iter().max() {
        return Finding::good("workers per node", found);
    }
    Finding::note("workers per node", format!("{found}: not the same on each"))
        .costs("clients are spread over cores, so the memory bandwidth of nodes is used unevenly")
}

/// Cores that cannot have memory of their own node.
fn memory_elsewhere(facts: &Facts) -> Option<Finding> {
    let away: Vec<&PlannedCore> = facts.cores.iter().filter(|core| core.memory != core.node).collect();
    let first = away.first()?;
    let cpus: CpuSet = away.iter().map(|core| core.cpu).collect();
    let distance = facts.topology.distance(first.node, first.memory);
    let found = format!("CPUs {cpus}: node {} has none that we may use", first.node);
    let has_memory = facts.topology.node(first.node).is_some_and(|node| node.memory_total > 0);
    let mend = if has_memory {
        format!("allow node {} in the group's cpuset.mems or in numactl --membind", first.node)
    } else {
        "--cores without them".to_owned()
    };
    Some(
        Finding::advice("memory of cores", found)
            .costs(format!("every access goes to node {}, distance {distance} instead of 10", first.memory))
            .mend(mend),
    )
}

fn memory_nodes(facts: &Facts) -> Finding {
    let allowed = facts.topology.memory_nodes();
    Finding::good("memory nodes", format!("{allowed} may be used"))
}

fn quota(facts: &Facts) -> Finding {
    let what = "CPU quota";
    let cores = facts.cores.len();
    match &facts.quota {
        None => Finding::good(what, "none"),
        Some(quota) if quota.cpus >= cores as f64 => {
            Finding::good(what, format!("{} CPUs for {cores} cores", quota.cpus))
        }
        Some(quota) => {
            let group = quota.group.display();
            Finding::advice(what, format!("{} CPUs for {cores} cores (by {group})", quota.cpus))
                .costs("when it is used up all cores stand still until the next period, up to 100 ms")
                .mend(format!("run {} cores (--cores), or raise cpu.max there", quota.whole_cpus()))
        }
    }
}

#[cfg(test)]
mod tests {
    use annulus::numa::NodeId;
    use annulus::numa::cgroup::CpuQuota;

    use super::*;
    use crate::doctor::facts::fixture::Machine;
    use crate::doctor::finding::Verdict;

    #[test]
    fn refused_calls_matter_where_memory_can_be_remote() {
        for (nodes, verdict) in [(1, Verdict::Note), (2, Verdict::Advice)] {
            let mut machine = Machine::new(&format!("calls-{nodes}"), nodes);
            assert_eq!(policy_calls(&machine.facts).verdict, Verdict::Good);
            machine.facts.policy_calls.mbind = Some(libc::EPERM);
            let finding = policy_calls(&machine.facts);
            assert_eq!(finding.verdict, verdict);
            assert!(finding.found.contains("mbind") && finding.mend.unwrap().contains("SYS_NICE"));
            machine.facts.policy_calls.mbind = Some(libc::ENOSYS);
            assert_eq!(policy_calls(&machine.facts).verdict, Verdict::Note);
        }
    }

    #[test]
    fn a_core_without_memory_of_its_own_is_told() {
        let mut machine = Machine::new("away", 2);
        assert_eq!(memory_elsewhere(&machine.facts), None);
        machine.facts.cores[1].memory = NodeId(1);
        let finding = memory_elsewhere(&machine.facts).unwrap();
        assert_eq!(finding.verdict, Verdict::Advice);
        assert!(finding.found.contains("CPUs 1") && finding.cost.unwrap().contains("distance 20"));
    }

    #[test]
    fn a_quota_below_the_cores_is_advice() {
        let mut machine = Machine::new("quota", 1);
        for (cpus, verdict) in [(2.0, Verdict::Good), (1.5, Verdict::Advice)] {
            machine.facts.quota = Some(CpuQuota::new(cpus, "/cg/x"));
            assert_eq!(quota(&machine.facts).verdict, verdict);
        }
    }

    #[test]
    fn uneven_nodes_and_siblings_are_notes() {
        let mut machine = Machine::new("uneven", 2);
        assert_eq!(workers_per_node(&machine.facts).verdict, Verdict::Good);
        machine.facts.cores.pop();
        assert_eq!(workers_per_node(&machine.facts).verdict, Verdict::Note);
        assert_eq!(cores(&machine.facts).verdict, Verdict::Good);
        machine.facts.cores[0].smt_rank = 1;
        assert_eq!(cores(&machine.facts).verdict, Verdict::Note);
    }
}
