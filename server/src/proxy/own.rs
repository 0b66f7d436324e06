//! A relay must not be its own upstream: one connection would become as many as there are descriptors.
//!
//! It is refused at the start where it can be known then. Later it is known by its own connections: those to
//! a port that the program listens on are counted by their local address, in the table of the limits. A
//! client that comes from such an address is the program itself, whichever of several processes it has come
//! to.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::{self, Counted, Key};

/// A bit for each port.
static PORTS: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];
/// What all of them are counted under.
static ALL: LazyLock<Key> = LazyLock::new(|| limits::key("connections to ourselves"));

/// This process listens on `port`.
pub(crate) fn listens_on(port: u16) {
    PORTS[usize::from(port / 64)].fetch_or(1 << (port % 64), Ordering::Relaxed);
}

/// Whether a connection to `address` may come back to this process.
pub(crate) fn may_be_ours(address: SocketAddr) -> bool {
    PORTS[usize::from(address.port() / 64)].load(Ordering::Relaxed) & 1 << (address.port() % 64) != 0
}

/// One of our connections. Dropped, it is forgotten.
#[derive(Debug)]
pub(crate) struct Remembered {
    _one: Option<Counted>,
    _of_all: Option<Counted>,
}

fn key(local: SocketAddr) -> Key {
    limits::key(("a connection to ourselves", local))
}

/// Remembers that a connection of ours has this local address.
pub(crate) fn remember(local: SocketAddr) -> Remembered {
    Remembered { _of_all: limits::enter(*ALL, usize::MAX), _one: limits::enter(key(local), usize::MAX) }
}

/// Whether a client that comes from `peer` is this process.
pub(crate) fn is_ourselves(peer: SocketAddr) -> bool {
    limits::count(key(peer)) > 0
}

/// Whether any connection is remembered: only then is a client's address compared.
pub(crate) fn has_any() -> bool {
    limits::count(*ALL) > 0
}

/// Whether a connection to `target` comes to a socket that listens on `listen`, as far as can be known at the
/// start.
pub(crate) fn comes_to(target: SocketAddr, listen: SocketAddr) -> bool {
    let (to, on) = (target.ip().to_canonical(), listen.ip().to_canonical());
    let is_same_port = target.port() == listen.port() && target.port() != 0;
    // A connection to the unspecified address goes to this machine (ip(7)).
    is_same_port
        && (to == on
            || (on.is_unspecified() || to.is_unspecified()) && is_of_this_machine(to) && covers(on, to))
}

/// Whether a socket on `on` may get what is sent to `to`.
fn covers(on: IpAddr, to: IpAddr) -> bool {
    match on {
        IpAddr::V4(on) => to.is_ipv4() && (on.is_unspecified() || on.is_loopback()),
        IpAddr::V6(on) => on.is_unspecified() || on.is_loopback() && to.is_ipv6(),
    }
}

/// Whether an address is this machine's: only then can a socket be bound to it.
fn is_of_this_machine(address: IpAddr) -> bool {
    address.is_unspecified() || address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_is_known() {
        let is_own = |to: &str, on: &str| comes_to(to.parse().unwrap(), on.parse().unwrap());
        for (to, on) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("127.0.0.1:80", "0.0.0.0:80"),
            ("127.0.0.1:80", "[::]:80"),
            ("[::1]:80", "[::]:80"),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("0.0.0.0:80", "0.0.0.0:80"),
        ] {
            assert!(is_own(to, on), "{to} on {on}");
        }
        for (to, on) in [
            ("127.0.0.1:80", "127.0.0.1:81"),
            ("127.0.0.2:80", "127.0.0.1:80"),
            ("192.0.2.1:80", "0.0.0.0:80"),
            ("[::1]:80", "0.0.0.0:80"),
            ("127.0.0.1:0", "127.0.0.1:0"),
        ] {
            assert!(!is_own(to, on), "{to} on {on}");
        }
    }

    #[test]
    fn our_own_connections_are_remembered_for_as_long_as_they_last() {
        let (ours, other) = ("127.0.0.1:65001".parse().unwrap(), "127.0.0.1:65002".parse().unwrap());
        assert!(!may_be_ours(ours));
        listens_on(65001);
        assert!(may_be_ours(ours) && !may_be_ours(other));
        let remembered = remember(ours);
        assert!(is_ourselves(ours) && !is_ourselves(other));
        drop(remembered);
        assert!(!is_ourselves(ours) && !has_any());
    }
}
