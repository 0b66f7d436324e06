//! Sockets as every server here wants them: non-blocking, closed on exec, without Nagle's delay.

use super::ring::named;
use rustix::fd::{AsFd, OwnedFd};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use std::io;
use std::net::{SocketAddr, TcpListener};

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

fn stream_socket(address: &SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket =
        net::socket_with(family, SocketType::STREAM, FLAGS, None).map_err(|e| named("socket", e.into()))?;
    // Accepted sockets inherit it from the listener.
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(socket)
}

/// Listens on `address`; port 0 lets the kernel choose. Returns the socket and the address in force.
///
/// # Errors
/// The address cannot be bound; the text names it.
pub fn listen(address: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    let socket = stream_socket(&address)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &address).map_err(|e| named(&format!("bind {address}"), e.into()))?;
    net::listen(&socket, 4096).map_err(|e| named(&format!("listen on {address}"), e.into()))?;
    let listener = TcpListener::from(socket);
    let bound = listener.local_addr()?;
    Ok((listener.into(), bound))
}

/// Begins to connect. Once the socket can be written to, [`connect_result`] says how it went.
///
/// # Errors
/// It failed at once.
pub fn connect_start(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = stream_socket(&address)?;
    match net::connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(e) => Err(named(&format!("connect to {address}"), e.into())),
    }
}

/// How the connect that [`connect_start`] began has ended.
///
/// # Errors
/// The peer refused, or could not be reached.
pub fn connect_result(socket: impl AsFd) -> io::Result<()> {
    Ok(sockopt::socket_error(socket)??)
}
