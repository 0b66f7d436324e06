//! The listener group: one listening socket for each core, all on one address, found by the cores themselves.
//!
//! The first core to ask for an address binds and listens without `SO_REUSEPORT`, so that a used port is refused (also when
//! another Annulus holds it, or is about to) and port 0 becomes one real port; then it sets `SO_REUSEPORT`, which lets the
//! others join. The
//! kernel spreads connections over the sockets that listen, by a hash of the addresses (`socket(7)`).
//!
//! Ports are matched by order: a core's n-th listener on an address belongs with every other core's n-th.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with, sockopt};

use super::stream::local_addr;
use crate::error::os;
use crate::{Error, ErrorKind, Result};

/// Connections that may wait to be accepted on each core's socket; `net.core.somaxconn` bounds it (4096 by default).
pub(super) const BACKLOG: i32 = 4096;

struct Group {
    requested: SocketAddr,
    bound: SocketAddr,
    /// Which cores have a listener of it.
    listening: Vec<bool>,
    /// Its sockets that are still open: a dropped listener's closes with the last word of its accept.
    sockets: usize,
}

/// All groups of a runtime.
#[derive(Default)]
pub(crate) struct Groups(Mutex<Vec<Group>>);

impl Groups {
    /// Core `core` of `cores` takes its member of the group for `requested`: a socket that listens.
    pub(crate) fn join(
        &self,
        requested: SocketAddr,
        core: usize,
        cores: usize,
    ) -> Result<(OwnedFd, SocketAddr)> {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let group = groups.iter_mut().find(|g| g.requested == requested && !g.listening[core]);
        let refused = |e| refused(requested, e);
        if let Some(group) = group {
            let socket = open(requested).map_err(refused)?;
            sockopt::set_socket_reuseport(&socket, true).map_err(os).map_err(refused)?;
            bind(&socket, &group.bound).map_err(os).map_err(refused)?;
            listen(&socket, BACKLOG).map_err(os).map_err(refused)?;
            group.listening[core] = true;
            group.sockets += 1;
            return Ok((socket, group.bound));
        }
        let socket = open(requested).map_err(refused)?;
        bind(&socket, &requested).map_err(os).map_err(refused)?;
        // It listens before it shares: with SO_REUSEADDR two processes may both be bound, and only one of them may listen.
        listen(&socket, BACKLOG).map_err(os).map_err(refused)?;
        sockopt::set_socket_reuseport(&socket, true).map_err(os).map_err(refused)?;
        let bound = local_addr(socket.as_fd())?;
        let mut listening = vec![false; cores];
        listening[core] = true;
        groups.push(Group { requested, bound, listening, sockets: 1 });
        Ok((socket, bound))
    }

    /// Core `core` listens no more. Its socket may still be open, so it could join again.
    pub(crate) fn leave(&self, requested: SocketAddr, bound: SocketAddr, core: usize) {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = groups.iter_mut().find(|g| g.requested == requested && g.bound == bound) {
            group.listening[core] = false;
        }
    }

    /// A socket of the group has been closed. With the last one the address is free for others.
    pub(crate) fn closed(&self, requested: SocketAddr, bound: SocketAddr) {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = groups.iter_mut().find(|g| g.requested == requested && g.bound == bound) {
            group.sockets -= 1;
        }
        groups.retain(|g| g.sockets > 0);
    }
}

fn open(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP)).map_err(os)?;
    // A restart must not wait for the last run's connections to leave TIME_WAIT; a listening socket is still refused.
    sockopt::set_socket_reuseaddr(&socket, true).map_err(os)?;
    // Accepted sockets inherit it, which saves a system call for each.
    sockopt::set_tcp_nodelay(&socket, true).map_err(os)?;
    Ok(socket)
}

fn refused(address: SocketAddr, e: io::Error) -> Error {
    let remedy = match e.raw_os_error() {
        Some(libc::EADDRINUSE) => "something listens there already; stop it or choose another port",
        Some(libc::EADDRNOTAVAIL) => "this machine has no such address; choose one that `ip address` shows",
        Some(libc::EACCES) => "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one or grant it",
        _ => return Error::io(format!("cannot listen on {address}"), e),
    };
    Error::with_source(ErrorKind::Input, format!("cannot listen on {address} ({remedy})"), e)
}
