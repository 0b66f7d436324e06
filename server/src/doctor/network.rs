//! Network interfaces and disks: on which node, steered to which CPUs.

use annulus::numa::devices::Nic;
use annulus::numa::{CpuSet, NodeId, NodeSet};

use super::facts::Facts;
use super::finding::Finding;

/// Drivers that can hand a receive queue to io_uring, in the kernels of today; header/data split, flow
/// steering and RSS have to be set up besides (Documentation/networking/iou-zcrx.rst of the kernel).
const ZERO_COPY_DRIVERS: [&str; 4] = ["bnxt_en", "mlx5_core", "gve", "fbnic"];

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let up: Vec<&Nic> = facts.nics.iter().filter(|nic| nic.up).collect();
    let mut found = Vec::new();
    if up.is_empty() {
        found.push(Finding::note("interfaces", "none with a device is up: only loopback and virtual ones"));
    }
    for nic in up {
        found.push(node(facts, nic));
        found.push(receive_queues(facts, nic));
        found.extend(transmit_queues(facts, nic));
        found.push(interrupts(facts, nic));
        found.push(zero_copy(facts, nic));
    }
    found.extend(disks(facts));
    found
}

fn cpus(facts: &Facts) -> CpuSet {
    facts.cores.iter().map(|core| core.cpu).collect()
}

fn node(facts: &Facts, nic: &Nic) -> Finding {
    let what = format!("{} and the cores", nic.name);
    let nodes: NodeSet = facts.cores.iter().map(|core| core.node).collect();
    match nic.node {
        _ if facts.topology.nodes().len() < 2 => Finding::good(what, "one node"),
        None => Finding::note(what, "the firmware does not say on which node it is")
            .costs("cores cannot be chosen near it")
            .mend("cat /proc/interrupts, and --cores by hand"),
        Some(node) if nodes.contains(node) => {
            Finding::good(what, format!("node {node}, where cores run as well"))
        }
        Some(node) => Finding::advice(what, format!("node {node}; the cores are on nodes {nodes}"))
            .costs("every packet crosses between nodes")
            .mend(format!("--nic {} puts that node's CPUs first", nic.name)),
    }
}

fn receive_queues(facts: &Facts, nic: &Nic) -> Finding {
    let what = format!("{} receive queues", nic.name);
    let (queues, cores) = (nic.receive_queues.len(), facts.cores.len());
    let steered = nic.receive_queues.iter().filter(|cpus| !cpus.is_empty()).count();
    let found = format!("{queues} for {cores} cores, RPS on {steered}");
    if queues >= cores && steered == 0 {
        return Finding::good(what, format!("{found}; --steer cpu gives a core the connections of its CPU"));
    }
    if queues >= cores {
        return Finding::advice(what, found)
            .costs("packets are handed on to another CPU although there is a queue for each core")
            .mend(format!(
                "for f in /sys/class/net/{}/queues/rx-*/rps_cpus; do echo 0 > $f; done",
                nic.name
            ));
    }
    if steered == queues {
        return Finding::good(what, found);
    }
    let mask = hex_mask(&cpus(facts));
    Finding::advice(what, found)
        .costs(format!("the packets of all {cores} cores are handled on {queues} CPUs"))
        .mend(format!(
            "ethtool -L {0} combined {cores}; where it has no more queues: for f in /sys/class/net/{0}/queues/rx-*/rps_cpus; do echo {mask} > $f; done",
            nic.name
        ))
}

/// The mask that sysfs takes: hexadecimal words of 32 bits, the highest first.
fn hex_mask(cpus: &CpuSet) -> String {
    let words = cpus.last().map_or(1, |last| last.0 / 32 + 1);
    let word = |index: u32| {
        cpus.iter().filter(|cpu| cpu.0 / 32 == index).fold(0_u32, |word, cpu| word | 1 << (cpu.0 % 32))
    };
    (0..words).rev().map(|index| format!("{:08x}", word(index))).collect::<Vec<_>>().join(",")
}

/// Nothing to say about a single transmit queue: all share it.
fn transmit_queues(facts: &Facts, nic: &Nic) -> Option<Finding> {
    let what = format!("{} transmit queues", nic.name);
    let queues = nic.transmit_queues.len();
    if queues < 2 {
        return None;
    }
    let assigned = nic.transmit_queues.iter().filter(|cpus| !cpus.is_empty()).count();
    let found = format!("{queues} for {} cores, XPS on {assigned}", facts.cores.len());
    if assigned > 0 {
        return Some(Finding::good(what, found));
    }
    Some(
        Finding::advice(what, found)
            .costs("cores choose queues by hash and wait for each other's locks")
            .mend(format!(
                "give each core its own: echo MASK > /sys/class/net/{}/queues/tx-N/xps_cpus (the kernel's scaling.rst)",
                nic.name
            )),
    )
}

/// Where the interface's interrupts are handled, against its node.
fn interrupts(facts: &Facts, nic: &Nic) -> Finding {
    let what = format!("{} interrupts", nic.name);
    let handled: CpuSet = nic
        .interrupts
        .iter()
        .filter_map(|irq| facts.files.read(&format!("/proc/irq/{irq}/effective_affinity_list")))
        .filter_map(|list| list.parse::<CpuSet>().ok())
        .flat_map(|cpus| cpus.iter().collect::<Vec<_>>())
        .collect();
    if handled.is_empty() {
        return Finding::note(what, "not visible here (in a container, or not message-signalled)");
    }
    let home =
        |node: NodeId| handled.iter().all(|cpu| facts.topology.home_node(cpu).is_ok_and(|home| home == node));
    match nic.node.filter(|_| facts.topology.nodes().len() > 1) {
        Some(node) if !home(node) => {
            Finding::advice(what, format!("handled on CPUs {handled}, some not of node {node}"))
                .costs("packets cross between nodes before a core sees them")
                .mend(format!(
                    "systemctl stop irqbalance; echo CPU > /proc/irq/N/smp_affinity_list for N in {:?}",
                    nic.interrupts
                ))
        }
        _ => Finding::good(what, format!("handled on CPUs {handled}")),
    }
}

/// Whether the interface could receive without copying, if the runtime asked it to.
fn zero_copy(facts: &Facts, nic: &Nic) -> Finding {
    let what = format!("{} zero-copy receive", nic.name);
    let driver = nic.driver.as_deref().unwrap_or("no driver");
    let lacks = [
        (
            !facts.ring.as_ref().is_ok_and(|probe| probe.zero_copy_receive),
            "a kernel with RECV_ZC (6.15)".to_owned(),
        ),
        (nic.receive_queues.len() < 2, "a second receive queue".to_owned()),
        (
            !ZERO_COPY_DRIVERS.contains(&driver),
            format!("a driver that is known to do it (this one is {driver})"),
        ),
    ];
    let lacks: Vec<_> = lacks.into_iter().filter(|(lacking, _)| *lacking).map(|(_, what)| what).collect();
    if lacks.is_empty() {
        let split = format!(
            "ethtool -G {0} tcp-data-split on; ethtool -X {0} equal ...; ethtool -K {0} ntuple on",
            nic.name
        );
        return Finding::note(
            what,
            format!("possible ({driver}), once set up; not used today (docs/zero-copy-receive.md)"),
        )
        .mend(split);
    }
    Finding::note(
        what,
        format!("not possible: needs {}; not used today (docs/zero-copy-receive.md)", lacks.join(", ")),
    )
}

fn disks(facts: &Facts) -> Option<Finding> {
    let placed: Vec<_> =
        facts.disks.iter().filter_map(|disk| Some((disk.name.as_str(), disk.node?))).collect();
    if placed.is_empty() || facts.topology.nodes().len() < 2 {
        return None;
    }
    let told: Vec<_> = placed.iter().map(|(name, node)| format!("{name} on node {node}")).collect();
    Some(Finding::note("disks", told.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::doctor::facts::fixture::Machine;
    use crate::doctor::finding::Verdict;

    fn eth0(node: Option<u32>, queues: usize, rps: &str) -> Nic {
        let mut nic = Nic::new("eth0");
        nic.node = node.map(NodeId);
        nic.driver = Some("virtio_net".into());
        nic.receive_queues = vec![rps.parse().unwrap(); queues];
        nic.transmit_queues = vec![CpuSet::new(); queues];
        nic.interrupts = BTreeSet::from([37, 38]);
        nic
    }

    #[test]
    fn an_interface_far_from_the_cores_is_advice() {
        let mut machine = Machine::new("nic-node", 2);
        for (on, verdict) in [(Some(1), Verdict::Good), (None, Verdict::Note), (Some(7), Verdict::Advice)] {
            assert_eq!(node(&machine.facts, &eth0(on, 1, "")).verdict, verdict, "{on:?}");
        }
        machine.facts.cores.truncate(2);
        assert_eq!(node(&machine.facts, &eth0(Some(1), 1, "")).verdict, Verdict::Advice);
    }

    #[test]
    fn queues_against_cores() {
        let machine = Machine::new("queues", 2);
        for (queues, rps, verdict) in [
            (4, "", Verdict::Good),
            (4, "0-3", Verdict::Advice),
            (1, "0-3", Verdict::Good),
            (1, "", Verdict::Advice),
        ] {
            let finding = receive_queues(&machine.facts, &eth0(None, queues, rps));
            assert_eq!(finding.verdict, verdict, "{queues} {rps}");
        }
        let mend = receive_queues(&machine.facts, &eth0(None, 1, "")).mend.unwrap();
        assert!(mend.contains("echo 0000000f >"), "{mend}");
        assert_eq!(hex_mask(&"0,33".parse().unwrap()), "00000002,00000001");
        assert_eq!(transmit_queues(&machine.facts, &eth0(None, 1, "")), None);
        assert_eq!(transmit_queues(&machine.facts, &eth0(None, 2, "")).unwrap().verdict, Verdict::Advice);
    }

    #[test]
    fn interrupts_of_another_node() {
        let machine = Machine::new("irq", 2)
            .file("/proc/irq/37/effective_affinity_list", "2\n")
            .file("/proc/irq/38/effective_affinity_list", "3\n");
        assert_eq!(interrupts(&machine.facts, &eth0(Some(1), 1, "")).verdict, Verdict::Good);
        assert_eq!(interrupts(&machine.facts, &eth0(Some(0), 1, "")).verdict, Verdict::Advice);
        assert_eq!(interrupts(&Machine::new("no-irq", 1).facts, &eth0(None, 1, "")).verdict, Verdict::Note);
    }

    #[test]
    fn zero_copy_receive_says_what_is_lacking() {
        let machine = Machine::new("zcrx", 1);
        let finding = zero_copy(&machine.facts, &eth0(None, 1, ""));
        for lack in ["RECV_ZC", "second receive queue", "virtio_net"] {
            assert!(finding.found.contains(lack), "{}", finding.found);
        }
        assert_eq!(finding.verdict, Verdict::Note);
    }
}
