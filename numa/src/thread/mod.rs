//! Threads that are pinned to one CPU, with their stack, thread descriptor and thread-local storage on the
//! right node.

mod children;
mod creator;
mod helper;
mod policy;
mod spawn;
mod stacks;

pub use children::{affinity_of_process, unpin};
pub use creator::starting_at;
pub use helper::{Origin, spawn_helper};
pub use policy::{InheritedPolicy, PolicyState, inherited_policy};
pub(crate) use policy::{refusal, remedy};
pub use spawn::{ThreadPlacement, placement_of_current, spawn_pinned, spawn_pinned_briefly, spawn_unplaced};

use crate::{CpuSet, Error, Result, sys};

/// The CPUs that the calling thread may run on (sched_getaffinity(2)). All threads of a new process start
/// with its affinity mask, within the cgroup's cpuset.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) when a filter refuses the call.
pub fn affinity_of_current() -> Result<CpuSet> {
    told(sys::affinity(0))
}

fn told(read: std::io::Result<CpuSet>) -> Result<CpuSet> {
    read.map_err(|e| {
        Error::io(
            "cannot read the thread's CPU affinity (sched_getaffinity)",
            e,
            "allow it in the seccomp profile",
        )
    })
}
