//! How much memory can still be taken without waking the OOM killer.
//!
//! Populating memory is the moment at which a pool that is too large would get the process killed, or another one. The machine
//! says what is available (/proc/meminfo, MemAvailable), and each control group from ours up to the root how much of its
//! limit is left (memory.max, or memory.limit_in_bytes of the first version; cgroups(7)). Memory of page cache is counted as free there, because
//! the kernel takes it back before it kills.

use std::path::{Path, PathBuf};

use crate::{
    Error, Result,
    topology::sysfs::{meminfo, meminfo_bytes, read_if_there},
};

/// Left alone for everybody else, and for page tables: a thirty-second part of the machine or of the group's limit, and not more than
/// this.
const MOST_MARGIN: u64 = 512 << 20;
/// The least that is left of the machine, and of a group's limit.
const LEAST_OF_MACHINE: u64 = 16 << 20;
const LEAST_OF_GROUP: u64 = 2 << 20;

pub(super) struct Headroom {
    pub(super) bytes: u64,
    /// Who sets the limit, for the report: "on this machine" or "under ...".
    pub(super) limit: String,
}

pub(super) fn bytes() -> Result<Headroom> {
    let meminfo = meminfo()?;
    let field = |name| {
        meminfo_bytes(&meminfo, name).ok_or_else(|| {
            Error::platform(format!("/proc/meminfo has no {name}; is /proc mounted as Linux gives it?"))
        })
    };
    let margin = (field("MemTotal")? / 32).clamp(LEAST_OF_MACHINE, MOST_MARGIN);
    let mut room = Headroom {
        bytes: field("MemAvailable")?.saturating_sub(margin),
        limit: format!("on this machine, {} MiB being left to others", margin >> 20),
    };
    for dir in group_dirs()? {
        let left = left_in(&dir).unwrap_or_else(|e| {
            // A container may hide its groups; then the machine's own number is all there is.
            tracing::debug!(error = %e, "the memory limit of a control group cannot be read");
            None
        });
        if let Some(bytes) = left.filter(|&bytes| bytes < room.bytes) {
            room = Headroom { bytes, limit: format!("under the memory limit of {}", dir.display()) };
        }
    }
    Ok(room)
}

/// The directories of our memory control group and all above it.
fn group_dirs() -> Result<Vec<PathBuf>> {
    let (Some(groups), Some(mounts)) =
        (read_if_there(Path::new("/proc/self/cgroup"))?, read_if_there(Path::new("/proc/self/mountinfo"))?)
    else {
        return Ok(Vec::new());
    };
    Ok(groups.lines().flat_map(|group| dirs_of(group, &mounts)).collect())
}

/// `group` is a line of /proc/self/cgroup: `0::/path` of version 2, or `4:memory:/path` of version 1.
fn dirs_of(group: &str, mounts: &str) -> Vec<PathBuf> {
    let mut parts = group.splitn(3, ':');
    let (Some(number), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
        return Vec::new();
    };
    let unified = number == "0" && controllers.is_empty();
    if !unified && !controllers.split(',').any(|c| c == "memory") {
        return Vec::new();
    }
    let mut dirs = Vec::new();
    for mount in mounts.lines() {
        // `id parent major:minor root mountpoint options ... - type source superoptions`, proc(5)
        let Some((left, right)) = mount.split_once(" - ") else { continue };
        let (mut left, mut right) = (left.split(' ').skip(3), right.split(' '));
        let (Some(root), Some(point), Some(kind)) = (left.next(), left.next(), right.next()) else {
            continue;
        };
        let right_kind = if unified {
            kind == "cgroup2"
        } else {
            kind == "cgroup" && right.nth(1).is_some_and(|options| options.split(',').any(|o| o == "memory"))
        };
        // A container sees its own group as the root of the mount.
        let Ok(below) = Path::new(path).strip_prefix(root) else { continue };
        if right_kind {
            let whole = Path::new(point).join(below);
            dirs.extend(whole.ancestors().take_while(|dir| dir.starts_with(point)).map(Path::to_path_buf));
            break;
        }
    }
    dirs
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

    const MOUNTS: &str = "\
24 1 0:22 / /proc rw - proc proc rw
30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
31 23 0:27 /docker/abc /old/memory rw - cgroup cgroup rw,memory
32 23 0:28 / /old/cpu rw - cgroup cgroup rw,cpu
";

    fn dirs(group: &str) -> Vec<String> {
        dirs_of(group, MOUNTS).iter().map(|dir| dir.display().to_string()).collect()
    }

    #[test]
    fn our_group_and_all_above_it_are_found() {
        assert_eq!(
            dirs("0::/system.slice/annulus.service"),
            ["/sys/fs/cgroup/system.slice/annulus.service", "/sys/fs/cgroup/system.slice", "/sys/fs/cgroup"]
        );
        assert_eq!(dirs("0::/"), ["/sys/fs/cgroup/"]);
        assert_eq!(dirs("4:memory:/docker/abc/inner"), ["/old/memory/inner", "/old/memory"]);
    }

    #[test]
    fn other_controllers_and_nonsense_give_none() {
        for group in ["3:cpu:/a", "4:memory:/elsewhere", "", "0:", "x"] {
            assert!(dirs(group).is_empty(), "{group}");
        }
    }

    #[test]
    fn this_machine_has_room() {
        assert!(bytes().unwrap().bytes > 0);
    }
}
