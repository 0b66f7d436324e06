//! Who has connected.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use annulus::buf::Lease;
use annulus::net::{Connection, Family};
use rustix::net::{AddressFamily, getpeername};

/// A connection, and what is known of it before its first byte is served.
pub(crate) struct Client<F: Family> {
    /// The connection.
    pub(crate) stream: Connection<F>,
    /// What has come already and belongs to whoever serves it: bytes behind a PROXY header.
    pub(crate) first: Option<Lease>,
    /// Whom it comes from, where somebody trusted has said so.
    #[allow(dead_code, reason = "for PROXY, which comes next")]
    pub(crate) declared: Option<SocketAddr>,
}

impl<F: Family> Client<F> {
    /// One of whom nothing is known but its connection.
    pub(crate) fn new(stream: Connection<F>) -> Self {
        Client { stream, first: None, declared: None }
    }

    /// Whom it comes from: the client that a trusted PROXY header named, else the other end. A call to the system where nobody has.
    #[allow(dead_code, reason = "for access logs, which come next")]
    pub(crate) fn peer(&self) -> Peer {
        self.declared.map_or_else(|| peer_of(&self.stream), Peer::Ip)
    }
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// An address; one of IPv4 also where the socket has both families.
    Ip(SocketAddr),
    /// A program of this machine, by a Unix socket.
    Local,
    /// It has gone already.
    Unknown,
}

/// The other end of `socket` (`getpeername(2)`).
pub(crate) fn peer_of(socket: impl AsFd) -> Peer {
    match getpeername(socket) {
        Ok(Some(address)) if address.address_family() == AddressFamily::UNIX => Peer::Local,
        Ok(None) => Peer::Local,
        Ok(Some(address)) => {
            SocketAddr::try_from(address).map_or(Peer::Unknown, |address| Peer::Ip(canonical(address)))
        }
        Err(_) => Peer::Unknown,
    }
}

/// An IPv4 address that a socket of both families shows as an IPv6 one is an IPv4 address (RFC 4291 2.5.5.2).
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Ip(address) => address.fmt(f),
            Peer::Local => f.write_str("unix:"),
            Peer::Unknown => f.write_str("unknown"),
        }
    }
}
