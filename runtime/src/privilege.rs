//! Whether the kernel's limits apply to this process.

use rustix::thread::{CapabilitySet, capabilities};

/// Whether the process has one of these capabilities of the first user namespace (`capabilities(7)`,
/// `user_namespaces(7)`): capabilities of another namespace free it from no limit. Where the namespace is not
/// known it counts as having none.
pub(crate) fn has_any(of: CapabilitySet) -> bool {
    let first = std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
    first && capabilities(None).is_ok_and(|sets| sets.effective.intersects(of))
}
