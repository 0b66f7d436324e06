//! What every listener can be told, whatever is done with its connections.

use std::net::SocketAddr;

use clap::Args;

use super::values::listen_address;

/// What every listener has.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct ListenerArgs {
    /// Where to listen; port 0 takes a free port and says which [default: 127.0.0.1:8080, for proxy 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    pub(crate) listen: Option<SocketAddr>,
}
