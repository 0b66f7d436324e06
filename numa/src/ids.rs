//! The numbers by which the kernel names CPUs and memory nodes.
//!
//! Both are *OS indexes*: the numbers in `/sys/devices/system/cpu/cpuN` and `/sys/devices/system/node/nodeN`,
//! never a rank in a list of ours. They have holes (offline CPUs, nodes without CPUs) and are not ordered by
//! distance.

use std::fmt;

/// A logical CPU by its OS index (`cpuN` in sysfs).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuId(pub u32);

/// A NUMA node by its OS index (`nodeN` in sysfs). It may have CPUs, memory, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
