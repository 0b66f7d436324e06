//! The commands that serve, and what they make of their flags.

use clap::Subcommand;

use super::{Configuration, Listener, ServiceConfig};
use crate::options::listener::ListenerArgs;
use crate::options::program::ProgramArgs;
use crate::proxy::options::ProxyArgs;
use crate::serve::options::ServeArgs;
use crate::serve::sites::SiteConfig;

/// What stands below the flags of all that serves.
pub(crate) const AFTER_HELP: &str = "\
Environment:
  ANNULUS_LOG  filters the log on stderr and outranks -v, for example: debug, or annulus::proxy=trace,warn

Signals:
  SIGINT, SIGTERM  stop accepting, let what runs finish for the grace period, then end; a second one ends at once
  SIGHUP           read the file of annulus run anew; started by flags, open the logs anew
  SIGRTMIN         have the program's file take this program's place, as annulus upgrade does
  SIGUSR1          print counters, stalled cores and placement report on stderr
  SIGUSR2          open the access log anew, after it was moved away

Exit codes:
  0 done    1 failed while running    2 bad input    3 the platform refuses (io_uring switched off, kernel too old)";

/// What can be served by a command line.
#[derive(Debug, Subcommand)]
pub(crate) enum Serving {
    /// Serve the files below a directory over HTTP/1.1
    #[command(after_help = AFTER_HELP)]
    Serve {
        #[command(flatten)]
        serve: ServeArgs,

        #[command(flatten)]
        listener: ListenerArgs,

        #[command(flatten)]
        program: ProgramArgs,
    },

    /// Relay TCP connections to another address, both ways
    #[command(after_help = AFTER_HELP)]
    Proxy {
        #[command(flatten)]
        proxy: ProxyArgs,

        #[command(flatten)]
        listener: ListenerArgs,

        #[command(flatten)]
        program: ProgramArgs,
    },
}

impl Serving {
    /// What the command line means.
    pub(crate) fn configuration(self) -> Configuration {
        let (program, args, service) = match self {
            Serving::Serve { serve, listener, program } => {
                (program, listener, ServiceConfig::Files(vec![SiteConfig::of_all(serve)]))
            }
            Serving::Proxy { proxy, listener, program } => {
                (program, listener, ServiceConfig::Relay(Box::new(proxy)))
            }
        };
        Configuration { program, listeners: vec![Listener { args, service }] }
    }
}
