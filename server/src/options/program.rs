//! What holds for the program as a whole.

use std::time::Duration;

use annulus::numa::CpuSet;
use annulus::numa::plan::CoreSelection;
use annulus::numa::region::Backing;
use annulus::transfer::Road;
use annulus::{Builder, PlacementPolicy, Runtime};
use clap::{ArgAction, Args};

use super::processes::Processes;
use super::values::size;
use crate::admin::options::AdminArgs;
use crate::confine::options::ConfineArgs;
use crate::log::options::LogArgs;

/// What holds for all listeners together. Everyday flags come first; those of cores and memory, and those
/// of rings, have a heading each.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Program")]
pub(crate) struct ProgramArgs {
    /// How long connections may go on when nothing new is accepted any more, after SIGINT or SIGTERM, in
    /// seconds
    #[arg(long, value_name = "SECS", default_value_t = 3)]
    pub(crate) grace: u64,

    /// How long new clients are still served after SIGINT or SIGTERM, in seconds, while /readyz says that
    /// none are to be sent
    #[arg(long, value_name = "SECS", default_value_t = 0)]
    pub(crate) drain_wait: u64,

    /// How long connections of this program may go on when another one has taken its place (annulus upgrade),
    /// in seconds [default: until they end]
    #[arg(long, value_name = "SECS")]
    pub(crate) upgrade_grace: Option<u64>,

    #[command(flatten)]
    pub(crate) log: LogArgs,

    #[command(flatten)]
    pub(crate) admin: AdminArgs,

    /// Log, with a warning, each step of a task that keeps its core for this many milliseconds, and where the
    /// task was started
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) stall: Option<u64>,

    /// Log, with a warning, each request and each relayed connection that took so many milliseconds or more,
    /// and where its time went: docs/logs.md has the names. A connection's idle time does not count
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) slow: Option<u64>,

    /// Print each core's counters on stderr at the end
    #[arg(long)]
    pub(crate) stats: bool,

    #[command(flatten)]
    pub(crate) rights: ConfineArgs,

    #[command(flatten)]
    pub(crate) cores: CoreArgs,

    #[command(flatten)]
    pub(crate) ring: RingArgs,
}

/// How much the log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub(crate) struct Verbosity {
    /// Say more in the log: -v info, -vv debug, -vvv trace
    #[arg(short, long, global = true, action = ArgAction::Count, display_order = 100)]
    pub(crate) verbose: u8,
}

/// Where threads and memory go.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cores and nodes")]
pub(crate) struct CoreArgs {
    /// Which CPUs to run on, one pinned thread each: "all" that the process may use, or a list such as 0-3,8
    #[arg(long, value_name = "LIST", default_value = "all")]
    pub(crate) cores: CoreSelection,

    /// The network interface that clients come in by, such as eth0: CPUs of its node come first
    #[arg(long, value_name = "NAME")]
    pub(crate) nic: Option<String>,

    /// When memory cannot lie on its core's node: "require" refuses to start, "prefer" places what it can
    /// and reports the rest, "off" places nothing
    #[arg(long, value_name = "require|prefer|off", default_value_t)]
    pub(crate) placement: PlacementPolicy,

    /// Pages of pools: "system" as for all programs, "4k", "thp" transparent huge pages, "hugetlb" reserved
    /// ones, "auto" reserved ones where the node has enough free and else transparent ones
    #[arg(long, value_name = "system|4k|thp|hugetlb|auto", default_value_t)]
    pub(crate) pages: Backing,

    /// Memory of each core's pool to begin with, such as 16M
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = size)]
    pub(crate) pool: usize,

    /// What each core's pool may grow to when it runs out of receive buffers or blocks, such as 64M
    /// [default: four times --pool]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) pool_limit: Option<usize>,

    /// Which core a connection comes to: "hash" spreads them, "cpu" takes the core of the CPU that its
    /// packets arrive on, where there is one (Linux 6.2; for machines whose packets arrive on all CPUs)
    #[arg(long, value_name = "hash|cpu", default_value = "hash", hide_possible_values = true)]
    pub(crate) steer: Steer,

    /// How many processes serve: "one" for all cores, or one for each NUMA "node", so that the program's
    /// own constants, variables, heap and page tables lie there too; "auto" is "node" where the cores take
    /// memory from several nodes
    #[arg(long, value_name = "auto|one|node", default_value = "auto", hide_possible_values = true)]
    pub(crate) processes: Processes,
}

/// How rings work.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Rings")]
pub(crate) struct RingArgs {
    /// Submission entries of each core's ring, 8 to 32768, rounded up to a power of two; fewer take less
    /// locked memory [default: 4096, or fewer where so many cannot be had]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(8..=32_768))]
    pub(crate) entries: Option<u32>,

    /// How bulk moves: "ring" by splice requests in the ring, "inline" by splice calls from the core
    #[arg(long, value_name = "ring|inline", default_value_t)]
    pub(crate) road: Road,

    /// Look about for work for at most this many microseconds before a core sleeps: less latency for CPU time
    #[arg(long, value_name = "US", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) spin: Option<u64>,

    /// Let kernel threads on CPUs of their own take submissions, and sleep after this many idle milliseconds
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub(crate) sqpoll: Option<u64>,

    /// CPUs of those threads, dealt out to the cores in turn, such as 2,3; by default CPUs of each core's
    /// node that run none
    #[arg(long, value_name = "LIST", requires = "sqpoll")]
    pub(crate) sqpoll_cpus: Option<CpuSet>,

    /// Poll network devices for this many microseconds before a core sleeps: less latency for CPU time (Linux
    /// 6.9)
    #[arg(long, value_name = "US", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) busy_poll: Option<u64>,

    /// Let a core that sleeps gather completions for this many microseconds: fewer wakes for latency (Linux
    /// 6.12)
    #[arg(long, value_name = "US", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) min_wait: Option<u64>,

    /// Completions that end such a sleep before its time; a request and its answer are two
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        value_parser = clap::value_parser!(u32).range(2..=4096)
    )]
    pub(crate) min_wait_for: u32,

    /// Let small messages of several connections share a receive buffer: less memory, held for longer
    /// (Linux 6.12)
    #[arg(long)]
    pub(crate) incremental_buffers: bool,

    /// Let one completion tell of many receive buffers, for bulk that comes in (Linux 6.10, not 6.13 to 6.15)
    #[arg(long)]
    pub(crate) bundles: bool,
}

impl ProgramArgs {
    /// A runtime as asked for, on `cores`.
    pub(crate) fn runtime(&self, cores: CoreSelection) -> Builder {
        let (place, ring) = (&self.cores, &self.ring);
        let mut builder = Runtime::builder()
            .cores(cores)
            .placement(place.placement)
            .pages(place.pages)
            .pool_bytes(place.pool)
            .incremental_buffers(ring.incremental_buffers)
            .bundles(ring.bundles)
            .seal_rings(true);
        if let Some(limit) = place.pool_limit {
            builder = builder.pool_limit(limit);
        }
        if let Some(entries) = ring.entries {
            builder = builder.ring_entries(entries);
        }
        if let Some(nic) = &place.nic {
            builder = builder.nic(nic);
        }
        if let Some(spin) = ring.spin {
            builder = builder.spin(Duration::from_micros(spin));
        }
        if let Some(idle) = ring.sqpoll {
            builder = builder.sqpoll(Duration::from_millis(idle));
        }
        if let Some(cpus) = &ring.sqpoll_cpus {
            builder = builder.sqpoll_cpus(cpus.clone());
        }
        if let Some(time) = ring.busy_poll {
            builder = builder.busy_poll(Duration::from_micros(time));
        }
        if let Some(time) = ring.min_wait {
            builder = builder.min_wait(Duration::from_micros(time), ring.min_wait_for);
        }
        builder = builder.measure_waits(self.slow.is_some());
        if let Some(stall) = self.stall {
            builder = builder.report_stalls(Duration::from_millis(stall));
        }
        builder
    }
}

/// Which core a connection comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Steer {
    /// Spread by a hash of the addresses.
    Hash,
    /// The core of the CPU that its packets arrive on.
    Cpu,
}
