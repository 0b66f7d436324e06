//! Which cores to run on, and which node the memory of each comes from.

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::{
    CpuId, CpuSet, Error, NodeId, Result,
    cgroup::{self, CpuQuota},
    devices,
    topology::Topology,
};

/// Which cores a person asks for: all that the process may use, or a list.
///
/// ```
/// use annulus_numa::plan::CoreSelection;
/// assert_eq!("all".parse::<CoreSelection>()?, CoreSelection::All);
/// assert_eq!("0-3,8".parse::<CoreSelection>()?.to_string(), "0-3,8");
/// # Ok::<(), annulus_numa::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CoreSelection {
    /// Every CPU that the affinity mask and the cpuset allow.
    #[default]
    All,
    /// These CPUs.
    List(CpuSet),
}

impl FromStr for CoreSelection {
    type Err = Error;

    /// Reads `all`, or a list such as `0-3,8`.
    ///
    /// # Errors
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) for an empty list, and for a bad one; it names the bad
    /// piece.
    fn from_str(text: &str) -> Result<Self> {
        if text.trim() == "all" {
            return Ok(Self::All);
        }
        let list: CpuSet = text.parse()?;
        if list.is_empty() {
            return Err(Error::input(
                "the list of cores is empty; write `all`, or CPU numbers such as 0-3,8",
            ));
        }
        Ok(Self::List(list))
    }
}

impl fmt::Display for CoreSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::List(cpus) => cpus.fmt(f),
        }
    }
}

/// One core of the plan: a CPU, the node it belongs to, and the node its memory comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedCore {
    /// Its index in the plan, counted from 0.
    pub index: usize,
    /// The CPU that its thread is pinned to.
    pub cpu: CpuId,
    /// The CPU's home node.
    pub node: NodeId,
    /// The node its memory comes from: `node`, or the nearest with memory when `node` has none that the
    /// process may use.
    pub memory: NodeId,
    /// 0 for the first CPU of its physical core, 1 for its SMT sibling.
    pub smt_rank: u32,
}

/// One line, such as `core 2: CPU 4, node 2, memory from node 1, SMT sibling 1`.
impl fmt::Display for PlannedCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "core {}: CPU {}, node {}", self.index, self.cpu, self.node)?;
        if self.memory != self.node {
            write!(f, ", memory from node {}", self.memory)?;
        }
        if self.smt_rank > 0 {
            write!(f, ", SMT sibling {}", self.smt_rank)?;
        }
        Ok(())
    }
}

/// The cores to run on, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorePlan {
    cores: Vec<PlannedCore>,
    reasons: Vec<String>,
}

/// What a plan takes into account beside the topology.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Circumstances {
    /// The CPU time that the process may use: `all` takes no more cores than that.
    pub quota: Option<CpuQuota>,
    /// The node that receives the packets. Its CPUs come first among those that are equally good otherwise.
    pub near: Option<NodeId>,
}

impl Circumstances {
    /// The circumstances of this process: the quota of its control groups, and the node of the network
    /// interface called `nic`.
    ///
    /// # Errors
    /// - [`ErrorKind::Input`](crate::ErrorKind::Input) when there is no such interface; it names those that
    ///   exist.
    /// - [`ErrorKind::Io`](crate::ErrorKind::Io) when /proc or /sys cannot be read.
    pub fn of_this_process(nic: Option<&str>) -> Result<Self> {
        let near = nic.map(devices::nic).transpose()?.and_then(|nic| nic.node);
        Ok(Self { quota: cgroup::cpu_quota()?, near })
    }
}

impl CorePlan {
    /// Plans the selected cores. `All` puts physical cores before SMT siblings, so that the first N are N
    /// whole cores. Within that it goes node by node. A list keeps the order of the CPU numbers.
    ///
    /// # Errors
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) for a CPU that does not exist or that the process may
    /// not run on; it names the CPU.
    pub fn new(topology: &Topology, selection: &CoreSelection) -> Result<Self> {
        Self::under(topology, selection, &Circumstances::default())
    }

    /// Plans the selected cores under more circumstances. They do not change a list: a list is taken as it
    /// is.
    ///
    /// # Errors
    /// As [`CorePlan::new`].
    pub fn under(
        topology: &Topology,
        selection: &CoreSelection,
        circumstances: &Circumstances,
    ) -> Result<Self> {
        let mut reasons = Vec::new();
        let cpus = match selection {
            CoreSelection::All => {
                let near = circumstances.near;
                let mut cpus: Vec<_> = topology.cpus().iter().collect();
                cpus.sort_by_key(|c| (c.smt_rank, near.is_some_and(|near| c.node != near), c.node, c.id));
                if let Some(quota) = circumstances.quota.as_ref().filter(|q| q.whole_cpus() < cpus.len()) {
                    reasons.push(format!(
                        "{} of {} CPUs, because the group {} may use the time of {}; raise its cpu.max, or name CPUs, for more",
                        quota.whole_cpus(),
                        cpus.len(),
                        quota.group.display(),
                        quota.cpus
                    ));
                    cpus.truncate(quota.whole_cpus());
                }
                cpus
            }
            CoreSelection::List(list) if list.is_empty() => {
                return Err(Error::input("no core is selected; name at least one CPU, or `all`"));
            }
            CoreSelection::List(list) => list
                .iter()
                .map(|id| topology.cpu(id).ok_or_else(|| cannot_use(topology, id)))
                .collect::<Result<_>>()?,
        };
        let cores = cpus.into_iter().enumerate().map(|(index, cpu)| {
            let memory = topology.memory_node(cpu.node).ok_or_else(|| {
                Error::platform(format!(
                    "no node has memory for CPU {}; widen the cpuset.mems of the process's cgroup",
                    cpu.id
                ))
            })?;
            Ok(PlannedCore { index, cpu: cpu.id, node: cpu.node, memory, smt_rank: cpu.smt_rank })
        });
        Ok(Self { cores: cores.collect::<Result<_>>()?, reasons })
    }

    /// Keeps the first `most` cores. A plan of `All` has the best ones first.
    pub fn truncate(&mut self, most: usize) {
        self.cores.truncate(most);
    }

    /// Why there are fewer cores than usable CPUs, a line for each reason.
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// The cores in order; `cores()[i].index == i`.
    pub fn cores(&self) -> &[PlannedCore] {
        &self.cores
    }

    /// The cores by the node that their memory comes from, each node's in the plan's order.
    pub fn by_memory(&self) -> BTreeMap<NodeId, Vec<&PlannedCore>> {
        let mut nodes = BTreeMap::<_, Vec<_>>::new();
        for core in &self.cores {
            nodes.entry(core.memory).or_default().push(core);
        }
        nodes
    }
}

fn cannot_use(topology: &Topology, cpu: CpuId) -> Error {
    let allowed: CpuSet = topology.cpus().iter().map(|c| c.id).collect();
    if topology.online().contains(cpu) {
        Error::input(format!(
            "CPU {cpu} is not allowed: the affinity mask (taskset, numactl) or the cgroup's cpuset leaves this process CPUs {allowed}; choose among them or widen the mask"
        ))
    } else {
        Error::input(format!("CPU {cpu} does not exist or is offline; choose among CPUs {allowed}"))
    }
}
