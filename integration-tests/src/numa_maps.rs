//! Where the pages of another process lie, after /proc/PID/numa_maps (numa(7)).

use std::collections::BTreeMap;

/// One mapping of a process.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// Its policy, as the kernel writes it: `default`, `bind:0`, `prefer:1`, ...
    pub policy: String,
    /// Pages on each node.
    pub pages: BTreeMap<usize, u64>,
    /// Bytes in a page of this mapping.
    pub page_bytes: u64,
}

impl Mapping {
    /// The one node that the mapping is bound to, if it is bound to exactly one.
    pub fn bound_to(&self) -> Option<usize> {
        self.policy.strip_prefix("bind:").and_then(|node| node.parse().ok())
    }

    /// Bytes of this mapping that lie on `node`.
    pub fn bytes_on(&self, node: usize) -> u64 {
        self.pages.get(&node).copied().unwrap_or(0) * self.page_bytes
    }

    /// Pages of this mapping that lie elsewhere than on `node`.
    pub fn pages_off(&self, node: usize) -> u64 {
        self.pages.iter().filter(|&(&other, _)| other != node).map(|(_, pages)| pages).sum()
    }
}

/// All mappings of a process. `None` where the kernel has no NUMA support compiled in.
#[track_caller]
pub fn of(pid: u32) -> Option<Vec<Mapping>> {
    let path = format!("/proc/{pid}/numa_maps");
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text.lines().filter_map(mapping).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => panic!("reading {path}: {e}"),
    }
}

fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.split_whitespace().skip(1);
    let policy = fields.next()?.to_owned();
    let mut found = Mapping { policy, pages: BTreeMap::new(), page_bytes: 4096 };
    for field in fields {
        let Some((key, value)) = field.split_once('=') else { continue };
        if let Some(node) = key.strip_prefix('N').and_then(|node| node.parse().ok()) {
            found.pages.insert(node, value.parse().ok()?);
        } else if key == "kernelpagesize_kB" {
            found.page_bytes = value.parse::<u64>().ok()? * 1024;
        }
    }
    Some(found)
}
