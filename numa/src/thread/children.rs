//! Processes that a pinned thread starts: they inherit its one CPU and its memory policy, and should not.

use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::MPOL_DEFAULT;

use super::spawn::original_policy;
use super::told;
use crate::sys::{self, Policy, PolicyToSet};
use crate::{CpuSet, NodeSet, Result};

/// The CPUs of the process: those that its first thread may run on (sched_getaffinity(2)).
///
/// # Errors
/// As for [`affinity_of_current`](super::affinity_of_current).
pub fn affinity_of_process() -> Result<CpuSet> {
    told(sys::affinity(std::process::id() as i32))
}

/// Lets what `command` starts run on all [CPUs of the process](affinity_of_process), whichever thread starts it: without this a
/// child of a pinned thread has that thread's one CPU. From a thread of [`spawn_pinned`](super::spawn_pinned) the child also gets the
/// memory policy back that the process came with; if its nodes have left the cpuset since, the kernel's default. sched_setaffinity(2),
/// set_mempolicy(2); where the first is refused, starting fails. A filter that refuses the second has kept the pinned thread from
/// changing the policy too.
///
/// Call it on the thread that starts the child.
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
    let policies = original_policy().map(|original| {
        [original, Policy::new(MPOL_DEFAULT, NodeSet::new())].map(|it| PolicyToSet::new(&it))
    });
    let unpin = move || {
        if let Some([original, default]) = &policies
            && original.set().is_err()
        {
            // Refused: then nobody has changed it.
            let _unchanged = default.set();
        }
        sys::set_affinity_mask(&mask)
    };
    // SAFETY: between fork and exec the closure makes system calls only, on memory from before the fork.
    Ok(unsafe { command.pre_exec(unpin) })
}
