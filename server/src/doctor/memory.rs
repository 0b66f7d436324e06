//! What the kernel does with memory by itself: balancing, huge pages, reclaim; and what is free.

use annulus::numa::NodeId;

use super::facts::{Facts, mebibytes};
use super::finding::Finding;

/// Bytes of pool that a core takes by default.
const POOL: u64 = 16 << 20;
/// A huge page, in the name that sysfs has for it.
const HUGE_PAGES: &str = "hugepages/hugepages-2048kB";

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![balancing(facts), zone_reclaim(facts), transparent(facts)];
    found.extend(facts.topology.memory_nodes().iter().map(|node| huge_pages(facts, node)));
    found.extend(facts.topology.memory_nodes().iter().map(|node| free(facts, node)));
    found.extend(strays(facts));
    found
}

fn balancing(facts: &Facts) -> Finding {
    let what = "kernel.numa_balancing";
    match facts.files.number("/proc/sys/kernel/numa_balancing") {
        None => Finding::good(what, "not in this kernel"),
        Some(0) => Finding::good(what, "0: off"),
        Some(value) if !facts.has_remote_memory() => {
            Finding::good(what, format!("{value}: on, without effect on one node"))
        }
        Some(value) => Finding::advice(what, format!("{value}: on"))
            .costs("the kernel unmaps pages to see who uses them: page faults, and pages moved that lie where they should")
            .mend("sysctl -w kernel.numa_balancing=0"),
    }
}

fn zone_reclaim(facts: &Facts) -> Finding {
    let what = "vm.zone_reclaim_mode";
    match facts.files.number("/proc/sys/vm/zone_reclaim_mode") {
        None => Finding::good(what, "not in this kernel"),
        Some(0) => Finding::good(what, "0: a full node borrows from others"),
        Some(mode) => Finding::advice(what, format!("{mode}: a full node frees its own page cache first"))
            .costs("files served from that node's cache are read from disk again")
            .mend("sysctl -w vm.zone_reclaim_mode=0"),
    }
}

/// `always [madvise] never`: the word in brackets is in force.
fn chosen(text: &str) -> Option<&str> {
    text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
}

fn transparent(facts: &Facts) -> Finding {
    let what = "transparent huge pages";
    let file = "/sys/kernel/mm/transparent_hugepage/enabled";
    let text = facts.files.read(file).unwrap_or_default();
    match chosen(&text) {
        Some(mode @ ("always" | "madvise")) => Finding::good(what, format!("{mode}: pools may have them")),
        Some(mode) => Finding::advice(what, mode)
            .costs("pools of 4 KiB pages: 512 times the entries in the TLB")
            .mend(format!("echo madvise > {file}")),
        None => Finding::note(what, "not in this kernel"),
    }
}

fn node_dir(node: NodeId) -> String {
    format!("/sys/devices/system/node/node{node}")
}

fn huge_pages(facts: &Facts, node: NodeId) -> Finding {
    let what = format!("huge pages of node {node}");
    let dir = format!("{}/{HUGE_PAGES}", node_dir(node));
    let number = |name: &str| facts.files.number(&format!("{dir}/{name}"));
    match (number("free_hugepages"), number("nr_hugepages")) {
        (Some(0), Some(0)) => {
            let wanted = cores_of(facts, node) * POOL / (2 << 20) + 1;
            Finding::note(what, "none reserved: pools have 4 KiB or transparent huge pages")
                .costs("nothing, unless pools are to have reserved ones (--pages hugetlb)")
                .mend(format!("echo {wanted} > {dir}/nr_hugepages"))
        }
        (Some(free), Some(all)) => Finding::good(what, format!("{free} of {all} of 2 MiB are free")),
        _ => Finding::note(what, "cannot tell"),
    }
}

/// How many cores take their memory from a node.
fn cores_of(facts: &Facts, node: NodeId) -> u64 {
    facts.cores.iter().filter(|core| core.memory == node).count() as u64
}

fn free(facts: &Facts, node: NodeId) -> Finding {
    let what = format!("free memory of node {node}");
    let cores = cores_of(facts, node);
    let (wanted, free) = (cores * POOL, facts.topology.node(node).map_or(0, |node| node.memory_free));
    let found = format!("{}, of which {cores} pools take {}", mebibytes(free), mebibytes(wanted));
    if free >= wanted + wanted / 4 {
        return Finding::good(what, found);
    }
    Finding::advice(what, found)
        .costs("smaller pools than asked for, which the report says, once page cache cannot be given back")
        .mend("run fewer cores on that node (--cores), or free memory there (numastat -m)")
}

/// Per mille of the allocations that wanted a node and went to another, from which on it is reported.
const STRAYS: u64 = 10;

/// How often, since boot, memory was wanted of a node and came from another (numastat(8): `numa_foreign` of
/// `numa_hit`). Nothing to say where there is one node.
fn strays(facts: &Facts) -> Option<Finding> {
    let what = "remote allocations";
    if !facts.has_remote_memory() {
        return None;
    }
    let mut worst: Option<(u64, NodeId)> = None;
    for node in facts.topology.memory_nodes().iter() {
        let text = facts.files.read(&format!("{}/numastat", node_dir(node))).unwrap_or_default();
        let number = |name| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        let (Some(hit), Some(foreign)) = (number("numa_hit "), number("numa_foreign ")) else { continue };
        let share = foreign.saturating_mul(1000) / (hit + foreign).max(1);
        worst = worst.max(Some((share, node)));
    }
    Some(match worst {
        None => Finding::note(what, "cannot tell (/sys/devices/system/node/node*/numastat)"),
        Some((share, _)) if share < STRAYS => {
            Finding::good(what, format!("below {} in a hundred on each node", STRAYS / 10))
        }
        Some((share, node)) => {
            let found = format!("{share} in a thousand that wanted node {node}, since boot");
            Finding::advice(what, found)
                .costs("page cache and socket buffers that a core works on lie on another node")
                .mend("free memory on that node, or move other programs off it (numastat -m; numactl --cpunodebind --membind)")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::fixture::Machine;
    use crate::doctor::finding::Verdict;

    #[test]
    fn balancing_matters_with_two_nodes() {
        for (nodes, value, verdict) in
            [(1, "1", Verdict::Good), (2, "1", Verdict::Advice), (2, "0", Verdict::Good)]
        {
            let machine = Machine::new(&format!("balancing-{nodes}-{value}"), nodes)
                .file("/proc/sys/kernel/numa_balancing", value);
            assert_eq!(balancing(&machine.facts).verdict, verdict);
        }
    }

    #[test]
    fn reclaim_and_transparent_huge_pages() {
        let machine = Machine::new("reclaim", 2)
            .file("/proc/sys/vm/zone_reclaim_mode", "1\n")
            .file("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
        assert_eq!(zone_reclaim(&machine.facts).verdict, Verdict::Advice);
        assert_eq!(transparent(&machine.facts).verdict, Verdict::Advice);
        assert_eq!(chosen("always [madvise] never"), Some("madvise"));
        assert_eq!(chosen("always madvise never"), None);
        assert_eq!(transparent(&Machine::new("no-thp", 1).facts).verdict, Verdict::Note);
    }

    #[test]
    fn huge_pages_are_told_for_each_node() {
        let dir = format!("{}/{HUGE_PAGES}", node_dir(NodeId(1)));
        let machine = Machine::new("huge", 2)
            .file(&format!("{dir}/nr_hugepages"), "16")
            .file(&format!("{dir}/free_hugepages"), "9");
        assert_eq!(huge_pages(&machine.facts, NodeId(1)).found, "9 of 16 of 2 MiB are free");
        assert_eq!(huge_pages(&machine.facts, NodeId(0)).verdict, Verdict::Note);
        let machine =
            machine.file(&format!("{dir}/nr_hugepages"), "0").file(&format!("{dir}/free_hugepages"), "0");
        assert!(huge_pages(&machine.facts, NodeId(1)).mend.unwrap().starts_with("echo 17 >"));
    }

    #[test]
    fn allocations_that_strayed() {
        let file = |node: u32| format!("{}/numastat", node_dir(NodeId(node)));
        let text = |hit: u64, foreign: u64| format!("numa_hit {hit}\nnuma_miss 7\nnuma_foreign {foreign}\n");
        assert_eq!(strays(&Machine::new("strays-1", 1).facts), None);
        let machine = Machine::new("strays-2", 2);
        assert_eq!(strays(&machine.facts).unwrap().verdict, Verdict::Note);
        let machine = machine.file(&file(0), &text(100_000, 10)).file(&file(1), &text(5000, 40));
        assert_eq!(strays(&machine.facts).unwrap().verdict, Verdict::Good);
        let machine = machine.file(&file(1), &text(900, 100));
        let finding = strays(&machine.facts).unwrap();
        assert_eq!(
            (finding.verdict, finding.found.as_str()),
            (Verdict::Advice, "100 in a thousand that wanted node 1, since boot")
        );
        assert!(finding.cost.is_some() && finding.mend.is_some());
    }

    #[test]
    fn free_memory() {
        let mut machine = Machine::new("free", 1);
        assert_eq!(free(&machine.facts, NodeId(0)).verdict, Verdict::Good);
        let core = machine.facts.cores[0].clone();
        machine.facts.cores = vec![core; 40];
        assert_eq!(free(&machine.facts, NodeId(0)).verdict, Verdict::Advice);
    }
}
