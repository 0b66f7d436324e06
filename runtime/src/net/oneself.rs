//! A connection must not meet itself: TCP lets the two ends of one socket meet (simultaneous open, RFC 9293
//! section 3.5), and whoever sends would receive its own bytes.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use rustix::net::{getpeername, getsockname};

use super::sys;
use crate::{Error, Result};

/// Whether a connection from `from` to `address` may meet itself: both ends have one port, which was asked
/// for or which the kernel may choose. Where it may not, [`refuse`] would be a call for nothing.
pub(super) fn may_be(from: Option<SocketAddr>, address: SocketAddr) -> bool {
    meets(from, address, chosen_ports())
}

fn meets(from: Option<SocketAddr>, address: SocketAddr, chosen: &RangeInclusive<u16>) -> bool {
    match from {
        Some(from) if from.port() != 0 => from.port() == address.port(),
        _ => chosen.contains(&address.port()),
    }
}

/// The ports that the kernel chooses from (`ip_local_port_range`, `ip(7)`), as they are when they are first
/// asked for; all of them where that cannot be read.
fn chosen_ports() -> &'static RangeInclusive<u16> {
    static PORTS: OnceLock<RangeInclusive<u16>> = OnceLock::new();
    PORTS.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        text.ok().as_deref().and_then(range).unwrap_or(0..=u16::MAX)
    })
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    Some(first.parse().ok()?..=last.trim().parse().ok()?)
}

/// Refuses a connection to `address` whose two ends are one.
pub(super) fn refuse(socket: &OwnedFd, address: SocketAddr) -> Result<()> {
    // A socket whose connection has gone already has no address; its next use reports that.
    let Ok(local) = getsockname(socket).and_then(SocketAddr::try_from) else { return Ok(()) };
    if local.port() != address.port() {
        return Ok(());
    }
    // The peer's address is compared and not `address`, because connecting to 0.0.0.0 leads to a loopback
    // address.
    match getpeername(socket).map(|peer| peer.map(SocketAddr::try_from)) {
        Ok(Some(Ok(peer))) if peer == local => {}
        _ => return Ok(()),
    }
    let what =
        format!("cannot connect to {address}: nobody listens there, and the connection has met itself");
    let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
    // A close would leave the port in TIME-WAIT, and a program that wants to listen there could not.
    let error = match sys::disconnect(socket.as_fd()) {
        Ok(()) => refused,
        Err(e) => e,
    };
    Err(Error::io(what, error))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Seen to fail: with the port of `from` left out of it.
    #[test]
    fn only_a_connection_with_one_port_may_meet_itself() {
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let chosen = range("32768\t60999\n").unwrap();
        for (from, to, may) in [
            (None, 32_767, false),
            (None, 32_768, true),
            (Some(0), 60_999, true),
            (Some(0), 61_000, false),
            (Some(80), 80, true),
            (Some(80), 40_000, false),
        ] {
            assert_eq!(meets(from.map(address), address(to), &chosen), may, "{from:?} to {to}");
        }
        for wrong in ["", "1", "1 70000", "a b"] {
            assert_eq!(range(wrong), None, "{wrong}");
        }
    }
}
