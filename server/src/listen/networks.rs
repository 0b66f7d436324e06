//! Networks: lists of addresses that are allowed, refused or trusted.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::log::access::Client as Address;

/// A network in CIDR notation, one address, or `unix`: the programs of this machine that come by a Unix
/// socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// Addresses with a common beginning.
    Ip(IpNet),
    /// Unix sockets.
    Unix,
}

impl Network {
    /// Whether `address` is in it.
    pub(crate) fn has(&self, address: &Address) -> bool {
        match (self, address) {
            (Network::Ip(network), Address::Tcp(address)) => network.contains(&address.ip().to_canonical()),
            (Network::Unix, Address::Unix) => true,
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "unix" {
            return Ok(Network::Unix);
        }
        let one = || text.parse::<IpAddr>().map(IpNet::from).ok();
        let network = text.parse::<IpNet>().ok().or_else(one);
        let network =
            network.ok_or("write a network, such as 10.0.0.0/8 or fd00::/8, one address, or unix")?;
        if network.trunc() != network {
            return Err(format!("its address has bits behind the length: write {}", network.trunc()));
        }
        Ok(Network::Ip(network))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Network::Ip(network) => network.fmt(f),
            Network::Unix => f.write_str("unix"),
        }
    }
}

/// Who may come: those on `allow`, or all where it is empty, but for those on `deny`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AccessList {
    /// Who may.
    pub(crate) allow: Vec<Network>,
    /// Who may not, whatever `allow` says.
    pub(crate) deny: Vec<Network>,
}

impl AccessList {
    /// Whether all may come.
    pub(crate) fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// Whether `client` may come.
    pub(crate) fn allows(&self, client: &Address) -> bool {
        let is_on = |list: &[Network]| list.iter().any(|network| network.has(client));
        !is_on(&self.deny) && (self.allow.is_empty() || is_on(&self.allow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(allow: &[&str], deny: &[&str]) -> AccessList {
        let parse = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        AccessList { allow: parse(allow), deny: parse(deny) }
    }

    fn at(address: &str) -> Address {
        Address::Tcp(format!("{address}:1").parse().unwrap())
    }

    #[test]
    fn deny_outranks_allow_and_an_empty_allow_is_all() {
        assert!(list(&[], &[]).allows(&at("1.2.3.4")) && list(&[], &[]).is_empty());
        let some = list(&["10.0.0.0/8", "fd00::/8", "1.2.3.4"], &["10.1.0.0/16"]);
        for (address, allowed) in [
            ("10.0.0.1", true),
            ("10.1.0.1", false),
            ("11.0.0.1", false),
            ("1.2.3.4", true),
            ("[fd12::1]", true),
            ("[fe80::1]", false),
            ("[::ffff:10.0.0.1]", true),
        ] {
            assert_eq!(some.allows(&at(address)), allowed, "{address}");
        }
        assert!(!some.allows(&Address::Unix) && !some.allows(&Address::Unknown));
        assert!(list(&["unix"], &[]).allows(&Address::Unix));
        assert!(list(&[], &["0.0.0.0/0"]).allows(&Address::Unix));
    }

    #[test]
    fn what_is_no_network_is_told_how_to_write_one() {
        for (text, word) in [
            ("", "10.0.0.0/8"),
            ("10.0.0.0/33", "10.0.0.0/8"),
            ("host", "10.0.0.0/8"),
            ("10.0.0.1/8", "write 10.0.0.0/8"),
        ] {
            assert!(text.parse::<Network>().unwrap_err().contains(word), "{text}");
        }
    }
}
