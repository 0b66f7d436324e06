//! What the admin server can be told.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use clap::Args;

use crate::listen::address::{ListenAddress, Place};

/// Where operators ask.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct AdminArgs {
    /// Answer operators here, HOST:PORT or unix:PATH: a page at /, /metrics, /healthz, /readyz, /status; a
    /// port alone is on 127.0.0.1
    #[arg(long, value_name = "ADDR|unix:PATH")]
    pub(crate) admin: Option<AdminAddress>,
}

/// An address for operators. Unlike that of a listener, a port alone is not on all addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdminAddress(ListenAddress);

impl AdminAddress {
    /// What it stands for.
    pub(crate) fn place(&self) -> &Place {
        self.0.place()
    }
}

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix(':').unwrap_or(text).parse() {
            Ok(port) => Ok(AdminAddress(SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())),
            Err(_) => text.parse().map(AdminAddress),
        }
    }
}

/// As it was written, but for a port alone.
impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_for_this_machine() {
        for (text, address) in
            [("9000", "127.0.0.1:9000"), (":9000", "127.0.0.1:9000"), ("[::1]:9", "[::1]:9")]
        {
            assert_eq!(text.parse::<AdminAddress>().unwrap().to_string(), address);
        }
        assert!(
            matches!("unix:/run/a".parse::<AdminAddress>().unwrap().place(), Place::Unix(path) if path == "/run/a")
        );
    }
}
