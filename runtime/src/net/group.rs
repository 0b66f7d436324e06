//! The sockets of a runtime that share one address. The cores find each other's by themselves.
//!
//! **IP.** Each core has a socket of its own. The first to ask for an address binds without `SO_REUSEPORT`,
//! so that a used port is refused (also when another Annulus holds it, or is about to) and port 0 becomes one
//! real port; then it sets `SO_REUSEPORT`, which lets the others join. The kernel spreads connections and
//! datagrams over them by a hash of the addresses (`socket(7)`).
//!
//! **Unix.** The kernel knows no such group: the first core binds, and the others get a descriptor of the
//! same open socket. When the last listener on it is dropped, the file of a path is taken away at once. An
//! abstract name is the socket's own (`unix(7)`): it is free when the last descriptor is closed, so one more
//! tick of the cores that had an accept armed later.
//!
//! Sockets are matched by order: a core's n-th socket on an address is in one group with every other core's
//! n-th.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::net::{SocketFlags, SocketType, bind, ipproto, listen, socket_with, sockopt};

use super::listen_options::ListenOptions;
use crate::core::Core;
use crate::core::groups::{Ask, Group, Table};
use crate::core::state::RuntimeShared;
use crate::core::unix_path::{Bound, Ended, tell_replaced};
use crate::error::os;
use crate::numa::CpuId;
use crate::place::Place;
use crate::{Error, ErrorKind, Result};

/// A core's membership in a group. Dropped after its socket has been closed.
pub(super) struct Member {
    runtime: Arc<RuntimeShared>,
    core: usize,
    /// The number of its group. A Unix group may be gone while this is still held, and another one may have
    /// its address.
    group: u64,
    /// Its address, with the real port.
    pub(super) bound: Place,
    /// Whether its socket is open on other cores as well.
    pub(super) is_shared: bool,
    /// Whether it has left the group.
    left: Cell<bool>,
}

impl Member {
    /// Joins the group for `requested` as the current core's member.
    pub(super) fn join(core: &Core, ask: Ask, requested: Place) -> Result<(OwnedFd, Self)> {
        let runtime = Arc::clone(&core.shared.runtime);
        let (core, cores) = (core.shared.index, runtime.cores());
        // Declared before the lock: what ends here after an error ends when the lock is free, because its end
        // may run foreign code.
        let (mut one, mut was_replaced) = (None, false);
        let mut table = runtime.groups.lock();
        let Table { groups, next } = &mut *table;
        let known =
            groups.iter_mut().find(|g| g.ask.is_like(&ask) && g.requested == requested && !g.members[core]);
        let (socket, bound, group) = match known {
            Some(group) => {
                let socket = match &group.one {
                    Some(one) => one.duplicate(),
                    None => open(&group.bound, &ask, true),
                };
                let socket = socket.map_err(|e| refused(&requested, &ask, e))?;
                group.members[core] = true;
                group.sockets += 1;
                (socket, group.bound.clone(), group.id)
            }
            None => {
                let refused = |e| refused(&requested, &ask, e);
                let socket = match (&requested, &ask) {
                    (Place::Ip(_), _) => open(&requested, &ask, false).map_err(refused)?,
                    (_, Ask::Datagram) => return Err(refused(io::ErrorKind::Unsupported.into())),
                    (_, Ask::Stream { backlog, .. }) => {
                        let (made, replaced) = Bound::new(&requested, *backlog)?;
                        was_replaced = replaced;
                        one.insert(made).duplicate().map_err(refused)?
                    }
                };
                let bound = Place::of(&socket)?;
                let mut members = vec![false; cores];
                members[core] = true;
                let id = *next;
                *next += 1;
                let one = one.take();
                groups.push(Group { id, ask, requested, bound: bound.clone(), members, sockets: 1, one });
                (socket, bound, id)
            }
        };
        drop(table);
        if was_replaced {
            tell_replaced(&bound);
        }
        let is_shared = cores > 1 && !matches!(bound, Place::Ip(_));
        Ok((socket, Self { runtime, core, group, bound, is_shared, left: Cell::new(false) }))
    }

    /// Calls `f` with the group, if it is still there. The group ends if `f` says so.
    fn with_group(&self, f: impl FnOnce(&mut Group) -> bool) {
        let mut table = self.runtime.groups.lock();
        let groups = &mut table.groups;
        let Some(at) = groups.iter().position(|group| group.id == self.group) else { return };
        if !f(&mut groups[at]) {
            return;
        }
        // Its socket ends while the table is locked, so that a bind of the same address comes after it. The
        // log is told when it is not.
        let ended = groups.swap_remove(at).one.map(Bound::end);
        drop(table);
        ended.into_iter().for_each(Ended::tell);
    }

    /// Whether its address is no IP address, so that all cores share one socket.
    pub(super) fn is_unix(&self) -> bool {
        !matches!(self.bound, Place::Ip(_))
    }

    /// Leaves the group. Its socket may still be open, so it could join again.
    pub(super) fn leave(&self) {
        if self.left.replace(true) {
            return;
        }
        self.with_group(|group| {
            group.members[self.core] = false;
            // A shared group ends with the last member that uses it, so a later bind makes a new socket.
            group.one.is_some() && group.members.iter().all(|member| !member)
        });
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // If no socket was made, nobody has left for it.
        self.leave();
        // When the last socket is closed the address is free for others.
        self.with_group(|group| {
            group.sockets -= 1;
            group.sockets == 0
        });
    }
}

/// Opens a socket on an IP address: the first of its group, or one that joins it.
fn open(place: &Place, ask: &Ask, joins: bool) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let any = place.to_any().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e.to_string()))?;
    let (kind, protocol) = match ask {
        Ask::Stream { .. } => (SocketType::STREAM, ipproto::TCP),
        Ask::Datagram => (SocketType::DGRAM, ipproto::UDP),
    };
    let socket = socket_with(place.family(), kind, flags, Some(protocol)).map_err(os)?;
    if let Ask::Stream { only_v6, .. } = ask {
        if let Place::Ip(SocketAddr::V6(_)) = place {
            sockopt::set_ipv6_v6only(&socket, *only_v6).map_err(os)?;
        }
        // With it a restart does not wait for the last run's connections to leave TIME_WAIT. A port with a
        // listening socket is still refused. For datagrams it would let a second program take the port.
        sockopt::set_socket_reuseaddr(&socket, true).map_err(os)?;
        // Accepted sockets inherit it, which saves a system call for each.
        sockopt::set_tcp_nodelay(&socket, true).map_err(os)?;
    }
    if joins {
        sockopt::set_socket_reuseport(&socket, true).map_err(os)?;
    }
    bind(&socket, &any).map_err(os)?;
    if let Ask::Stream { backlog, .. } = ask {
        // The first listens before it shares: with SO_REUSEADDR two processes may both be bound, and only one
        // may listen.
        listen(&socket, *backlog).map_err(os)?;
    }
    if !joins {
        sockopt::set_socket_reuseport(&socket, true).map_err(os)?;
    }
    Ok(socket)
}

/// Listening sockets on one address, one for each of `cpus`, for processes that serve it together: each takes
/// its own over by [`TcpListener::from_owned_fd`](super::TcpListener::from_owned_fd), and says that it is
/// [`sole`](super::Listener::sole). They listen when this returns, and the kernel spreads connections over
/// them as over those of one runtime. Port 0 gives one real port; a port that another program has is refused.
/// They are close-on-exec: clear that in those that a child process shall have.
///
/// # Errors
/// As for [`TcpListener::bind`](super::TcpListener::bind).
pub fn listening_sockets(
    address: SocketAddr,
    options: &ListenOptions,
    cpus: &[CpuId],
) -> Result<Vec<OwnedFd>> {
    let ask = options.ask();
    let mut place = Place::Ip(address);
    let mut sockets = Vec::with_capacity(cpus.len());
    for &cpu in cpus {
        let socket = open(&place, &ask, !sockets.is_empty()).map_err(|e| refused(&place, &ask, e))?;
        options.steer(socket.as_fd(), &place, cpu)?;
        place = Place::of(&socket)?;
        sockets.push(socket);
    }
    Ok(sockets)
}

/// UDP sockets on one address, `count` of them, for cores or processes that serve it together: each takes its
/// own over by [`UdpSocket::from_owned_fd`](super::UdpSocket::from_owned_fd). The kernel spreads datagrams
/// over all that are open, by a hash of both ends' addresses. Port 0 gives one real port; a port that another
/// program has is refused. They are close-on-exec.
///
/// # Errors
/// As for [`UdpSocket::bind`](super::UdpSocket::bind).
pub fn datagram_sockets(address: SocketAddr, count: usize) -> Result<Vec<OwnedFd>> {
    let mut place = Place::Ip(address);
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = open(&place, &Ask::Datagram, !sockets.is_empty());
        let socket = socket.map_err(|e| refused(&place, &Ask::Datagram, e))?;
        place = Place::of(&socket)?;
        sockets.push(socket);
    }
    Ok(sockets)
}

fn refused(place: &Place, ask: &Ask, e: io::Error) -> Error {
    let what = match ask {
        Ask::Stream { .. } => "listen on",
        Ask::Datagram => "receive on",
    };
    let remedy = match e.raw_os_error() {
        Some(libc::EADDRINUSE) => "something has that port already; stop it or choose another",
        Some(libc::EADDRNOTAVAIL) => "this machine has no such address; choose one that `ip address` shows",
        Some(libc::EACCES) => "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one or grant it",
        _ => return Error::io(format!("cannot {what} {place}"), e),
    };
    Error::with_source(ErrorKind::Input, format!("cannot {what} {place} ({remedy})"), e)
}
