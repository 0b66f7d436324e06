//! Where to listen, as it is written.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::Path;
use std::str::FromStr;

use crate::options::values::resolve;

/// An address to listen on: `HOST:PORT`, `PORT` or `:PORT` (all addresses of both families), `unix:PATH`,
/// `unix:@NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListenAddress {
    written: String,
    place: Place,
}

/// What such a text stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// The port, on all addresses of both families; of IPv4 where the machine has no IPv6.
    Everywhere(u16),
    /// One address; `[::]` is all of both families.
    Ip(SocketAddr),
    /// A path, or an abstract name, which begins with `@`.
    Unix(String),
}

impl ListenAddress {
    /// What it stands for.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        ListenAddress { written: address.to_string(), place: Place::Ip(address) }
    }
}

/// As it was written.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let place = if let Some(path) = text.strip_prefix("unix:") {
            // Its length is what is wrong most often; the kernel takes 107 bytes (unix(7)).
            unix_address(path)
                .map_err(|error| format!("{error}; write unix:PATH or unix:@NAME, in at most 107 bytes"))?;
            Place::Unix(path.to_owned())
        } else if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse() {
            Place::Everywhere(port)
        } else {
            let none = || format!("the name {text} has no address");
            Place::Ip(resolve(text)?.first().copied().ok_or_else(none)?)
        };
        Ok(ListenAddress { written: text.to_owned(), place })
    }
}

/// The address of a path, or of an abstract name that begins with `@`.
pub(crate) fn unix_address(path: &str) -> std::io::Result<UnixAddr> {
    match path.strip_prefix('@') {
        Some("") => Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "the name is empty")),
        Some(name) => UnixAddr::from_abstract_name(name),
        None if path.is_empty() => {
            Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path is empty"))
        }
        None => UnixAddr::from_pathname(Path::new(path)),
    }
}

impl Place {
    /// The addresses to try in turn: the second where the machine has no IPv6.
    pub(crate) fn candidates(&self) -> Vec<SocketAddr> {
        match *self {
            Place::Everywhere(port) => {
                vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]
            }
            Place::Ip(address) => vec![address],
            Place::Unix(_) => Vec::new(),
        }
    }

    /// Whether it can be listened on once only: with port 0 each takes a port of its own.
    pub(crate) fn is_one_socket(&self) -> bool {
        match self {
            Place::Everywhere(port) => *port != 0,
            Place::Ip(address) => address.port() != 0,
            Place::Unix(_) => true,
        }
    }

    /// Whether it is all IPv4 addresses of `port`, and no others.
    pub(crate) fn is_all_of_v4(&self, port: u16) -> bool {
        matches!(self, Place::Ip(SocketAddr::V4(address)) if address.ip().is_unspecified() && address.port() == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        text.parse::<ListenAddress>().unwrap().place
    }

    #[test]
    fn ways_to_write_an_address() {
        assert_eq!(place("8080"), Place::Everywhere(8080));
        assert_eq!(place(":0"), Place::Everywhere(0));
        assert_eq!(place("127.0.0.1:80"), Place::Ip(([127, 0, 0, 1], 80).into()));
        assert_eq!(place("[::]:80"), Place::Ip((Ipv6Addr::UNSPECIFIED, 80).into()));
        assert_eq!(place("unix:/run/a b"), Place::Unix("/run/a b".to_owned()));
        assert_eq!(place("unix:@name"), Place::Unix("@name".to_owned()));
        assert_eq!("[::1]:80".parse::<ListenAddress>().unwrap().to_string(), "[::1]:80");
    }

    #[test]
    fn what_is_no_address_is_told_how_to_write_one() {
        let long = format!("unix:/{}", "x".repeat(107));
        for (text, word) in [
            ("", "HOST:PORT"),
            (":", "HOST:PORT"),
            ("70000", "HOST:PORT"),
            (":-1", "HOST:PORT"),
            ("127.0.0.1", "HOST:PORT"),
            ("127.0.0.1:", "HOST:PORT"),
            ("[::1]", "HOST:PORT"),
            ("unix:", "unix:PATH"),
            ("unix:@", "unix:@NAME"),
            (&long, "107 bytes"),
        ] {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert!(error.contains(word), "{text:?}: {error}");
        }
    }
}
