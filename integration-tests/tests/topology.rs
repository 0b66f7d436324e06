//! `annulus topology`: the machine as numactl shows it, then the plan of cores; with `--verify`, proof.

use annulus_integration_tests::cpus;
use annulus_integration_tests::server::Launch;
use std::process::Command;

#[track_caller]
fn topology(args: &[&str]) -> Vec<String> {
    let ended = args.iter().fold(Launch::new().arg("topology"), |launch, arg| launch.arg(arg)).run();
    assert_eq!(ended.code(), 0, "{ended:#?}");
    ended.out
}

/// Without the sizes of free memory, which change from one moment to the next.
fn steady(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["node", node, "free:", mib, "MB"] if mib.parse::<u64>().is_ok() => {
            format!("node {node} free: ... MB")
        }
        _ => line.to_owned(),
    }
}

#[test]
fn the_first_part_is_what_numactl_prints() {
    let numactl = Command::new("numactl")
        .arg("--hardware")
        .output()
        .unwrap_or_else(|e| panic!("running numactl (apt-get install numactl): {e}"));
    assert!(numactl.status.success(), "numactl --hardware: {numactl:?}");
    let numactl = String::from_utf8(numactl.stdout).expect("numactl prints text");
    let theirs: Vec<String> = numactl.lines().map(steady).collect();
    assert!(
        theirs.iter().any(|line| line.contains("free: ...")),
        "numactl has lines with free sizes: {theirs:#?}"
    );
    let ours: Vec<String> = topology(&[]).iter().map(|line| steady(line)).collect();
    assert!(ours.len() > theirs.len(), "after numactl's lines comes the plan: {ours:#?}");
    assert_eq!(ours[..theirs.len()], theirs[..]);
}

#[test]
fn the_plan_names_every_core() {
    let out = topology(&[]);
    for cpu in cpus::allowed() {
        let named = out.iter().any(|line| {
            let words: Vec<&str> =
                line.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect();
            words.windows(2).any(|two| two[0].eq_ignore_ascii_case("cpu") && two[1] == cpu.to_string())
        });
        assert!(named, "no line of the plan names cpu {cpu}: {out:#?}");
    }
}

/// What one line of `--verify` says of a stretch of memory.
struct Stretch {
    core: usize,
    name: String,
    bytes: u64,
    node: usize,
    pages: u64,
    /// Pages by where they are.
    found: Vec<(String, u64)>,
}

/// `core 0: pool of 33558528 bytes belongs on node 0: 8193 pages: 8193 on node 0 (by move_pages)`
fn stretch(line: &str) -> Option<Stretch> {
    let (core, rest) = line.strip_prefix("core ")?.split_once(": ")?;
    let (name, rest) = rest.split_once(" of ")?;
    let (bytes, rest) = rest.split_once(" bytes belongs on node ")?;
    let (node, rest) = rest.split_once(": ")?;
    let (pages, rest) = rest.split_once(" page")?;
    let (_, found) = rest.split_once(": ")?;
    let found = found.split(" (by ").next()?;
    let found = found
        .split(", ")
        .map(|piece| {
            piece.split_once(' ').and_then(|(count, place)| Some((place.to_owned(), count.parse().ok()?)))
        })
        .collect::<Option<_>>()?;
    Some(Stretch {
        core: core.parse().ok()?,
        name: name.to_owned(),
        bytes: bytes.parse().ok()?,
        node: node.parse().ok()?,
        pages: pages.parse().ok()?,
        found,
    })
}

#[test]
fn verify_finds_every_page_on_its_node_and_its_lines_add_up() {
    const PAGE: u64 = 4096;
    let out = topology(&["--verify"]);
    let stretches: Vec<Stretch> = out.iter().filter_map(|line| stretch(line)).collect();
    let cores = cpus::allowed().len();
    for stretch in &stretches {
        let sum: u64 = stretch.found.iter().map(|(_, count)| count).sum();
        assert_eq!(sum, stretch.pages, "core {} {}: {:?}", stretch.core, stretch.name, stretch.found);
        assert!(
            stretch.pages * PAGE >= stretch.bytes,
            "core {} {}: too few pages",
            stretch.core,
            stretch.name
        );
        let home = format!("on node {}", stretch.node);
        // Heap and operations may have pages that nobody has touched yet.
        let fresh = |place: &str| {
            place == "without memory" && ["heap", "operations"].contains(&stretch.name.as_str())
        };
        assert!(
            stretch.found.iter().all(|(place, _)| *place == home || fresh(place)),
            "core {}: {:?}",
            stretch.core,
            stretch.found
        );
    }
    for core in 0..cores {
        for name in ["pool", "buffer ring", "stack"] {
            let own = stretches.iter().filter(|s| s.core == core && s.name == name).count();
            assert_eq!(own, 1, "core {core} has one {name}: {out:#?}");
        }
        assert!(
            stretches.iter().any(|s| s.core == core && s.name == "grown pool"),
            "core {core} was made to grow: {out:#?}"
        );
    }
    assert!(stretches.iter().all(|stretch| stretch.core < cores), "{out:#?}");
}

/// numactl around the program: a binding bounds everything, any other policy is overridden on the cores,
/// which the report says. Seen to fail: with the policy that the process came with left out of the report.
#[test]
fn numactl_around_it_is_kept_or_reported() {
    if !std::path::Path::new("/sys/devices/system/node/has_memory").exists() {
        println!("skipped: this kernel has no NUMA, hence no policy");
        return;
    }
    let list = std::fs::read_to_string("/sys/devices/system/node/has_memory").expect("just seen");
    for node in cpus::parse_list(&list) {
        for (flag, says) in [
            (
                format!("--membind={node}"),
                format!("memory bound to node(s) {node}, as the process was started"),
            ),
            (
                format!("--preferred={node}"),
                "which overrides the policy that the process came with".to_owned(),
            ),
            (
                format!("--interleave={node}"),
                "which overrides the policy that the process came with".to_owned(),
            ),
        ] {
            let launch = Launch::new().under(&["numactl", &flag]).args(["topology", "--verify"]);
            let ended = launch.run();
            assert_eq!(ended.code(), 0, "{flag}: {ended:#?}");
            let cores: Vec<_> = ended.out.iter().filter(|line| line.contains("; pool node ")).collect();
            assert!(
                !cores.is_empty() && cores.iter().all(|line| line.contains(", bound")),
                "{flag}: {cores:#?}"
            );
            assert!(cores.iter().all(|line| line.contains(&says)), "{flag}: {says}: {cores:#?}");
            if flag.starts_with("--membind") {
                let stretches = ended.out.iter().filter_map(|line| stretch(line));
                assert!(stretches.into_iter().all(|stretch| stretch.node == node), "{ended:#?}");
            }
        }
    }
}

#[test]
fn numa_bench_prints_a_matrix_and_is_honest_on_one_node() {
    let ended = Launch::new().arg("numa-bench").arg("--quick").run();
    assert_eq!(ended.code(), 0, "{ended:#?}");
    for title in ["distance", "latency", "bandwidth"] {
        assert!(ended.out.iter().any(|line| line.starts_with(title)), "{title}: {ended:#?}");
    }
    let nodes = topology(&[]).iter().filter(|line| line.contains(" size:")).count();
    let honest = ended.out.iter().any(|line| line.contains("nothing remote to measure"));
    assert_eq!(honest, nodes == 1, "{ended:#?}");
}
