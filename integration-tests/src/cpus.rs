//! The CPUs that this test, and so every server that it starts, may use.

use rustix::thread::{CpuSet, sched_getaffinity};
use std::path::Path;

/// The numbers of the CPUs in this thread's affinity mask, in order.
#[track_caller]
pub fn allowed() -> Vec<usize> {
    let set = sched_getaffinity(None).expect("sched_getaffinity of the current thread");
    (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}

/// At most two of the allowed CPUs: enough for a group of listeners to be a group, on any machine.
#[track_caller]
pub fn two() -> Vec<usize> {
    let mut cpus = allowed();
    cpus.truncate(2);
    if cpus.len() < 2 {
        eprintln!("note: only one CPU may be used here, so this test runs on one core where it wants two");
    }
    cpus
}

/// At most so many of the allowed CPUs, all of one node: of the node that has the most of them.
#[track_caller]
pub fn of_one_node(count: usize) -> Vec<usize> {
    let allowed = allowed();
    let node = |cpu: &usize| {
        (0..1024).find(|node| Path::new(&format!("/sys/devices/system/cpu/cpu{cpu}/node{node}")).exists())
    };
    let of = |with: &usize| allowed.iter().copied().filter(|cpu| node(cpu) == node(with)).collect::<Vec<_>>();
    let mut cpus = allowed.iter().map(of).max_by_key(Vec::len).unwrap_or_default();
    cpus.truncate(count);
    cpus
}

/// `cpus` in the kernel's list form with commas only: `0,1,5`.
pub fn list(cpus: &[usize]) -> String {
    cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// Reads the kernel's list form, such as `0-3,8`.
#[track_caller]
pub fn parse_list(text: &str) -> Vec<usize> {
    let number = |digits: &str| -> usize {
        digits.parse().unwrap_or_else(|_| panic!("{digits:?} is no CPU number in the CPU list {text:?}"))
    };
    let mut cpus = Vec::new();
    for piece in text.trim().split(',').filter(|piece| !piece.is_empty()) {
        match piece.split_once('-') {
            Some((first, last)) => cpus.extend(number(first)..=number(last)),
            None => cpus.push(number(piece)),
        }
    }
    cpus
}
