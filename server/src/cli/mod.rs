//! The command line: the commands, and what is started for each.

mod answer;
mod file;
mod package_files;
mod reload;
mod start;
mod top;
mod upgrade;
mod which;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use annulus::PlacementPolicy;
use annulus::numa::plan::CoreSelection;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::answer::{one_line, print};
use self::start::{Told, begin, begin_member, start_log};
use self::top::TopArgs;
use self::which::Which;
use crate::config::Loaded;
use crate::config::command_line::{AFTER_HELP, Serving};
use crate::exit::Failure;
use crate::listen::passed::Passed;
use crate::options::program::Verbosity;
use crate::processes::member::{COMMAND, MemberArgs};
use crate::roads::Target;
use crate::service::reload::Source;
use crate::upgrade::bundle::Bundle;
use crate::upgrade::{giving, taking};
use crate::{doctor, numa_bench, roads, topology};

/// Serves files and proxies connections on one pinned thread, one io_uring and one node-local memory pool
/// per core.
#[derive(Debug, Parser)]
#[command(name = "annulus", version, propagate_version = true, arg_required_else_help = false, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    verbosity: Verbosity,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Serving(Serving),

    /// Do what a file says: several listeners, each serving files or relaying; SIGHUP reads it again
    #[command(after_help = AFTER_HELP)]
    Run {
        /// The file, in TOML: keys have the names of flags, and each listener is a table [[listener]]
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },

    /// Say what is wrong in a file, in lines FILE:LINE:COLUMN: what is wrong, and the nearest right word
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },

    /// Have a running program read its file again, as SIGHUP does
    Reload {
        #[command(flatten)]
        which: Which,
    },

    /// Have the program's file, which may be a newer one, take the place of a running program: nobody who
    /// connects notices, and what is open finishes
    Upgrade {
        #[command(flatten)]
        which: Which,
    },

    /// Show what a running program does, live: connections, requests, bytes, memory of each core
    Top {
        #[command(flatten)]
        args: TopArgs,
    },

    /// Print the file that equals a command line: annulus config serve ..., annulus config proxy ...
    Config {
        #[command(subcommand)]
        serving: Serving,
    },

    /// Serve with the cores of one node, for the process that says so
    #[command(name = COMMAND, hide = true)]
    Member {
        /// Its node and its cores
        given: MemberArgs,
    },

    /// Write the manual pages and the completions that a package has into a directory
    #[command(hide = true)]
    PackageFiles {
        /// The directory
        #[arg(value_name = "DIR")]
        dir: PathBuf,
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
        /// Regions of at most 64 MiB, one round: seconds instead of a minute; on large caches the cache is
        /// measured
        #[arg(long)]
        quick: bool,

        /// Which CPUs to measure from: "all", or a list such as 0-3,8
        #[arg(long, value_name = "LIST", default_value = "all")]
        cores: CoreSelection,
    },

    /// Measure what each way to bring a file to a socket costs here, from 1 KiB to 1 GiB, beside what
    /// is said of it
    Roads {
        /// Up to 64 MiB, and less of each: seconds instead of a minute or so
        #[arg(long)]
        quick: bool,

        /// Draw the table into this file too, as SVG
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,

        /// Send to `annulus roads --receive` at this address, in place of this process over loopback
        #[arg(long, value_name = "ADDR:PORT")]
        to: Option<SocketAddr>,

        /// Measure nothing: take what another machine's `annulus roads --to` sends to this address, until a
        /// signal
        #[arg(long, value_name = "ADDR:PORT", conflicts_with_all = ["quick", "svg", "to"])]
        receive: Option<SocketAddr>,
    },

    /// Check everything that Annulus needs of this machine: what is there, what a lack costs, which command
    /// mends it
    #[command(after_help = DOCTOR_HELP)]
    Doctor {
        /// Print one JSON object in place of lines
        #[arg(long)]
        json: bool,

        /// Which CPUs would run: "all", or a list such as 0-3,8
        #[arg(long, value_name = "LIST", default_value = "all")]
        cores: CoreSelection,

        /// End with 0 also where there is advice, for what starts the program only after this
        #[arg(long)]
        tolerate_advice: bool,
    },
}

const DOCTOR_HELP: &str = "\
It changes nothing. Each line: ok, note (nothing to do), advice (could be better) or FAIL (cannot run); what was found; what it
costs; what mends it.

Exit codes:
  0 all good    1 there is advice    2 bad input    3 Annulus cannot run here";

/// Reads the command line and does what it says.
///
/// # Errors
/// Whatever ends the program with another exit code than 0.
pub(crate) fn run() -> Result<(), Failure> {
    let answer = |answer: clap::Error| match answer.use_stderr() {
        // Help and version are answers, not errors.
        false => print(&answer),
        true => Err(Failure::input(one_line(&answer, &meant(std::env::args_os())))),
    };
    let (matches, cli) = match parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => return answer(error),
    };
    let Cli { command, verbosity: Verbosity { verbose } } = cli;
    match command {
        Command::Serving(serving) => {
            let passed = Arc::new(take_sockets()?);
            start_log(verbose)?;
            let config = serving.configuration();
            let text = file::text(&matches, &config);
            begin(Told { config, text, verbose, source: None, passed })
        }
        Command::Run { file } => {
            let passed = Arc::new(take_sockets()?);
            let Loaded { text, read } = file::load(&file)?;
            let verbose = verbose.max(read.verbose);
            start_log(verbose)?;
            let source = Some(Source { file, keys: read.keys });
            begin(Told { config: read.config, text: Ok(text), verbose, source, passed })
        }
        Command::Member { given } => begin_member(given),
        Command::Check { file } => file::check(&file),
        Command::Reload { which } => reload::order(&which),
        Command::Upgrade { which } => upgrade::order(&which),
        Command::Top { args } => top::run(&args),
        Command::Config { serving } => {
            let config = serving.configuration();
            let matches = matches.subcommand_matches("config").unwrap_or(&matches);
            file::print(&file::text(matches, &config).map_err(Failure::input)?)
        }
        Command::PackageFiles { dir } => package_files::write(Cli::command(), &dir),
        Command::Topology { verify: true, cores, placement, .. } => {
            start_log(verbose)?;
            topology::verify(cores, placement)
        }
        Command::Topology { verify: false, cores, nic, .. } => {
            start_log(verbose)?;
            topology::show(&cores, nic.as_deref())
        }
        Command::NumaBench { quick, cores } => {
            start_log(verbose)?;
            numa_bench::run(&cores, quick)
        }
        Command::Roads { receive: Some(address), .. } => {
            start_log(verbose)?;
            roads::receive(address)
        }
        Command::Roads { quick, svg, to, .. } => {
            start_log(verbose)?;
            roads::run(quick, to.map_or(Target::Loopback, Target::Elsewhere), svg.as_deref())
        }
        Command::Doctor { json, cores, tolerate_advice } => {
            start_log(verbose)?;
            doctor::examine(&cores, json, tolerate_advice)
        }
    }
}

/// Sockets that another process gives to this one. Call it first: nothing may have been opened yet.
fn take_sockets() -> Result<Passed, Failure> {
    giving::note_program();
    Ok(match taking::take()? {
        Some(Bundle { passed, endpoints, admin }) => Passed::of_another(passed, endpoints, admin),
        None => Passed::take()?,
    })
}

/// The words of a command line, as clap has them and as this program does.
/// The command that is meant by a command line, such as `annulus serve`.
fn meant(mut words: impl Iterator<Item = OsString>) -> String {
    let (name, all) = ("annulus", Cli::command());
    // The flags before a command take no values.
    let word = words.by_ref().skip(1).find(|word| !word.as_encoded_bytes().starts_with(b"-"));
    match word.and_then(|word| all.find_subcommand(word).map(|found| found.get_name().to_owned())) {
        Some(command) => format!("{name} {command}"),
        None => name.to_owned(),
    }
}

fn parse(
    words: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<(ArgMatches, Cli), clap::Error> {
    let matches = Cli::command().try_get_matches_from(words)?;
    let cli = Cli::from_arg_matches(&matches)?;
    Ok((matches, cli))
}

#[cfg(test)]
mod tests {
    use annulus::transfer::Road;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        super::parse(line.split(' ')).map(|(_, cli)| cli)
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
        let Command::Serving(Serving::Serve { serve, listener, program }) =
            parse("annulus serve").unwrap().command
        else {
            panic!()
        };
        assert_eq!((serve.root, listener.listen), (".".into(), Vec::new()));
        assert_eq!(
            (program.cores.cores, program.ring.road, program.grace),
            (CoreSelection::All, Road::default(), 3)
        );
        let Command::Serving(Serving::Proxy { proxy, .. }) =
            parse("annulus proxy --to 127.0.0.1:9").unwrap().command
        else {
            panic!()
        };
        assert_eq!(proxy.upstreams.written(), "127.0.0.1:9");
    }

    #[test]
    fn wrong_command_lines_are_told_in_one_line() {
        for (line, word) in [
            ("annulus", "subcommand"),
            ("annulus dance", "dance"),
            ("annulus proxy", "--to"),
            ("annulus serve --lisen 1", "--listen"),
            ("annulus serve --listen 80800", "HOST:PORT"),
            ("annulus serve --road rail", "--road"),
            ("annulus serve --cores x", "--cores"),
            ("annulus serve --pool 16X", "16M"),
            ("annulus serve --pool-limit 99999999999G", "16M"),
            ("annulus serve --grace -1", "'-1'"),
            ("annulus serve --grace x", "write a whole number; see annulus serve --help"),
            ("annulus -v roads --to x", "write ADDR:PORT, such as 192.0.2.1:8080; see annulus roads --help"),
            ("annulus config", "annulus config --help"),
            ("annulus serve --stall 0", "--stall"),
            ("annulus serve a b", "'b'"),
        ] {
            let text = one_line(&parse(line).unwrap_err(), &meant(line.split(' ').map(OsString::from)));
            assert!(!text.contains("package-files") && !text.contains("use '-- "), "{line}: {text}");
            assert!(text.contains(word) && !text.contains('\n') && !text.contains("Usage"), "{line}: {text}");
        }
    }
}
