//! What a relay can be told.

use std::net::SocketAddr;

use clap::Args;

use crate::options::values::resolve;

/// How connections are relayed. Each field is a flag of `annulus proxy` and a key of a listener that has a `to`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct ProxyArgs {
    /// Where to relay to, HOST:PORT, or several with commas; all addresses of a name are tried, in turn
    #[arg(long, value_name = "ADDR", value_parser = Upstream::parse)]
    pub(crate) to: Upstream,
}

/// An address to connect to, as it was written and as it was resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upstream {
    pub(crate) written: String,
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Upstream {
    fn parse(text: &str) -> Result<Self, String> {
        let addresses = text.split(',').map(resolve).collect::<Result<Vec<_>, _>>()?.concat();
        Ok(Upstream { written: text.to_owned(), addresses })
    }

    /// As a text that needs no resolver any more.
    pub(crate) fn resolved(&self) -> String {
        self.addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
    }
}
