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

#[test]
fn verify_finds_everything_where_it_belongs() {
    let out = topology(&["--verify"]);
    assert!(out.len() > topology(&[]).len(), "--verify says more: {out:#?}");
}
