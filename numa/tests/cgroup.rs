//! A control group's limits: its cpuset bounds plan and pools, its memory limit makes a region smaller and
//! never gets anybody killed.
//!
//! Makes control groups, so it runs only in a guest (ANNULUS_GUEST=1, root, cgroup2 mounted at /cg) and is
//! skipped elsewhere, which it says. Each scenario runs in a process of its own, which joins the group.

use std::{fs, path::Path, process::Command};

use annulus_numa::{
    ErrorKind, NodeId, NodeSet,
    plan::{Circumstances, CorePlan, CoreSelection},
    region::Region,
    thread,
    topology::Topology,
    verify,
};

const SCENARIO: &str = "ANNULUS_CGROUP_SCENARIO";

/// Makes the group, runs this program again in it, and removes it. False when there are no groups to make.
fn in_group(name: &str, limits: &[(&str, String)]) -> bool {
    let root = Path::new("/cg");
    if std::env::var_os("ANNULUS_GUEST").is_none_or(|v| v != "1") {
        println!("skipped: control groups are made in a guest only");
        return false;
    }
    fs::write(root.join("cgroup.subtree_control"), "+memory +cpuset +cpu").unwrap();
    let group = root.join(format!("annulus-{name}"));
    fs::create_dir_all(&group).unwrap();
    for (file, value) in limits {
        fs::write(group.join(file), value).unwrap();
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "scenario", "--nocapture"])
        .env(SCENARIO, name)
        .env("ANNULUS_CGROUP_DIR", &group)
        .output()
        .unwrap();
    println!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success(), "{name}: {}", child.status);
    fs::remove_dir(&group).unwrap();
    true
}

/// The part that runs inside the group; nothing when the test program was started by a person.
#[test]
fn scenario() {
    let Ok(name) = std::env::var(SCENARIO) else { return };
    let group = std::env::var("ANNULUS_CGROUP_DIR").unwrap();
    fs::write(Path::new(&group).join("cgroup.procs"), "0").unwrap();
    match name.as_str() {
        "cpuset" => within_a_cpuset(),
        "memory" => within_a_memory_limit(),
        "quota" => within_a_quota(),
        other => panic!("no scenario {other}"),
    }
}

#[test]
fn a_cpuset_bounds_plan_and_pools() {
    let topology = Topology::discover().unwrap();
    let last = topology.cpus().last().unwrap().id.to_string();
    let first = topology.memory_nodes().first().unwrap().to_string();
    in_group("cpuset", &[("cpuset.cpus", last), ("cpuset.mems", first)]);
}

fn within_a_cpuset() {
    let topology = Topology::discover().unwrap();
    let plan = CorePlan::new(&topology, &CoreSelection::All).unwrap();
    let [core] = plan.cores() else { panic!("one core is allowed: {plan:?}") };
    assert_eq!(Some(core.cpu), topology.online().last());
    assert_eq!(topology.memory_nodes(), NodeSet::from(core.memory));
    let first = "0".parse().unwrap();
    let error = CorePlan::new(&topology, &first).unwrap_err();
    assert!(error.to_string().starts_with("CPU 0 is not allowed"), "{error}");
    let memory = core.memory;
    thread::spawn_pinned("inside".into(), core, move || {
        let region = Region::new(memory, 1 << 20).unwrap();
        assert!(region.placement().pages.all_on(memory), "{}", region.placement());
    })
    .unwrap()
    .join()
    .unwrap();
    for other in [NodeId(1)].into_iter().filter(|&n| topology.home_node(core.cpu).unwrap() == n) {
        let error = Region::new(other, 4096).unwrap_err();
        println!("{error}");
        assert!(error.kind() == ErrorKind::Input && error.to_string().contains("cpuset.mems"), "{error}");
    }
}

#[test]
fn a_memory_limit_makes_a_region_smaller() {
    in_group("memory", &[("memory.max", (48 << 20).to_string())]);
}

fn within_a_memory_limit() {
    let topology = Topology::discover().unwrap();
    let node = topology.memory_nodes().first().unwrap();
    let region = Region::new(node, 64 << 20).unwrap();
    let placement = region.placement();
    println!("{placement}");
    assert!(region.len() < 48 << 20 && region.len() > 8 << 20, "{placement}");
    assert!(placement.reason.as_ref().unwrap().contains("memory limit of /cg/annulus-memory"), "{placement}");
    assert!(verify::where_pages_lie(region.as_ptr(), region.len()).unwrap().all_on(node));
}

#[test]
fn a_quota_bounds_the_plan() {
    in_group("quota", &[("cpu.max", "250000 100000".to_owned())]);
}

fn within_a_quota() {
    let circumstances = Circumstances::of_this_process(None).unwrap();
    let quota = circumstances.quota.clone().expect("the group's quota is seen");
    assert_eq!((quota.cpus, quota.group.as_path()), (2.5, Path::new("/cg/annulus-quota")));
    let topology = Topology::discover().unwrap();
    let plan = CorePlan::under(&topology, &CoreSelection::All, &circumstances).unwrap();
    assert_eq!(plan.cores().len(), topology.cpus().len().min(2));
    println!("{:?}", plan.reasons());
}
