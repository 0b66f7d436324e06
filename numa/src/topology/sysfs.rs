//! What only sysfs and procfs say: the node of each CPU, nodes without memory, free memory, the nodes that
//! the cpuset allows.
//!
//! Formats: Documentation/ABI/stable/sysfs-devices-node and sysfs-devices-system-cpu of the kernel, proc(5).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{CpuId, CpuSet, Error, NodeId, NodeSet, Result};

const REMEDY: &str = "is /proc and /sys mounted and readable?";

/// A node directory of sysfs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SysNode {
    pub(crate) cpus: CpuSet,
    pub(crate) memory_total: u64,
    pub(crate) memory_free: u64,
    /// Its distances, in the order of the online nodes.
    pub(crate) distances: Vec<u32>,
}

/// Reads files below a root, which is `/sys` or a copy of it.
#[derive(Debug)]
pub(crate) struct Sysfs(pub(super) PathBuf);

impl Sysfs {
    pub(crate) fn at(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// All online nodes; None when the kernel knows no NUMA.
    pub(crate) fn nodes(&self) -> Result<Option<BTreeMap<NodeId, SysNode>>> {
        let dir = self.0.join("devices/system/node");
        let Some(online) = read_if_there(&dir.join("online"))? else { return Ok(None) };
        let mut nodes = BTreeMap::new();
        for id in online.parse::<NodeSet>()?.iter() {
            let dir = dir.join(format!("node{id}"));
            let meminfo = read(&dir.join("meminfo"))?;
            let distance = read_if_there(&dir.join("distance"))?.unwrap_or_default();
            nodes.insert(
                id,
                SysNode {
                    cpus: read(&dir.join("cpulist"))?.parse()?,
                    memory_total: meminfo_bytes(&meminfo, "MemTotal").unwrap_or(0),
                    memory_free: meminfo_bytes(&meminfo, "MemFree").unwrap_or(0),
                    distances: distance.split_whitespace().map_while(|n| n.parse().ok()).collect(),
                },
            );
        }
        Ok(Some(nodes))
    }

    /// The nodes that have memory; None when the kernel knows no NUMA.
    pub(crate) fn nodes_with_memory(&self) -> Result<Option<NodeSet>> {
        let list = read_if_there(&self.0.join("devices/system/node/has_memory"))?;
        list.map(|list| list.parse()).transpose()
    }

    /// The online CPUs; None where sysfs does not say.
    pub(crate) fn online_cpus(&self) -> Result<Option<CpuSet>> {
        read_if_there(&self.0.join("devices/system/cpu/online"))?.map(|list| list.parse()).transpose()
    }
}

/// The bytes after a name in a meminfo file: `MemTotal: 123 kB`, or `Node 0 MemTotal: 123 kB`.
pub(crate) fn meminfo_bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.split_once(name)?.1.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// /proc/meminfo.
pub(crate) fn meminfo() -> Result<String> {
    read(Path::new("/proc/meminfo"))
}

/// The nodes that the cpuset of the calling thread allows; None when the kernel does not say.
pub(crate) fn allowed_memory_nodes() -> Result<Option<NodeSet>> {
    let status = read(Path::new("/proc/thread-self/status"))?;
    let list = status.lines().find_map(|line| line.strip_prefix("Mems_allowed_list:"));
    list.map(str::parse).transpose()
}

pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| Error::io(format_args!("cannot read {}", path.display()), e, REMEDY))
}

/// The text of a file; None when there is no such file.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(format_args!("cannot read {}", path.display()), e, REMEDY)),
    }
}

/// The node of each CPU, from the nodes' own CPU lists: the same fact as the link `cpuN/nodeM`, in fewer
/// reads.
pub(crate) fn home_nodes(nodes: &BTreeMap<NodeId, SysNode>) -> BTreeMap<CpuId, NodeId> {
    nodes.iter().flat_map(|(&id, node)| node.cpus.iter().map(move |cpu| (cpu, id))).collect()
}
