//! Processes that a pinned thread starts: they inherit its one CPU, and should not.

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::told;
use crate::{CpuSet, Result, sys};

/// The CPUs of the process: those that its first thread may run on (sched_getaffinity(2)).
///
/// # Errors
/// As for [`affinity_of_current`](super::affinity_of_current).
pub fn affinity_of_process() -> Result<CpuSet> {
    told(sys::affinity(std::process::id() as i32))
}

/// Lets what `command` starts run on all [CPUs of the process](affinity_of_process), whichever thread starts
/// it: without this a child of a pinned thread has that thread's one CPU. The memory policy is left: the
/// child's memory comes from the pinned thread's node first. sched_setaffinity(2); where that is refused
/// starting fails.
///
/// ```
/// use std::process::Command;
///
/// let status = annulus_numa::thread::unpin(&mut Command::new("true"))?.status().unwrap();
/// assert!(status.success());
/// # Ok::<(), annulus_numa::Error>(())
/// ```
///
/// # Errors
/// As for [`affinity_of_process`].
pub fn unpin(command: &mut Command) -> Result<&mut Command> {
    let mask = affinity_of_process()?.to_mask();
    // SAFETY: between fork and exec the closure makes one system call, on memory from before the fork.
    Ok(unsafe { command.pre_exec(move || sys::set_affinity_mask(&mask)) })
}
