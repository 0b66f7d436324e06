//! The settings of a runtime.

use std::future::Future;
use std::time::Duration;

use super::forecast::Forecast;
use super::locked;
use crate::buf::ring::BufRing;
use crate::core::options::Options;
use crate::core::placement::PlacementPolicy;
use crate::core::sharded::{ShardMakers, Sharded};
use crate::numa::CpuId;
use crate::numa::plan::{Circumstances, CorePlan, CoreSelection};
use crate::numa::region::Backing;
use crate::numa::topology::Topology;
use crate::ring::RingOptions;
use crate::ring::probe::probe;
use crate::{Error, ErrorKind, Result};

/// The default entries of a core's submission queue.
const RING_ENTRIES: u32 = 4096;
/// The default node-local memory of a core, in bytes: half for receiving, half as
/// [`Block`](crate::buf::Block)s. Most cores never come to need more.
const POOL_BYTES: usize = 4 << 20;
/// What it may grow to by default, in bytes.
const POOL_LIMIT: usize = 64 << 20;
/// The default limit of a node's threads for blocking work.
const BLOCKING_THREADS: usize = 64;
/// A larger slack would be a mistake in the unit.
const MAX_TIMER_SLACK: Duration = Duration::from_secs(10);
/// The default time for which a dropped stream's zero-copy sends may keep their blocks while the peer takes
/// nothing.
const ZERO_COPY_PATIENCE: Duration = Duration::from_secs(10);
/// The least that a pool can work with, in bytes.
const MIN_POOL_BYTES: usize = 256 << 10;

/// Settings of a runtime. [`Runtime::builder`] makes them.
#[derive(Debug, Clone)]
pub struct Builder {
    pub(super) cores: CoreSelection,
    pub(super) most_cores: Option<usize>,
    pub(super) pool_bytes: Option<usize>,
    pub(super) pool_limit: Option<usize>,
    pub(super) ring_entries: u32,
    pub(super) cq_entries: Option<u32>,
    pub(super) cores_of_user: usize,
    pub(super) name: String,
    pub(super) placement: PlacementPolicy,
    pub(super) pages: Backing,
    pub(super) nic: Option<String>,
    pub(super) options: Options,
    pub(super) blocking_threads: usize,
    pub(super) timer_slack: Option<Duration>,
    pub(super) zero_copy_patience: Duration,
}

impl Builder {
    /// Which CPUs run a core: all that the process may use (no more than the CPU quota of its control groups
    /// allows), or a list. All by default.
    pub fn cores(mut self, cores: CoreSelection) -> Self {
        self.cores = cores;
        self
    }

    /// Runs no more cores than this. They are the first of the plan; in a plan of [all](CoreSelection::All)
    /// those are the ones that have a physical core for themselves, with the interface's node first. There is
    /// no limit by default.
    pub fn most_cores(mut self, most: usize) -> Self {
        self.most_cores = Some(most);
        self
    }

    /// The node-local memory that each core begins with, in bytes, at least 256 KiB. 4 MiB by default.
    pub fn pool_bytes(mut self, bytes: usize) -> Self {
        self.pool_bytes = Some(bytes);
        self
    }

    /// Bytes to which each core's pool may grow, at least [`pool_bytes`](Self::pool_bytes). By default four
    /// times as many, or 64 MiB if that is left at its default too.
    ///
    /// A pool grows by a quarter of what it began with (64 KiB to 16 MiB) each time that receives find no
    /// buffer or tasks find no [`Block`](crate::buf::Block). The memory comes from the core's node and is no
    /// more than the node has free. At the limit receives and tasks wait. The added memory is in the
    /// [report](super::Report) and stays until the end. It is not registered with the ring, so zero-copy
    /// sends from such blocks pin their pages each time.
    pub fn pool_limit(mut self, bytes: usize) -> Self {
        self.pool_limit = Some(bytes);
        self
    }

    /// Entries of each core's submission queue, 8 to 32,768, rounded up to a power of two. The completion
    /// queue has four times as many. 4,096 by default. Where the memory that may be locked (`RLIMIT_MEMLOCK`;
    /// Linux 6.14) is too little for the rings of all cores they have fewer entries, down to 64, and the
    /// [report](super::Report) says so.
    pub fn ring_entries(mut self, entries: u32) -> Self {
        self.ring_entries = entries;
        self
    }

    /// How many cores share what the kernel lets all processes of this user have together: memory that is
    /// locked (`RLIMIT_MEMLOCK`) and pipes (`fs.pipe-user-pages-soft`). They are the cores of this runtime
    /// and of others that start at the same time. The rings of all of them are planned to fit, blocks are
    /// registered where those of all fit too, and each core has its share of pipes. The default is the number
    /// of this runtime's cores; fewer are raised to that.
    pub fn cores_of_user(mut self, cores: usize) -> Self {
        self.cores_of_user = cores;
        self
    }

    /// Entries of each core's completion queue, at least as many as the submission queue has. For tests: a
    /// queue that is too small costs time, never a completion.
    #[doc(hidden)]
    pub fn cq_entries(mut self, entries: u32) -> Self {
        self.cq_entries = Some(entries);
        self
    }

    /// The name of the threads: `NAME-CPU`, of which the kernel shows 15 bytes. `annulus` by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The network interface that clients come in by, such as `eth0`. CPUs of its node come first in the
    /// plan.
    pub fn nic(mut self, name: impl Into<String>) -> Self {
        self.nic = Some(name.into());
        self
    }

    /// The page size that pools are backed with. The report has what a node really gave. [`Backing::System`]
    /// by default.
    pub fn pages(mut self, pages: Backing) -> Self {
        self.pages = pages;
        self
    }

    /// What to do when a core's memory cannot lie where it should. [`PlacementPolicy::Prefer`] by default.
    pub fn placement(mut self, policy: PlacementPolicy) -> Self {
        self.placement = policy;
        self
    }

    /// How many threads of a node may run [blocking work](crate::spawn_blocking) at a time, at least one. 64
    /// by default. They are started when they are needed.
    pub fn blocking_threads(mut self, most: usize) -> Self {
        self.blocking_threads = most;
        self
    }

    /// How late a timer may fire so that timers share wakes, up to ten seconds. Where several timers are due
    /// within the slack of one, an idle core wakes once, at the last of them. No timer is early, and a core
    /// that is awake fires each on time. Where thousands of short sleeps are under way, one millisecond saves
    /// nearly all wakes (11-21 us of CPU each in a virtual machine). Zero wakes the core for each timer. A
    /// timer that is less than half of a wake's time away is waited for without sleeping.
    ///
    /// By default timers share wakes within 50 us, as Linux has it for threads (`PR_SET_TIMERSLACK`,
    /// `prctl(2)`), but only while they are on average no later than a wake takes: an idle core asks for its
    /// wakes ahead of time by about what they are late, and that is what sharing may cost.
    pub fn timer_slack(mut self, slack: Duration) -> Self {
        self.timer_slack = Some(slack);
        self
    }

    /// How long the blocks of [`send_zc`](crate::net::TcpStream::send_zc) may stay with the network after
    /// their stream was dropped, if the peer takes less than 16 KiB in that time. After that the connection
    /// is reset. 10 seconds by default.
    pub fn zero_copy_patience(mut self, patience: Duration) -> Self {
        self.zero_copy_patience = patience;
        self
    }

    pub(super) fn limit(&self) -> usize {
        self.pool_limit.unwrap_or_else(|| self.pool_bytes.map_or(POOL_LIMIT, |bytes| bytes.saturating_mul(4)))
    }

    /// What a core's pool begins with.
    pub(super) fn pool(&self) -> usize {
        self.pool_bytes.unwrap_or(POOL_BYTES)
    }

    /// The ring of one of this many cores, as large as the memory for all of them allows.
    pub(super) fn ring(&self, poller: Option<CpuId>, cores: usize) -> RingOptions {
        let usual = RingOptions::for_entries(self.ring_entries);
        let asked = RingOptions {
            cq_entries: self.cq_entries.unwrap_or(usual.cq_entries),
            poller: self.options.poller(poller),
            busy_poll: self.options.busy_poll(),
            min_wait: self.options.min_wait(),
            buffers: BufRing::slots_within(self.limit()),
            sealed: self.options.seal_rings,
            ..usual
        };
        locked::planned(asked, cores.max(self.cores_of_user), locked::limit())
    }

    /// Whether one of this many cores with this ring may register its blocks.
    pub(super) fn may_register(&self, ring: RingOptions, cores: usize) -> bool {
        locked::leaves_enough(ring, self.pool(), cores, self.cores_of_user, locked::limit())
    }

    /// Reads the machine's topology and plans the cores. It starts nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] for a CPU that does not exist or is not allowed, and for sizes out of range;
    /// [`ErrorKind::Platform`] when the topology cannot be read.
    pub fn build(self) -> Result<Runtime> {
        if self.pool() < MIN_POOL_BYTES {
            let what = format!(
                "a core's pool of {} bytes is too small; give at least {MIN_POOL_BYTES}",
                self.pool()
            );
            return Err(Error::new(ErrorKind::Input, what));
        }
        if let Some(limit) = self.pool_limit.filter(|&limit| limit < self.pool()) {
            let what =
                format!("a pool of {} bytes cannot have a limit of {limit}; raise the limit", self.pool());
            return Err(Error::new(ErrorKind::Input, what));
        }
        if !(8..=32_768).contains(&self.ring_entries) {
            let what = format!("a ring of {} entries cannot be; choose 8 to 32768", self.ring_entries);
            return Err(Error::new(ErrorKind::Input, what));
        }
        if self.blocking_threads == 0 {
            return Err(Error::new(
                ErrorKind::Input,
                "blocking work needs a thread; allow at least one for a node",
            ));
        }
        if let Some(slack) = self.timer_slack.filter(|slack| *slack > MAX_TIMER_SLACK) {
            let what = format!("timers cannot be {slack:?} late; allow ten seconds at most");
            return Err(Error::new(ErrorKind::Input, what));
        }
        if self.most_cores == Some(0) {
            return Err(Error::new(ErrorKind::Input, "a runtime of no core cannot be; allow at least one"));
        }
        let topology = Topology::discover()?;
        let circumstances = Circumstances::of_this_process(self.nic.as_deref())?;
        let mut plan = CorePlan::under(&topology, &self.cores, &circumstances)?;
        if let Some(most) = self.most_cores {
            plan.truncate(most);
        }
        for reason in plan.reasons() {
            tracing::warn!("core plan: {reason}");
        }
        let pollers = self.options.poller_cpus(plan.cores(), &topology)?;
        Ok(Runtime { settings: self, plan, topology, pollers, shards: ShardMakers::default() })
    }
}

/// A runtime that has been planned and not started yet.
///
/// ```no_run
/// use annulus::{Runtime, net::TcpListener};
///
/// fn main() -> annulus::Result<()> {
///     Runtime::builder().cores("0-3".parse()?).build()?.run(|| async {
///         let listener = TcpListener::bind("127.0.0.1:7000")?;
///         loop {
///             let stream = listener.accept().await?;
///             annulus::spawn(async move {
///                 while let Some(chunk) = stream.recv().await? {
///                     stream.send_all(chunk).await?;
///                 }
///                 annulus::Ok(())
///             })
///             .detach();
///         }
///     })
/// }
/// ```
#[derive(Debug)]
pub struct Runtime {
    pub(super) settings: Builder,
    pub(super) plan: CorePlan,
    pub(super) topology: Topology,
    /// The CPU of each core's submission poller; empty without them.
    pub(super) pollers: Vec<CpuId>,
    /// Makes values on each core before any root future begins.
    pub(super) shards: ShardMakers,
}

impl Runtime {
    /// The default settings.
    pub fn builder() -> Builder {
        Builder {
            cores: CoreSelection::All,
            most_cores: None,
            pool_bytes: None,
            pool_limit: None,
            ring_entries: RING_ENTRIES,
            cq_entries: None,
            cores_of_user: 0,
            name: "annulus".to_owned(),
            placement: PlacementPolicy::default(),
            pages: Backing::default(),
            nic: None,
            options: Options::default(),
            blocking_threads: BLOCKING_THREADS,
            timer_slack: None,
            zero_copy_patience: ZERO_COPY_PATIENCE,
        }
    }

    /// Makes a value for each core before the first root future begins: every core calls `make` while it
    /// comes up, and none goes on before all have. [`Sharded::new`] makes one on cores that run.
    ///
    /// Until the cores come up the handle has no values. `make` runs on its core, where it may spawn tasks
    /// and take blocks; it cannot wait, because the core's loop does not run yet.
    ///
    /// ```
    /// use std::cell::Cell;
    ///
    /// # fn main() -> annulus::Result<()> {
    /// let mut runtime = annulus::Runtime::builder().pool_bytes(1 << 20).build()?;
    /// let hits = runtime.sharded(|| annulus::Ok(Cell::new(0)));
    /// let total = runtime.block_on(async move || {
    ///     hits.invoke_on_all(async |hits| hits.set(hits.get() + 1)).await?;
    ///     hits.map_reduce(async |hits| hits.get(), 0, |sum, hits| sum + hits).await
    /// })??;
    /// assert!(total >= 1);
    /// # annulus::Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// None here. The error that `make` returns is the error of the start; a panic of `make` is one of kind
    /// [`ErrorKind::Panicked`].
    pub fn sharded<T: 'static>(
        &mut self,
        make: impl Fn() -> Result<T> + Send + Sync + 'static,
    ) -> Sharded<T> {
        self.shards.add(make)
    }

    /// The machine as this process may use it.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The cores that will run.
    pub fn plan(&self) -> &CorePlan {
        &self.plan
    }

    /// What the runtime would have if it started now: the planned cores, and the features of a ring that is
    /// made like theirs and given back. After the start [`Running::report`](crate::Running::report) has what
    /// is in force, and where memory lies.
    ///
    /// # Errors
    /// [`ErrorKind::Platform`] when no ring can be made, with cause and remedy. Linux 6.1 is needed.
    /// `io_uring_setup(2)`.
    pub fn report(&self) -> Result<Forecast> {
        Ok(Forecast {
            cores: self.plan.cores().to_vec(),
            reasons: self.plan.reasons().to_vec(),
            pollers: self.pollers.clone(),
            ring: probe(self.settings.ring(self.pollers.first().copied(), self.plan.cores().len()))?,
            refused_calls: crate::refused_calls(),
            pool_bytes: self.settings.pool(),
            pool_limit: self.settings.limit(),
            placement: self.settings.placement,
            options: self.settings.options.clone(),
        })
    }

    /// Runs `root` once on every core and waits until all have ended.
    ///
    /// A core ends when its root future does: tasks that are left are dropped, operations are cancelled, and
    /// all completions are awaited. The first error, or panic, of a root future ends all cores and is
    /// returned.
    ///
    /// # Errors
    /// What a root future returned; [`ErrorKind::Platform`] and others when the runtime could not start;
    /// [`ErrorKind::Panicked`] when a root future panicked. Linux 6.1 is needed.
    #[track_caller]
    pub fn run<F, Fut>(self, root: F) -> Result<()>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + 'static,
    {
        self.start(root)?.wait()
    }
}
