//! Who has connected.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use annulus::buf::Lease;
use annulus::net::{Connection, Family};
use rustix::net::{AddressFamily, getpeername};

use crate::log::access::Client as Address;

/// A connection, and what is known of it before its first byte is served.
pub(crate) struct Client<F: Family> {
    /// The connection.
    pub(crate) stream: Connection<F>,
    /// What has come already and belongs to whoever serves it: bytes behind a PROXY header.
    pub(crate) first: Option<Lease>,
    /// Whom it comes from, where somebody trusted has said so.
    pub(crate) declared: Option<SocketAddr>,
}

impl<F: Family> Client<F> {
    /// One of whom nothing is known but its connection.
    pub(crate) fn new(stream: Connection<F>) -> Self {
        Client { stream, first: None, declared: None }
    }

    /// Whom it comes from: the client that a trusted PROXY header named, else the other end. A call to the
    /// system where nobody has.
    pub(crate) fn address(&self) -> Address {
        self.declared.map_or_else(|| peer_of(&self.stream), Address::Tcp)
    }
}

/// The other end of `socket` (`getpeername(2)`).
pub(crate) fn peer_of(socket: impl AsFd) -> Address {
    match getpeername(socket) {
        Ok(Some(address)) if address.address_family() == AddressFamily::UNIX => Address::Unix,
        Ok(None) => Address::Unix,
        Ok(Some(address)) => {
            SocketAddr::try_from(address).map_or(Address::Unknown, |address| Address::Tcp(canonical(address)))
        }
        Err(_) => Address::Unknown,
    }
}

/// An IPv4 address that a socket of both families shows as an IPv6 one is an IPv4 address (RFC 4291 2.5.5.2).
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
