//! Which CPU a process of the benches runs on.

use rustix::thread::{CpuSet, sched_setaffinity};
use std::io;

/// Keeps the calling thread, and what it starts from now on, on one CPU.
///
/// # Errors
/// A CPU that does not exist or that this process may not use is `InvalidInput`, with its number.
/// Source: sched_setaffinity(2).
pub fn pin_current_thread(cpu: u32) -> io::Result<()> {
    let refused = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    if cpu as usize >= CpuSet::MAX_CPU {
        return Err(refused(format!("CPU {cpu} is beyond the {} this program can name", CpuSet::MAX_CPU)));
    }
    let mut set = CpuSet::new();
    set.set(cpu as usize);
    sched_setaffinity(None, &set).map_err(|e| {
        refused(format!("cannot run on CPU {cpu}: {e}; name one of those `taskset -p $$` shows"))
    })
}
