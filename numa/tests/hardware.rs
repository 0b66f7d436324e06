//! `Topology::hardware()` against the installed numactl.
//!
//! Needs the program numactl: fails where it is absent, except in a guest (ANNULUS_GUEST=1), where it is
//! skipped and says so.

use std::process::{Command, Output};

use annulus_numa::topology::Topology;

/// What numactl prints with `args`; None in a guest that has none.
fn numactl(args: &[&str]) -> Option<Output> {
    match Command::new("numactl").args(args).output() {
        Ok(output) => Some(output),
        Err(e) if std::env::var_os("ANNULUS_GUEST").is_some_and(|v| v == "1") => {
            println!("skipped: no numactl in this guest: {e}");
            None
        }
        Err(e) => panic!("this test compares with numactl: {e}; install the package numactl"),
    }
}

/// Free memory moves between two looks: its number is left out, all else must be the same to the byte.
fn without_free_numbers(text: &str) -> String {
    let mask = |line: &str| match line.split_once(" free: ") {
        Some((node, amount)) => {
            let (number, unit) = amount.split_once(' ').unwrap();
            assert!(number.parse::<u64>().is_ok(), "{line}");
            format!("{node} free: N {unit}\n")
        }
        None => format!("{line}\n"),
    };
    assert!(text.ends_with('\n'));
    text.lines().map(mask).collect()
}

#[test]
fn hardware_is_what_numactl_prints() {
    let Some(output) = numactl(&["--hardware"]) else { return };
    let theirs = String::from_utf8(output.stdout).unwrap();
    let ours = Topology::discover().unwrap().hardware().to_string();
    assert_eq!(without_free_numbers(&ours), without_free_numbers(&theirs));
}

#[test]
fn a_narrower_mask_changes_nothing_for_either() {
    let topology = Topology::discover().unwrap();
    let cpu = topology.cpus()[0].id.to_string();
    let Some(output) = numactl(&["--physcpubind", &cpu, "numactl", "--hardware"]) else { return };
    let theirs = String::from_utf8(output.stdout).unwrap();
    let mut narrow = rustix::thread::CpuSet::new();
    narrow.set(cpu.parse().unwrap());
    // On a thread of its own, which keeps the mask to its end.
    let ours = std::thread::spawn(move || {
        rustix::thread::sched_setaffinity(None, &narrow).unwrap();
        Topology::discover().unwrap().hardware().to_string()
    });
    assert_eq!(without_free_numbers(&ours.join().unwrap()), without_free_numbers(&theirs));
}
