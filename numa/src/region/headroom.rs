//! How much memory can still be taken without an OOM kill.
//!
//! Populating memory is the moment at which a pool that is too large would get this process or another one
//! killed. The machine says what is available (/proc/meminfo, MemAvailable), and each control group from ours
//! up to the root how much of its limit is left (memory.max, or memory.limit_in_bytes of the first version;
//! cgroups(7)). Page cache counts as free in both, because the kernel takes it back before it kills.

use std::path::Path;

use crate::{
    Error, Result, cgroup,
    topology::sysfs::{meminfo, meminfo_bytes, read_if_there},
};

/// The most that is left for everybody else and for page tables: a thirty-second part of the machine or of
/// the group's limit is left, but not more than this.
const MOST_MARGIN: u64 = 512 << 20;
/// The least that is left of the machine, and of a group's limit.
const LEAST_OF_MACHINE: u64 = 16 << 20;
const LEAST_OF_GROUP: u64 = 2 << 20;

pub(crate) struct Headroom {
    pub(crate) bytes: u64,
    /// Who sets the limit, for the report: "on this machine" or "under ...".
    pub(crate) limit: String,
}

pub(crate) fn bytes() -> Result<Headroom> {
    let meminfo = meminfo()?;
    let field = |name| {
        meminfo_bytes(&meminfo, name).ok_or_else(|| {
            Error::platform(format!("/proc/meminfo has no {name}; is /proc mounted as Linux gives it?"))
        })
    };
    let margin = (field("MemTotal")? / 32).clamp(LEAST_OF_MACHINE, MOST_MARGIN);
    let mut headroom = Headroom {
        bytes: field("MemAvailable")?.saturating_sub(margin),
        limit: format!("on this machine, {} MiB being left to others", margin >> 20),
    };
    for dir in cgroup::dirs("memory")? {
        let left = left_in(&dir).unwrap_or_else(|e| {
            // A container may hide its groups. Then the machine's own number is all there is.
            tracing::debug!(error = %e, "the memory limit of a control group cannot be read");
            None
        });
        if let Some(bytes) = left.filter(|&bytes| bytes < headroom.bytes) {
            headroom = Headroom { bytes, limit: format!("under the memory limit of {}", dir.display()) };
        }
    }
    Ok(headroom)
}

/// What is left of a group's limit; None when it has none.
fn left_in(dir: &Path) -> Result<Option<u64>> {
    let number = |name: &str| -> Result<Option<u64>> {
        // "max" and an absent file both mean no limit.
        Ok(read_if_there(&dir.join(name))?.and_then(|text| text.trim().parse().ok()))
    };
    let (limit, used) = match number("memory.max")? {
        Some(limit) => (limit, number("memory.current")?),
        None => match number("memory.limit_in_bytes")? {
            Some(limit) => (limit, number("memory.usage_in_bytes")?),
            None => return Ok(None),
        },
    };
    let Some(used) = used else { return Ok(None) };
    let cache: u64 = read_if_there(&dir.join("memory.stat"))?
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| matches!(*name, "active_file" | "inactive_file"))
        .filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok())
        .sum();
    let margin = (limit / 32).clamp(LEAST_OF_GROUP, MOST_MARGIN);
    Ok(Some(limit.saturating_sub(used.saturating_sub(cache)).saturating_sub(margin)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_headroom() {
        assert!(bytes().unwrap().bytes > 0);
    }
}
