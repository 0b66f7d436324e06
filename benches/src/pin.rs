//! Which CPUs a process of the benches runs on.

use rustix::thread::{CpuSet, sched_setaffinity};
use std::io;

/// Keeps the calling thread, and what it starts from now on, on one CPU.
///
/// # Errors
/// As for [`keep_current_thread_on`].
pub fn pin_current_thread(cpu: u32) -> io::Result<()> {
    keep_current_thread_on(&[cpu])
}

/// Keeps the calling thread, and what it starts from now on, on some CPUs.
///
/// # Errors
/// CPUs that do not exist or that this process may not use are `InvalidInput`, with their numbers.
/// Source: sched_setaffinity(2).
pub fn keep_current_thread_on(cpus: &[u32]) -> io::Result<()> {
    let refused = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let mut set = CpuSet::new();
    for &cpu in cpus {
        if cpu as usize >= CpuSet::MAX_CPU {
            return Err(refused(format!(
                "CPU {cpu} is beyond the {} this program can name",
                CpuSet::MAX_CPU
            )));
        }
        set.set(cpu as usize);
    }
    sched_setaffinity(None, &set).map_err(|e| {
        refused(format!("cannot run on CPU {cpus:?}: {e}; name one of those `taskset -p $$` shows"))
    })
}
