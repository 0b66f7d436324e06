//! Control groups: where ours are mounted, and how much CPU time they leave us. cgroups(7).
//!
//! A limit holds for a group and all below it, so every group from ours up to the root of the mount is asked.

use std::path::{Path, PathBuf};

use crate::{Result, topology::sysfs::read_if_there};

/// A bound on CPU time: the tightest of our group's and of those of the groups above it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CpuQuota {
    /// How many CPUs' worth of time may be used: 1.5 is 150 ms in every 100 ms.
    pub cpus: f64,
    /// The directory of the group that sets it.
    pub group: PathBuf,
}

impl CpuQuota {
    /// A bound of this many CPUs' worth of time, set by the group of this directory.
    pub fn new(cpus: f64, group: impl Into<PathBuf>) -> Self {
        Self { cpus, group: group.into() }
    }

    /// Whole CPUs, rounded down, at least 1. With more threads than that the kernel throttles all threads of
    /// the group at once.
    pub fn whole_cpus(&self) -> usize {
        (self.cpus as usize).max(1)
    }
}

/// The CPU quota of the calling process (`cpu.max` of version 2, `cpu.cfs_quota_us` of version 1); None
/// without one.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) when /proc cannot be read. A group that a container hides counts
/// as unlimited.
pub fn cpu_quota() -> Result<Option<CpuQuota>> {
    let mut tightest: Option<CpuQuota> = None;
    for group in dirs("cpu")? {
        if let Some(cpus) = quota_in(&group)
            && tightest.as_ref().is_none_or(|t| cpus < t.cpus)
        {
            tightest = Some(CpuQuota { cpus, group });
        }
    }
    Ok(tightest)
}

/// The limit that one directory sets, in CPUs.
fn quota_in(dir: &Path) -> Option<f64> {
    let file = |name: &str| {
        read_if_there(&dir.join(name)).unwrap_or_else(|e| {
            tracing::debug!(error = %e, "the CPU quota of a control group cannot be read");
            None
        })
    };
    match file("cpu.max") {
        Some(text) => quota_of(&text),
        None => quota_of(&format!("{} {}", file("cpu.cfs_quota_us")?.trim(), file("cpu.cfs_period_us")?)),
    }
}

/// `150000 100000` is 1.5 CPUs; `max 100000` and `-1 100000` are no limit.
fn quota_of(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let quota: u64 = words.next()?.parse().ok()?;
    let period: u64 = words.next()?.parse().ok()?;
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

/// The directories of our group for a controller, and of all groups above it.
pub(crate) fn dirs(controller: &str) -> Result<Vec<PathBuf>> {
    let (Some(groups), Some(mounts)) =
        (read_if_there(Path::new("/proc/self/cgroup"))?, read_if_there(Path::new("/proc/self/mountinfo"))?)
    else {
        return Ok(Vec::new());
    };
    Ok(groups.lines().flat_map(|group| dirs_of(group, &mounts, controller)).collect())
}

/// `group` is a line of /proc/self/cgroup: `0::/path` of version 2, or `4:memory:/path` of version 1.
fn dirs_of(group: &str, mounts: &str, controller: &str) -> Vec<PathBuf> {
    let mut parts = group.splitn(3, ':');
    let (Some(number), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
        return Vec::new();
    };
    let unified = number == "0" && controllers.is_empty();
    if !unified && !controllers.split(',').any(|c| c == controller) {
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
            kind == "cgroup"
                && right.nth(1).is_some_and(|options| options.split(',').any(|o| o == controller))
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

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
24 1 0:22 / /proc rw - proc proc rw
30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
31 23 0:27 /docker/abc /old/memory rw - cgroup cgroup rw,memory
32 23 0:28 / /old/cpu rw - cgroup cgroup rw,cpu
";

    fn dirs(group: &str, controller: &str) -> Vec<String> {
        dirs_of(group, MOUNTS, controller).iter().map(|dir| dir.display().to_string()).collect()
    }

    #[test]
    fn our_group_and_all_above_it_are_found() {
        assert_eq!(
            dirs("0::/system.slice/annulus.service", "memory"),
            ["/sys/fs/cgroup/system.slice/annulus.service", "/sys/fs/cgroup/system.slice", "/sys/fs/cgroup"]
        );
        assert_eq!(dirs("0::/", "cpu"), ["/sys/fs/cgroup/"]);
        assert_eq!(dirs("4:memory:/docker/abc/inner", "memory"), ["/old/memory/inner", "/old/memory"]);
        assert_eq!(dirs("3:cpu:/a", "cpu"), ["/old/cpu/a", "/old/cpu"]);
    }

    #[test]
    fn other_controllers_and_nonsense_give_none() {
        for group in ["3:cpu:/a", "4:memory:/elsewhere", "", "0:", "x"] {
            assert!(dirs(group, "memory").is_empty(), "{group}");
        }
    }

    #[test]
    fn quotas_are_read_in_both_forms() {
        assert_eq!(quota_of("150000 100000\n"), Some(1.5));
        assert_eq!(quota_of("50000 100000"), Some(0.5));
        for unlimited in ["max 100000", "-1 100000", "", "0 0", "100000"] {
            assert_eq!(quota_of(unlimited), None, "{unlimited}");
        }
        let quota = |cpus| CpuQuota { cpus, group: PathBuf::new() }.whole_cpus();
        assert_eq!((quota(0.5), quota(1.9), quota(8.0)), (1, 1, 8));
    }

    #[test]
    fn this_machine_answers() {
        cpu_quota().unwrap();
    }
}
