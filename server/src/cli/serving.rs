//! The commands that serve.

use clap::Subcommand;

use super::AFTER_HELP;
use crate::config::{Configuration, Listener, ServiceConfig};
use crate::options::listener::ListenerArgs;
use crate::options::program::ProgramArgs;
use crate::proxy::options::ProxyArgs;
use crate::serve::options::ServeArgs;
use crate::serve::sites::SiteConfig;

/// What can be served by a command line.
#[derive(Debug, Subcommand)]
pub(super) enum Serving {
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
    pub(super) fn configuration(self) -> Configuration {
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
