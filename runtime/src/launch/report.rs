//! What is in force on each core, and where its memory really lies.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::buf::Grown;
use crate::core::options::Options;
use crate::core::shared::CoreShared;
use crate::numa::plan::PlannedCore;
use crate::numa::region::{Placement, Rung};
use crate::numa::thread::ThreadPlacement;
use crate::numa::verify::{PageMap, mapping_of, where_pages_lie};
use crate::numa::{CpuId, CpuSet, Error, NodeId};
use crate::ring::RingFeatures;
use crate::ring::workers::{KernelThread, NamedAfter};

/// What a core had in force when it came up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CoreReport {
    /// The core, as planned.
    pub core: PlannedCore,
    /// Its thread's number (gettid(2)).
    pub tid: i32,
    /// What its ring has.
    pub ring: RingFeatures,
    /// How its thread was placed.
    pub thread: Option<ThreadPlacement>,
    /// How its node's pool was placed.
    pub pool: Placement,
    /// Bytes of a buffer that a receive fills, and how many there were when it came up.
    pub recv_buffers: (usize, usize),
    /// Bytes of a [`Block`](crate::buf::Block), and how many there were when it came up.
    pub blocks: (usize, usize),
    /// The options that the runtime was started with.
    pub options: Options,
    /// Bytes to which its pool may grow.
    pub pool_limit: usize,
    /// The steps by which its pool has grown since.
    pub grown: Vec<Grown>,
    /// Why the last step that brought too little memory did so.
    pub not_grown: Option<String>,
    /// Whether `cachestat(2)` says what of a file is in memory (Linux 6.5). Without it one byte is asked for
    /// at a time.
    pub cachestat: bool,
    /// Which io-wq workers belong to it.
    pub(crate) workers_named_after: NamedAfter,
    /// Address ranges whose pages the report looks up.
    pub(crate) ranges: Vec<(&'static str, Range<usize>)>,
}

/// Where one stretch of a core's memory lies.
#[derive(Debug)]
#[non_exhaustive]
pub struct RegionReport {
    /// The core's index.
    pub core: usize,
    /// The name of the range: `pool` (the core's share of it), `grown pool` (a step by which it grew),
    /// `buffer ring`, `completion ring`, `submission ring`, `stack`, `tls`, `operations` (what the kernel
    /// sees of them), `heap` (tasks, timers, tables: all that the core allocates).
    pub name: &'static str,
    /// The node where it should lie.
    pub node: NodeId,
    /// Its length in bytes.
    pub len: usize,
    /// Its pages, counted per node; or why they cannot be inspected.
    pub pages: Result<PageMap, Error>,
}

impl RegionReport {
    /// Whether every page that is present is known to lie on the right node.
    pub fn is_home(&self) -> bool {
        self.pages.as_ref().is_ok_and(|pages| pages.off(self.node) == 0 && pages.unknown == 0)
    }
}

/// The whole runtime at one moment. `Display` prints a line for each core and each region.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// What each core has in force.
    pub cores: Vec<CoreReport>,
    /// Where each core's memory lies now.
    pub regions: Vec<RegionReport>,
    /// The io-wq workers that the kernel keeps for the cores just now.
    pub workers: Vec<WorkerReport>,
}

/// A kernel thread (`iou-wrk-TID`) for requests of a core's ring that would wait.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerReport {
    /// The index of the core that it works for.
    pub core: usize,
    /// The core's CPU, where it should run.
    pub cpu: CpuId,
    /// Its thread's number.
    pub tid: i32,
    /// The CPUs on which it may run.
    pub cpus: CpuSet,
}

impl WorkerReport {
    /// Whether it runs on its core's CPU and nowhere else.
    pub fn is_home(&self) -> bool {
        self.cpus == self.cpu.into()
    }
}

/// The name of the region that grows. Its extent is looked up again each time.
pub(super) const HEAP: &str = "heap";
/// The name of what a pool has grown by.
const GROWN: &str = "grown pool";
/// The name of a core's share of its node's pool.
pub(super) const POOL: &str = "pool";

impl Report {
    /// `members` are in the order of the plan.
    pub(super) fn inspect(cores: &[CoreReport], members: &[Arc<CoreShared>]) -> Self {
        let now = |core: &CoreReport| {
            let mut core = core.clone();
            if let Some(member) = members.get(core.core.index) {
                let record = member.grown();
                core.ranges.extend(record.steps.iter().map(|step| (GROWN, step.addresses.clone())));
                core.grown.clone_from(&record.steps);
                core.not_grown.clone_from(&record.short);
            }
            core
        };
        let cores: Vec<CoreReport> = cores.iter().map(now).collect();
        let regions = cores.iter().flat_map(|core| {
            core.ranges.iter().map(|(name, range)| {
                let grown = if *name == HEAP { mapping_of(range.start) } else { None };
                let range = grown.as_ref().unwrap_or(range);
                RegionReport {
                    core: core.core.index,
                    name,
                    node: core.core.memory,
                    len: range.len(),
                    pages: where_pages_lie(std::ptr::without_provenance(range.start), range.len()),
                }
            })
        });
        Self { regions: regions.collect(), workers: workers_of(&cores), cores }
    }

    /// Whether every region lies on its node and every io-wq worker runs on its core's CPU.
    pub fn is_home(&self) -> bool {
        self.strays().is_empty()
    }

    /// The names of what is not known to be there, such as `heap of core 1`.
    pub fn strays(&self) -> Vec<String> {
        let regions = self.regions.iter().filter(|region| !region.is_home());
        let workers = self.workers.iter().filter(|worker| !worker.is_home());
        let regions = regions.map(|region| format!("{} of core {}", region.name, region.core));
        regions
            .chain(workers.map(|worker| format!("io-wq worker {} of core {}", worker.tid, worker.core)))
            .collect()
    }

    /// Why a runtime that requires placement may not start. None when everything is where it should be, and
    /// as large as asked. `several`: there is more than one node, so pages must not only lie right but be
    /// kept there.
    pub(super) fn refusal(&self, pool_bytes: usize, several: bool) -> Option<String> {
        let strays = self.strays();
        if !strays.is_empty() {
            let what = strays.join(", ");
            return Some(format!(
                "not all is known to be where its core is ({what}); annulus doctor says what the system refuses, and with placement \
                 `prefer` it starts all the same"
            ));
        }
        let small = self.regions.iter().find(|region| region.name == POOL && region.len < pool_bytes);
        let small = small.and_then(|region| self.cores.iter().find(|core| core.core.index == region.core));
        let loose = self.cores.iter().find(|core| several && core.pool.rung != Rung::Bound);
        small.or(loose).map(|core| {
            let reason = core.pool.reason.as_deref().unwrap_or("it is smaller than asked");
            let remedy = core.pool.remedy.as_deref().unwrap_or("see annulus doctor");
            format!("the pool of node {} is not as it should be: {reason}; {remedy}", core.pool.node)
        })
    }
}

/// The io-wq workers of the cores, as /proc has them now. The kernel starts them for work and ends them when
/// they have been idle for five seconds.
fn workers_of(cores: &[CoreReport]) -> Vec<WorkerReport> {
    let threads = KernelThread::all();
    let mut workers: Vec<WorkerReport> = threads
        .iter()
        .filter_map(|thread| {
            let core = cores.iter().find(|core| thread.belongs_to(core.workers_named_after, &threads))?;
            let (index, cpu) = (core.core.index, core.core.cpu);
            Some(WorkerReport { core: index, cpu, tid: thread.tid, cpus: thread.cpus()? })
        })
        .collect();
    workers.sort_by_key(|worker| (worker.core, worker.tid));
    workers
}

impl fmt::Display for WorkerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "core {}: io-wq worker {} may run on CPUs {}", self.core, self.tid, self.cpus)?;
        if self.is_home() { Ok(()) } else { write!(f, ", and should run on CPU {} only", self.cpu) }
    }
}

impl fmt::Display for CoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (core, ring) = (&self.core, &self.ring);
        write!(
            f,
            "core {}: CPU {}, node {}, memory of node {}",
            core.index, core.cpu, core.node, core.memory
        )?;
        write!(f, "; ring of {} SQEs and {} CQEs", ring.sq_entries, ring.cq_entries)?;
        let flags = [
            ("SINGLE_ISSUER", true),
            ("DEFER_TASKRUN", ring.sqpoll.is_none()),
            ("NO_SQARRAY", ring.no_sqarray),
            ("registered descriptor", ring.registered_fd),
            ("NO_IOWAIT", ring.no_iowait),
            ("io-wq pinned", ring.iowq_pinned),
            ("sealed", ring.sealed),
            ("registered blocks", ring.fixed_buffers),
            ("zero-copy reports", ring.zc_report),
            ("cachestat", self.cachestat),
        ];
        for (name, _) in flags.iter().filter(|(_, on)| *on) {
            write!(f, ", {name}")?;
        }
        for (name, _) in flags.iter().filter(|(_, on)| !*on) {
            write!(f, ", no {name}")?;
        }
        write!(f, "; at most {}+{} io-wq workers", ring.iowq_max_workers[0], ring.iowq_max_workers[1])?;
        let ((recv_size, recv), (block_size, blocks)) = (self.recv_buffers, self.blocks);
        write!(f, "; {recv} receive buffers of {recv_size} bytes, {blocks} blocks of {block_size} bytes")?;
        if let Some(thread) = &self.thread {
            write!(f, "; stack born {}, memory {}", thread.birth, thread.life)?;
            if thread.inherited.is_overridden() {
                write!(f, ", which overrides the policy that the process came with ({})", thread.inherited)?;
            }
        }
        write!(f, "; pool {}", self.pool)?;
        for step in &self.grown {
            write!(f, "; {step}")?;
        }
        if let Some(short) = &self.not_grown {
            write!(f, "; did not grow as asked: {short}")?;
        }
        write!(f, "; may grow to {} bytes", self.pool_limit)?;
        if self.options != Options::default() {
            write!(f, "; options: {}", self.options)?;
        }
        if let Some(cpu) = ring.sqpoll {
            write!(f, "; submissions are polled from CPU {cpu}")?;
        }
        if ring.busy_poll {
            f.write_str("; waits poll network devices")?;
        }
        if ring.min_wait {
            f.write_str("; sleeps gather completions")?;
        }
        if ring.incremental_buffers {
            f.write_str("; receive buffers are used up incrementally")?;
        }
        if ring.bundles {
            f.write_str("; receives are bundled")?;
        }
        for lack in &ring.lacks {
            write!(f, "; without {lack}")?;
        }
        if self.workers_named_after == NamedAfter::Unknown {
            f.write_str("; which io-wq workers are its own cannot be told")?;
        }
        Ok(())
    }
}

impl fmt::Display for RegionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "core {}: {} of {} bytes belongs on node {}: ", self.core, self.name, self.len, self.node)?;
        match &self.pages {
            Ok(pages) => write!(f, "{pages}"),
            Err(e) => write!(f, "cannot be inspected: {e}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for core in &self.cores {
            writeln!(f, "{core}")?;
        }
        for region in &self.regions {
            writeln!(f, "{region}")?;
        }
        for worker in &self.workers {
            writeln!(f, "{worker}")?;
        }
        Ok(())
    }
}
