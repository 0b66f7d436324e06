//! What the process came with is heeded, and left as it was.

use std::thread;

use crate::common::small;
use crate::{alone, is_child, on_first_cpu, wait_for_stop};

fn policy_of_current() -> (i32, [u64; 16]) {
    let (mut mode, mut nodes) = (0, [0_u64; 16]);
    // SAFETY: the kernel writes one int and 1024 bits, for which there is room.
    let rc = unsafe { libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, nodes.as_mut_ptr(), 1024, 0, 0) };
    if rc == 0 { (mode, nodes) } else { (-1, nodes) }
}

/// Seen to fail: with the starting thread's affinity not put back.
#[test]
fn affinity_and_memory_policy_are_heeded_and_left_as_they_were() {
    if is_child() {
        return;
    }
    let _turn = alone();
    // On a thread of its own, because what it does to itself cannot be undone.
    let test = thread::spawn(|| {
        let all = annulus::numa::thread::affinity_of_current().unwrap();
        let running = wait_for_stop(on_first_cpu(small()));
        assert_eq!(annulus::numa::thread::affinity_of_current().unwrap(), all);
        running.stop();
        running.wait().unwrap();
        let last = all.iter().last().unwrap();
        let mut mask = rustix::thread::CpuSet::new();
        mask.set(last.0 as usize);
        rustix::thread::sched_setaffinity(None, &mask).unwrap();
        // Bound to all nodes that it may use, if there is such a thing here.
        let allowed = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let nodes = allowed.lines().find_map(|line| line.strip_prefix("Mems_allowed_list:"));
        let mut bits = [0_u64; 16];
        let first: usize =
            nodes.and_then(|list| list.trim().split(['-', ',']).next()?.parse().ok()).unwrap_or(0);
        bits[first / 64] |= 1 << (first % 64);
        // SAFETY: the kernel reads 1024 bits of the mask, which lives across the call.
        let rc = unsafe { libc::syscall(libc::SYS_set_mempolicy, libc::MPOL_BIND, bits.as_ptr(), 1025) };
        let (bound, before) = (rc == 0, policy_of_current());
        let running = wait_for_stop(small());
        let report = running.report();
        assert_eq!(report.cores.len(), 1, "only one CPU is allowed: {report}");
        assert_eq!(report.cores[0].core.cpu, last);
        if bound {
            let memory = report.cores[0].core.memory;
            assert_eq!(memory.0 as usize, first, "memory of a node that is not in the binding: {report}");
            let life = &report.cores[0].thread.as_ref().expect("placed").life;
            assert!(life.to_string().starts_with("bound"), "the binding was undone: {life}");
        } else {
            println!("no memory policy can be set here: {}", std::io::Error::last_os_error());
        }
        running.stop();
        running.wait().unwrap();
        assert_eq!(annulus::numa::thread::affinity_of_current().unwrap(), last.into());
        assert_eq!(policy_of_current(), before);
    });
    test.join().unwrap();
}
