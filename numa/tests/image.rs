//! The program's image, copied to the node that a process runs on: same addresses, same bytes, pages of that node.
//!
//! Without the test harness, whose threads stand in the way. For each node that has CPUs and memory the program starts itself there.
//!
//! Seen to fail: with nothing put in place of the constants, they are still mappings of files, and not all of their pages are there.

use std::{collections::BTreeMap, hint::black_box, process::Command};

use annulus_numa::{
    CpuSet, NodeId,
    image::{self, Kind},
    plan::{CorePlan, CoreSelection},
    thread::{affinity_of_current, inherited_policy, starting_at},
    topology::Topology,
    verify::{How, where_pages_lie},
};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

const NODE: &str = "ANNULUS_TEST_NODE";
/// Lies among the constants, and is larger than a page.
static TABLE: [u64; 2048] = [0x0123_4567_89ab_cdef; 2048];

fn main() {
    match std::env::var(NODE) {
        Ok(node) => on_node(NodeId(node.parse().expect("a number"))),
        Err(_) => on_each_node(),
    }
}

fn on_each_node() {
    let topology = Topology::discover().expect("a machine");
    let plan = CorePlan::new(&topology, &CoreSelection::All).expect("cores");
    let (affinity, policy) = (affinity_of_current().expect("CPUs"), inherited_policy());
    let nodes: BTreeMap<NodeId, CpuSet> = (plan.by_memory().into_iter())
        .map(|(node, cores)| (node, cores.iter().map(|core| core.cpu).collect()))
        .collect();
    assert!(!nodes.is_empty());
    for (node, cpus) in &nodes {
        let mut command = Command::new("/proc/self/exe");
        command.env(NODE, node.to_string());
        let status =
            starting_at(cpus, Some(*node), || command.status()).expect("going there").expect("starting");
        assert!(status.success(), "the process on node {node} ended with {status}");
    }
    assert_eq!(affinity_of_current().expect("CPUs"), affinity, "the starter is back where it was");
    assert_eq!(inherited_policy(), policy, "with the policy that it had");
    // With a second thread nothing is touched.
    std::thread::scope(|scope| {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || held.recv());
        let refused = image::bring_here().expect_err("another thread runs");
        assert!(refused.to_string().contains("other threads"), "{refused}");
        drop(hold);
    });
    println!("image: copied on nodes {nodes:?}");
}

fn on_node(node: NodeId) {
    let table = black_box(&TABLE).as_ptr().addr() + 8192;
    let sum = || black_box(&TABLE).iter().fold(0u64, |sum, word| sum.wrapping_mul(31).wrapping_add(*word));
    let before = sum();
    if std::fs::read_dir("/proc/self/task").expect("threads").count() > 1 {
        println!("skipped: a sanitizer has started a thread before main");
        return;
    }
    // As one whose file has capabilities: what of it in /proc is readable for its user only is root's then. Seen to fail, as nobody: with
    // /proc/self/mem opened.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).expect("it may");
    let image = image::bring_here().expect("one thread");
    assert_eq!(sum(), before, "the constants hold what they held");
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    for segment in &image {
        let range = segment.addresses.clone();
        let pages = where_pages_lie(std::ptr::without_provenance(range.start), range.len()).expect("a look");
        // What the kernel cannot tell is no failure of ours; it says so.
        let told = pages.how != How::Blind && pages.unknown == 0;
        match segment.kind {
            Kind::Code => continue,
            Kind::Constants => {
                let line = maps.lines().find(|line| holds(line, range.start)).unwrap_or("nothing");
                assert!(line.contains(" r--p ") && !line.contains('/'), "{segment}: {line}");
                assert!(!told || pages.all_on(node), "{segment} on node {node}: {pages}");
            }
            Kind::Variables => assert!(!told || pages.all_on(node), "{segment} on node {node}: {pages}"),
        }
    }
    let ours = |kind| image.iter().any(|segment| segment.kind == kind && segment.file.starts_with("image"));
    assert!(ours(Kind::Constants) && ours(Kind::Variables) && ours(Kind::Code), "{image:?}");
    assert!(
        image.iter().any(|segment| segment.kind == Kind::Constants && segment.addresses.contains(&table)),
        "the table was copied: {table:x}"
    );
    // Unwinding reads tables that were copied, and names are still found.
    let caught = std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(7)));
    assert_eq!(caught.expect_err("it panicked").downcast_ref::<i32>(), Some(&7));
    // A thread reads the loader's records of the image.
    assert_eq!(std::thread::spawn(|| TABLE[17]).join().expect("a thread"), TABLE[17]);
}

/// Whether a line of /proc/self/maps is the mapping that holds `address`.
fn holds(line: &str, address: usize) -> bool {
    let ends = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
    let number = |text| usize::from_str_radix(text, 16).expect("an address");
    ends.is_some_and(|(start, end)| (number(start)..number(end)).contains(&address))
}
