//! Sockets of a program whose place this one takes, shared out over the cores that there are now.

use std::io;
use std::os::fd::OwnedFd;

/// The sockets of an endpoint of the program that ran before.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// The address, as it was written.
    pub(crate) address: String,
    /// Whether `[::]` leaves IPv4 to another listener.
    pub(crate) only_v6: bool,
    /// All sockets of the endpoint.
    pub(crate) sockets: Vec<OwnedFd>,
}

/// Sockets for the cores, one each.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) sockets: Vec<OwnedFd>,
    /// How many, from the first on, are different sockets. The others are more descriptors of these.
    pub(super) own: usize,
}

/// Gives each core a socket. If the program before had fewer cores, some cores share a socket. If it had
/// more, there are several parts, and each core accepts from one socket of each part: connections in the
/// backlog of a socket that nobody accepts from would be reset.
///
/// # Errors
/// No descriptor is left.
pub(super) fn share_out(sockets: Vec<OwnedFd>, cores: usize) -> io::Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut left = sockets.into_iter().peekable();
    while left.peek().is_some() {
        let mut sockets: Vec<OwnedFd> = left.by_ref().take(cores).collect();
        let own = sockets.len();
        while sockets.len() < cores {
            sockets.push(sockets[sockets.len() % own].try_clone()?);
        }
        parts.push(Part { sockets, own });
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};

    use super::*;

    fn ports(sockets: &[OwnedFd]) -> Vec<SocketAddr> {
        let address = |socket: &OwnedFd| TcpListener::from(socket.try_clone().unwrap()).local_addr().unwrap();
        sockets.iter().map(address).collect()
    }

    /// Seen to fail: with the sockets that are more than the cores left out.
    #[test]
    fn no_socket_is_left_out_and_no_core() {
        for (sockets, cores) in [(1, 1), (2, 2), (1, 3), (2, 5), (5, 2), (4, 3)] {
            let own: Vec<OwnedFd> =
                (0..sockets).map(|_| TcpListener::bind("127.0.0.1:0").unwrap().into()).collect();
            let mut wanted = ports(&own);
            let parts = share_out(own, cores).unwrap();
            assert!(parts.iter().all(|part| part.sockets.len() == cores), "{sockets} on {cores}");
            let mut there: Vec<_> = parts.iter().flat_map(|part| ports(&part.sockets)).collect();
            for part in &parts {
                let mut of_part = ports(&part.sockets);
                of_part.sort();
                of_part.dedup();
                assert_eq!(part.own, of_part.len(), "{sockets} on {cores}");
            }
            wanted.sort();
            there.sort();
            there.dedup();
            assert_eq!(there, wanted, "{sockets} on {cores}");
        }
    }
}
