//! The command line: what can be said, and what is started for it.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use annulus::numa::CpuSet;
use annulus::numa::plan::CoreSelection;
use annulus::numa::region::Backing;
use annulus::transfer::Road;
use annulus::{PlacementPolicy, Runtime};
use clap::{ArgAction, Args, Parser, Subcommand};

use crate::accept_loop::{AcceptLoop, Steer};
use crate::descriptors;
use crate::exit::Failure;
use crate::processes::member::{FLAG, Member, MemberArgs};
use crate::processes::parent::End;
use crate::processes::{Address, Processes, SplitConstraints};
use crate::signals::{Orders, Signals};
use crate::supervise::supervise;
use crate::{doctor, logging, numa_bench, processes, proxy, serve, topology};

/// Serves files and proxies connections on one pinned thread, one io_uring and one node-local memory pool per core.
#[derive(Debug, Parser)]
#[command(name = "annulus", version, propagate_version = true, arg_required_else_help = false, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Serve with the cores of one node, for the process that says so
    #[arg(long, hide = true)]
    member: Option<MemberArgs>,

    /// Say more in the log: -v info, -vv debug, -vvv trace
    #[arg(short, long, global = true, action = ArgAction::Count, display_order = 100)]
    verbose: u8,
}

const AFTER_HELP: &str = "\
Environment:
  ANNULUS_LOG  filters the log on stderr and outranks -v, for example: debug, or annulus::proxy=trace,warn

Signals:
  SIGINT, SIGTERM  stop accepting, let what runs finish for the grace period, then end; a second one ends at once
  SIGUSR1          print counters, stalled cores and placement report on stderr

Exit codes:
  0 done    1 failed while running    2 bad input    3 the platform refuses (io_uring switched off, kernel too old)";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the files below a directory over HTTP/1.1
    #[command(after_help = AFTER_HELP)]
    Serve {
        /// The directory to serve; nothing outside of it can be reached
        #[arg(value_name = "ROOT", default_value = ".")]
        root: PathBuf,

        /// Where to listen; port 0 takes a free port and says which
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", value_parser = listen_address)]
        listen: SocketAddr,

        #[command(flatten)]
        common: Common,
    },

    /// Relay TCP connections to another address, both ways
    #[command(after_help = AFTER_HELP)]
    Proxy {
        /// Where to relay to, HOST:PORT, or several with commas; all addresses of a name are tried, in turn
        #[arg(long, value_name = "ADDR", value_parser = Upstream::parse)]
        to: Upstream,

        /// Where to listen; port 0 takes a free port and says which
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081", value_parser = listen_address)]
        listen: SocketAddr,

        #[command(flatten)]
        common: Common,
    },

    /// Print the machine as numactl --hardware does, then the core plan
    Topology {
        /// Start the runtime on the cores and check page by page that its memory lies where it should
        #[arg(long)]
        verify: bool,

        /// Which CPUs to run on: "all", or a list such as 0-3,8
        #[arg(long, value_name = "LIST", default_value = "all")]
        cores: CoreSelection,

        /// The network interface that clients come in by, such as eth0: CPUs of its node come first
        #[arg(long, value_name = "NAME")]
        nic: Option<String>,

        /// With --verify, what to do when memory cannot lie on its core's node: as in serve
        #[arg(long, value_name = "require|prefer|off", default_value_t)]
        placement: PlacementPolicy,
    },

    /// Measure latency and bandwidth from every node's CPUs to every node's memory
    NumaBench {
        /// Regions of at most 64 MiB, one round: seconds instead of a minute; on large caches the cache is measured
        #[arg(long)]
        quick: bool,

        /// Which CPUs to measure from: "all", or a list such as 0-3,8
        #[arg(long, value_name = "LIST", default_value = "all")]
        cores: CoreSelection,
    },

    /// Check everything that Annulus needs of this machine: what is there, what a lack costs, which command mends it
    #[command(after_help = DOCTOR_HELP)]
    Doctor {
        /// Print one JSON object in place of lines
        #[arg(long)]
        json: bool,

        /// Which CPUs would run: "all", or a list such as 0-3,8
        #[arg(long, value_name = "LIST", default_value = "all")]
        cores: CoreSelection,
    },
}

const DOCTOR_HELP: &str = "\
It changes nothing. Each line: ok, note (nothing to do), advice (could be better) or FAIL (cannot run); what was found; what it
costs; what mends it.

Exit codes:
  0 all good    1 there is advice    2 bad input    3 Annulus cannot run here";

/// What `serve` and `proxy` have in common.
#[derive(Debug, Args)]
struct Common {
    /// Which CPUs to run on, one pinned thread each: "all" that the process may use, or a list such as 0-3,8
    #[arg(long, value_name = "LIST", default_value = "all")]
    cores: CoreSelection,

    /// The network interface that clients come in by, such as eth0: CPUs of its node come first
    #[arg(long, value_name = "NAME")]
    nic: Option<String>,

    /// When memory cannot lie on its core's node: "require" refuses to start, "prefer" places what it can and reports the rest,
    /// "off" places nothing
    #[arg(long, value_name = "require|prefer|off", default_value_t)]
    placement: PlacementPolicy,

    /// Pages of pools: "system" as for all programs, "4k", "thp" transparent huge pages, "hugetlb" reserved ones, "auto" reserved ones
    /// where the node has enough free and else transparent ones
    #[arg(long, value_name = "system|4k|thp|hugetlb|auto", default_value_t)]
    pages: Backing,

    /// Memory of each core's pool to begin with, such as 16M
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = size)]
    pool: usize,

    /// What each core's pool may grow to when it runs out of receive buffers or blocks, such as 64M [default: four times --pool]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pool_limit: Option<usize>,

    /// Submission entries of each core's ring, 8 to 32768, rounded up to a power of two; fewer take less locked memory
    /// [default: 4096, or fewer where so many cannot be had]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(8..=32_768))]
    entries: Option<u32>,

    /// How bulk moves: "ring" by splice requests in the ring, "inline" by splice calls from the core
    #[arg(long, value_name = "ring|inline", default_value_t)]
    road: Road,

    /// Which core a connection comes to: "hash" spreads them, "cpu" takes the core of the CPU that its packets arrive on, where there is
    /// one (Linux 6.2; for machines whose packets arrive on all CPUs)
    #[arg(long, value_name = "hash|cpu", default_value = "hash", hide_possible_values = true)]
    steer: Steer,

    /// How many processes serve: "one" for all cores, or one for each NUMA "node", so that the program's own constants, variables, heap and
    /// page tables lie there too; "auto" is "node" where the cores take memory from several nodes
    #[arg(long, value_name = "auto|one|node", default_value = "auto", hide_possible_values = true)]
    processes: Processes,

    /// How long connections may go on after SIGINT or SIGTERM, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 3)]
    grace: u64,

    /// Look about for work for at most so many microseconds before a core sleeps: less latency for CPU time
    #[arg(long, value_name = "US", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    spin: Option<u64>,

    /// Let kernel threads on CPUs of their own take submissions, and sleep after so many idle milliseconds
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    sqpoll: Option<u64>,

    /// CPUs of those threads, dealt out to the cores in turn, such as 2,3; by default CPUs of each core's node that run none
    #[arg(long, value_name = "LIST", requires = "sqpoll")]
    sqpoll_cpus: Option<CpuSet>,

    /// Poll network devices for so many microseconds before a core sleeps: less latency for CPU time (Linux 6.9)
    #[arg(long, value_name = "US", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    busy_poll: Option<u64>,

    /// Let small messages of several connections share a receive buffer: less memory, held for longer (Linux 6.12)
    #[arg(long)]
    incremental_buffers: bool,

    /// Let one completion tell of many receive buffers, for bulk that comes in (Linux 6.10, not 6.13 to 6.15)
    #[arg(long)]
    bundles: bool,

    /// Log, with a warning, each step of a task that keeps its core for so many milliseconds, and where the task was started
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    stall: Option<u64>,

    /// Print each core's counters on stderr at the end
    #[arg(long)]
    stats: bool,
}

/// An address to connect to, as it was written and as it was resolved.
#[derive(Debug, Clone)]
struct Upstream {
    written: String,
    addresses: Vec<SocketAddr>,
}

impl Upstream {
    fn parse(text: &str) -> Result<Self, String> {
        let addresses = text.split(',').map(resolve).collect::<Result<Vec<_>, _>>()?.concat();
        Ok(Upstream { written: text.to_owned(), addresses })
    }

    /// As a text that needs no resolver any more.
    fn resolved(&self) -> String {
        self.addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
    }
}

/// The first address that `text` stands for.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    resolve(text)?.first().copied().ok_or_else(|| format!("the name {text} has no address"))
}

/// `HOST:PORT` or `[IPV6]:PORT`, with a name or an address as the host.
fn resolve(text: &str) -> Result<Vec<SocketAddr>, String> {
    let addresses: Vec<SocketAddr> = text
        .to_socket_addrs()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidInput => {
                "write HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080".to_owned()
            }
            _ => format!("{error}; write an address that exists, such as 127.0.0.1:8080"),
        })?
        .collect();
    if addresses.is_empty() { Err(format!("the name {text} has no address")) } else { Ok(addresses) }
}

/// A number of bytes, or of KiB, MiB or GiB by the letter behind it.
fn size(text: &str) -> Result<usize, String> {
    let (number, unit) = match text.as_bytes().last().map(u8::to_ascii_uppercase) {
        Some(b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let size = number.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    size.ok_or_else(|| "write a number of bytes, or of KiB, MiB or GiB, such as 16M".to_owned())
}

/// Reads the command line and does what it says.
///
/// # Errors
/// Whatever ends the program with another exit code than 0.
pub(crate) fn run() -> Result<(), Failure> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are answers, not errors.
        Err(answer) if !answer.use_stderr() => {
            return answer.print().or_else(|error| match error.kind() {
                std::io::ErrorKind::BrokenPipe => Ok(()),
                _ => Err(Failure::failed("cannot write to standard output", error)),
            });
        }
        Err(error) => return Err(Failure::input(one_line(&error))),
    };
    if cli.member.is_some() && !matches!(cli.command, Command::Serve { .. } | Command::Proxy { .. }) {
        return Err(Failure::input(format!("{FLAG} goes with serve and proxy only; leave it to annulus")));
    }
    logging::start(cli.verbose)?;
    match cli.command {
        Command::Serve { root, listen, common } => {
            serve::check_root(&root)?;
            let address = common.address(listen, "http://", None);
            begin(&common, address, cli.member, |accept_loop| {
                let settings = Arc::new(serve::Settings { accept_loop, root, road: common.road });
                move || serve::on_core(Arc::clone(&settings))
            })
        }
        Command::Proxy { to, listen, common } => {
            let address = common.address(listen, "", Some(&to));
            begin(&common, address, cli.member, |accept_loop| {
                let settings =
                    Arc::new(proxy::Settings { accept_loop, upstream: to.addresses, road: common.road });
                move || proxy::on_core(Arc::clone(&settings))
            })
        }
        Command::Topology { verify: true, cores, placement, .. } => topology::verify(cores, placement),
        Command::Topology { verify: false, cores, nic, .. } => topology::show(&cores, nic.as_deref()),
        Command::NumaBench { quick, cores } => numa_bench::run(&cores, quick),
        Command::Doctor { json, cores } => doctor::examine(&cores, json),
    }
}

impl Common {
    fn address(&self, listen: SocketAddr, before: &'static str, to: Option<&Upstream>) -> Address {
        let after = to.map_or_else(String::new, |to| format!(", relaying to {}", to.written));
        let upstream = to.map(Upstream::resolved);
        Address { listen, before, after, upstream, steer_by_cpu: self.steer == Steer::Cpu }
    }
}

/// Serves in this process, or in one for each node.
fn begin<F, Fut>(
    common: &Common,
    address: Address,
    given: Option<MemberArgs>,
    root: impl FnOnce(AcceptLoop) -> F,
) -> Result<(), Failure>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Failure>> + 'static,
{
    if let Some(given) = given {
        let member = Arc::new(Member::take(given)?);
        return start(common, Some(&member), root(AcceptLoop::new(address, Some(Arc::clone(&member)))));
    }
    let constraints =
        SplitConstraints { placement: common.placement, named_pollers: common.sqpoll_cpus.is_some() };
    if common.processes != Processes::One {
        let (shares, reasons) = processes::shares(common.processes, &common.cores, common.nic.as_deref())?;
        if processes::split(common.processes, constraints, &shares)? {
            match processes::parent::run(&shares, &reasons, &address) {
                Err(End::CannotStart(failure)) if common.processes.may_be_one() => {
                    tracing::warn!("{failure}; one process serves with all cores");
                }
                Err(End::CannotStart(failure) | End::Failed(failure)) => return Err(failure),
                Ok(()) => return Ok(()),
            }
        }
    }
    start(common, None, root(AcceptLoop::new(address, None)))
}

/// Starts the runtime with `root` on each core, and waits for its end.
fn start<F, Fut>(common: &Common, member: Option<&Arc<Member>>, root: F) -> Result<(), Failure>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Failure>> + 'static,
{
    // Before the first thread, so that all of them inherit the mask.
    let signals = Signals::block()
        .map_err(|error| Failure::failed("cannot take the signals into a descriptor", error))?;
    let image = member.map(|member| member.settle(common.placement)).transpose()?;
    let orders = match member {
        Some(member) => Orders::Parent(Arc::clone(member)),
        None => Orders::Signals(signals),
    };
    // Before the first listener, which reads the limit.
    descriptors::raise_limit();
    let cores =
        member.map_or_else(|| common.cores.clone(), |member| CoreSelection::List(member.cores().clone()));
    let mut builder = Runtime::builder()
        .cores(cores)
        .placement(common.placement)
        .pages(common.pages)
        .pool_bytes(common.pool);
    if let Some(limit) = common.pool_limit {
        builder = builder.pool_limit(limit);
    }
    if let Some(entries) = common.entries {
        builder = builder.ring_entries(entries);
    }
    if let Some(nic) = &common.nic {
        builder = builder.nic(nic);
    }
    if let Some(spin) = common.spin {
        builder = builder.spin(Duration::from_micros(spin));
    }
    if let Some(idle) = common.sqpoll {
        builder = builder.sqpoll(Duration::from_millis(idle));
    }
    if let Some(cpus) = &common.sqpoll_cpus {
        builder = builder.sqpoll_cpus(cpus.clone());
    }
    if let Some(time) = common.busy_poll {
        builder = builder.busy_poll(Duration::from_micros(time));
    }
    builder = builder.incremental_buffers(common.incremental_buffers).bundles(common.bundles);
    if let Some(stall) = common.stall {
        builder = builder.report_stalls(Duration::from_millis(stall));
    }
    let runtime = builder.build()?;
    let plan = runtime.plan().clone();
    let running = runtime.start(root)?;
    supervise(&plan, running, orders, image.as_ref(), Duration::from_secs(common.grace), common.stats)
}

/// What clap says about a wrong command line, in one line: cause, tip, and where to read more.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut said = Vec::new();
    let mut command = String::from("annulus");
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(usage) = line.strip_prefix("Usage: ") {
            let words: Vec<_> =
                usage.split(' ').take_while(|word| !word.starts_with(['[', '<', '-'])).collect();
            command = words.join(" ");
        }
        if line.starts_with("Usage: ") || line.starts_with("For more information") {
            break;
        }
        said.push(line.trim_start_matches("error: ").trim_start_matches("tip: "));
    }
    format!("{}; see {command} --help", said.join("; ").replace(":;", ":"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound_and_every_flag_is_explained() {
        let command = Cli::command();
        command.clone().debug_assert();
        for command in command.get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {argument}", command.get_name());
            }
        }
    }

    #[test]
    fn defaults() {
        let Command::Serve { root, listen, common } = parse("annulus serve").unwrap().command else {
            panic!()
        };
        assert_eq!((root, listen.to_string()), (".".into(), "127.0.0.1:8080".to_owned()));
        assert_eq!((common.cores, common.road, common.grace), (CoreSelection::All, Road::default(), 3));
        let Command::Proxy { to, listen, .. } = parse("annulus proxy --to 127.0.0.1:9").unwrap().command
        else {
            panic!()
        };
        assert_eq!((to.written.as_str(), listen.to_string()), ("127.0.0.1:9", "127.0.0.1:8081".to_owned()));
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("300000", 300_000), ("512k", 512 << 10), ("16M", 16 << 20), ("2G", 2 << 30)] {
            assert_eq!(size(text), Ok(bytes));
        }
        for text in ["", "M", "-1M", "1.5G", "16MiB"] {
            assert!(size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn wrong_command_lines_are_told_in_one_line() {
        for (line, word) in [
            ("annulus", "subcommand"),
            ("annulus dance", "dance"),
            ("annulus proxy", "--to"),
            ("annulus serve --lisen 1", "--listen"),
            ("annulus serve --listen 8080", "HOST:PORT"),
            ("annulus serve --road rail", "--road"),
            ("annulus serve --cores x", "--cores"),
            ("annulus serve --pool 16X", "16M"),
            ("annulus serve --pool-limit 99999999999G", "16M"),
            ("annulus serve --grace -1", "-1"),
            ("annulus serve --stall 0", "--stall"),
            ("annulus serve a b", "'b'"),
        ] {
            let text = one_line(&parse(line).unwrap_err());
            assert!(text.contains(word) && !text.contains('\n') && !text.contains("Usage"), "{line}: {text}");
        }
    }
}
