//! Each core is one thread pinned to one CPU, and its memory lies on that CPU's node: what /proc says about a
//! running server.

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::http::Client;
use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::upstream::Upstream;
use annulus_integration_tests::{cpus, numa_maps, procfs};
use std::collections::BTreeMap;
use std::path::Path;

/// The threads of a server's cores: one for each of `cores`, pinned to it alone.
#[track_caller]
fn one_thread_per_core(server: &Server, cores: &[usize]) {
    let own = procfs::own_threads(server.pid());
    let mut pinned: Vec<usize> = own.iter().filter(|t| t.cpus.len() == 1).map(|t| t.cpus[0]).collect();
    pinned.sort_unstable();
    assert_eq!(pinned, cores, "one pinned thread for each core: {:#?}", procfs::threads(server.pid()));
    let first =
        procfs::threads(server.pid()).into_iter().find(|t| t.tid == server.pid()).expect("a first thread");
    assert_eq!(first.cpus, cpus::allowed(), "the first thread has got back the affinity that it came with");
}

#[test]
fn each_core_is_one_thread_pinned_to_its_cpu() {
    let tree = Tree::new();
    let upstream = Upstream::echo();
    let all = cpus::allowed();
    let mut choices = vec![(String::from("all"), all.clone()), (cpus::list(&all), all.clone())];
    choices.extend(all.iter().map(|&cpu| (cpu.to_string(), vec![cpu])));
    for (list, cores) in choices {
        for launch in [Launch::serve(tree.root()), Launch::proxy(upstream.addr())] {
            let server = launch.cores(&list).start();
            one_thread_per_core(&server, &cores);
            server.stop();
        }
    }
}

#[test]
fn every_allowed_cpu_is_a_core_by_default() {
    let tree = Tree::new();
    let server = Launch::serve(tree.root()).start();
    one_thread_per_core(&server, &cpus::allowed());
    server.stop();
}

/// The node of a CPU, as sysfs has it; node 0 where the kernel knows no nodes.
fn node_of(cpu: usize) -> usize {
    let dir = format!("/sys/devices/system/cpu/cpu{cpu}");
    let Ok(entries) = std::fs::read_dir(&dir) else { return 0 };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("node")?.parse().ok())
        .next()
        .unwrap_or(0)
}

/// Whether `node` has memory of its own.
fn has_memory(node: usize) -> bool {
    let list =
        std::fs::read_to_string("/sys/devices/system/node/has_memory").unwrap_or_else(|_| "0".to_owned());
    cpus::parse_list(&list).contains(&node)
}

#[test]
fn the_pools_pages_lie_on_their_nodes() {
    if !Path::new("/proc/self/numa_maps").exists() {
        eprintln!("note: this kernel has no /proc/PID/numa_maps");
        return;
    }
    let tree = Tree::new();
    let sample = tree.file("file.txt", 1000);
    let server = Launch::serve(tree.root()).start();
    assert_eq!(Client::connect(server.addr()).get(&sample.path).head.status, 200);
    // 16 MiB for each core; a little may have been given back on a node that was nearly full.
    const POOL: u64 = 16 << 20;
    let mut due: BTreeMap<usize, u64> = BTreeMap::new();
    for node in cpus::allowed().into_iter().map(node_of).filter(|&node| has_memory(node)) {
        *due.entry(node).or_default() += POOL;
    }
    let maps = numa_maps::of(server.pid()).expect("numa_maps");
    for (&node, &bytes) in &due {
        let bound: Vec<_> = maps.iter().filter(|map| map.bound_to() == Some(node)).collect();
        let there: u64 = bound.iter().map(|map| map.bytes_on(node)).sum();
        let elsewhere: u64 = bound.iter().map(|map| map.pages_off(node)).sum();
        assert!(
            there >= bytes * 9 / 10,
            "{there} bytes bound to node {node} and there; {bytes} are due: {bound:#?}"
        );
        assert_eq!(elsewhere, 0, "pages bound to node {node} that lie elsewhere: {bound:#?}");
    }
    server.stop();
}
