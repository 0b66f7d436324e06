//! Processes that a pinned thread starts. They inherit its one CPU and its memory policy, and should not.

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

/// Lets the child that `command` starts run on all [CPUs of the process](affinity_of_process), whichever
/// thread starts it. Without this a child of a pinned thread has that thread's one CPU. The child of a thread
/// of [`spawn_pinned`](super::spawn_pinned) also gets the memory policy back that the process was started
/// with, or the kernel's default if the policy's nodes have left the cpuset since. The calls are
/// sched_setaffinity(2) and set_mempolicy(2). Where the first is refused, starting fails. A filter that
/// refuses the second has kept the pinned thread from changing the policy too.
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
            // The call was refused, so nobody has changed the policy.
            let _unchanged = default.set();
        }
        sys::set_affinity_mask(&mask)
    };
    // SAFETY: between fork and exec the closure makes system calls only, on memory from before the fork.
    Ok(unsafe { command.pre_exec(unpin) })
}

#[cfg(test)]
mod tests {
    use libc::MPOL_PREFERRED;

    use super::*;
    use crate::plan::{CorePlan, CoreSelection};
    use crate::thread::{spawn_pinned, spawn_pinned_briefly};
    use crate::topology::Topology;

    /// The memory policy of a process that `command` starts (numa(7), /proc/PID/numa_maps).
    fn policy_of(command: &mut Command) -> String {
        let maps = command.output().expect("starting cat").stdout;
        String::from_utf8_lossy(&maps).split_whitespace().nth(1).expect("a policy").to_owned()
    }

    fn cat() -> Command {
        let mut command = Command::new("cat");
        command.arg("/proc/self/numa_maps");
        command
    }

    /// Seen to fail: with `unpin` that leaves the policy, and with that of the pinned creator passed on to
    /// the second thread.
    #[test]
    fn a_child_gets_back_the_policy_that_the_process_came_with() {
        let topology = Topology::discover().unwrap();
        let core = CorePlan::new(&topology, &CoreSelection::All).unwrap().cores()[0].clone();
        let creator = move || {
            // The policy that `numactl --preferred` sets.
            let came_with = Policy::new(MPOL_PREFERRED, core.memory);
            if sys::set_policy(&came_with).is_err() || !std::fs::exists("/proc/self/numa_maps").unwrap() {
                return println!("no memory policies here");
            }
            let preferred = format!("prefer:{}", core.memory);
            let told = move || (policy_of(&mut cat()), policy_of(unpin(&mut cat()).unwrap()));
            let again = core.clone();
            let pinned = spawn_pinned("pinned".into(), &core, move || {
                let second = spawn_pinned_briefly("second".into(), &again, told).unwrap();
                [told(), second.join().unwrap()]
            });
            for (plain, unpinned) in pinned.unwrap().join().unwrap() {
                assert_ne!(plain, preferred, "the pinned thread has a policy of its own");
                assert_eq!(unpinned, preferred);
            }
        };
        std::thread::spawn(creator).join().unwrap();
    }
}
