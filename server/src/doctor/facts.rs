//! The facts that the checks read.

use std::path::PathBuf;

use annulus::RingProbe;
use annulus::numa::cgroup::CpuQuota;
use annulus::numa::devices::{self, Disk, Nic};
use annulus::numa::plan::{Circumstances, CorePlan, CoreSelection, PlannedCore};
use annulus::numa::probe::{self, PolicyCalls};
use annulus::numa::thread::{self, InheritedPolicy};
use annulus::numa::topology::Topology;
use rustix::process::{Resource, getrlimit};

use crate::exit::Failure;

/// Entries of the ring that is tried: those of a core.
const RING_ENTRIES: u32 = 4096;

/// Text files below a root: `/`, or a fixture.
#[derive(Debug)]
pub(super) struct Files(pub(super) PathBuf);

impl Files {
    /// The text of a file without the white space around it. None when it is not there or may not be read: a
    /// check then says that it cannot tell.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.0.join(path.trim_start_matches('/'))).ok()?;
        Some(text.trim().to_owned())
    }

    /// A file that holds one number.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.parse().ok()
    }
}

/// A soft and a hard limit; None is unlimited.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limit {
    pub(super) soft: Option<u64>,
    pub(super) hard: Option<u64>,
}

impl Limit {
    fn of(resource: Resource) -> Self {
        let limit = getrlimit(resource);
        Self { soft: limit.current, hard: limit.maximum }
    }
}

/// A machine and what this process may do on it.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) files: Files,
    pub(super) topology: Topology,
    pub(super) cores: Vec<PlannedCore>,
    pub(super) ring: annulus::Result<RingProbe>,
    /// System calls that a filter refuses.
    pub(super) refused_calls: Vec<&'static str>,
    pub(super) policy_calls: PolicyCalls,
    pub(super) inherited: InheritedPolicy,
    pub(super) quota: Option<CpuQuota>,
    pub(super) nics: Vec<Nic>,
    pub(super) disks: Vec<Disk>,
    pub(super) open_files: Limit,
    pub(super) locked_memory: Limit,
}

impl Facts {
    pub(super) fn gather(selection: &CoreSelection) -> Result<Self, Failure> {
        let topology = Topology::discover()?;
        let circumstances = Circumstances::of_this_process(None)?;
        let cores = CorePlan::under(&topology, selection, &circumstances)?.cores().to_vec();
        Ok(Self {
            files: Files("/".into()),
            topology,
            cores,
            ring: annulus::probe_ring(RING_ENTRIES),
            refused_calls: annulus::refused_calls(),
            policy_calls: probe::policy_calls()?,
            inherited: thread::inherited_policy(),
            quota: circumstances.quota,
            nics: devices::nics()?,
            disks: devices::disks()?,
            open_files: Limit::of(Resource::Nofile),
            locked_memory: Limit::of(Resource::Memlock),
        })
    }

    /// Whether there is memory that is farther away than other memory.
    pub(super) fn has_remote_memory(&self) -> bool {
        self.topology.memory_nodes().len() > 1
    }

    /// Whether this process has a capability, by its bit in capabilities(7).
    pub(super) fn has_capability(&self, bit: u32) -> bool {
        let status = self.files.read("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .is_some_and(|mask| mask >> bit & 1 == 1)
    }
}

/// Bytes as a person reads them: whole MiB or GiB.
pub(super) fn mebibytes(bytes: u64) -> String {
    if bytes >= 10 << 30 { format!("{} GiB", bytes >> 30) } else { format!("{} MiB", bytes >> 20) }
}

#[cfg(test)]
pub(super) mod fixture {
    use annulus::numa::topology::{CpuFacts, Description, NodeFacts};
    use annulus::numa::{CpuId, NodeId};
    use annulus::{Error, ErrorKind};

    use super::*;

    /// A machine of our own: `nodes` nodes of two CPUs and 1 GiB each, files in a directory that goes away
    /// with it.
    pub(in super::super) struct Machine {
        pub(in super::super) facts: Facts,
    }

    impl Machine {
        pub(in super::super) fn new(name: &str, nodes: u32) -> Self {
            let root = std::env::temp_dir().join(format!("annulus-doctor-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&root).unwrap();
            let all = Description {
                numa: true,
                cpus: (0..nodes * 2)
                    .map(|i| CpuFacts {
                        id: CpuId(i),
                        node: NodeId(i / 2),
                        package: i / 2,
                        core: i,
                        cache: None,
                    })
                    .collect(),
                nodes: (0..nodes)
                    .map(|i| NodeFacts {
                        id: NodeId(i),
                        memory_total: 1 << 30,
                        memory_free: 1 << 29,
                        distances: vec![],
                    })
                    .collect(),
                allowed_cpus: (0..nodes * 2).map(CpuId).collect(),
                allowed_memory: (0..nodes).map(NodeId).collect(),
            };
            let topology = Topology::new(all).unwrap();
            let cores = CorePlan::new(&topology, &CoreSelection::All).unwrap().cores().to_vec();
            let facts = Facts {
                files: Files(root),
                topology,
                cores,
                ring: Err(Error::new(ErrorKind::Platform, "no ring in a fixture; use a machine")),
                refused_calls: Vec::new(),
                policy_calls: PolicyCalls::default(),
                inherited: InheritedPolicy::Default,
                quota: None,
                nics: Vec::new(),
                disks: Vec::new(),
                open_files: Limit::default(),
                locked_memory: Limit::default(),
            };
            Self { facts }
        }

        pub(in super::super) fn file(self, path: &str, text: &str) -> Self {
            let path = self.facts.files.0.join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
            self
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.facts.files.0).unwrap();
        }
    }
}
