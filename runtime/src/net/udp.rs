//! UDP.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::net::{SocketType, sockopt};

use super::connection::{adopt, got, set};
use super::family::Tcp;
use super::group::Member;
use super::op::recv_msg;
use super::socket::{ReadWait, Socket};
use super::{sys, tcp};
use crate::buf::{BufError, IoBuf, Lease};
use crate::core::Core;
use crate::core::ask::ask;
use crate::core::groups::Ask;
use crate::error::os;
use crate::limits::{INT, refuse_above};
use crate::net::op::send::Send;
use crate::net::op::send_to::SendTo;
use crate::place::Place;
use crate::{Error, ErrorKind, Result};

/// A UDP socket of the current core (`udp(7)`). All methods take `&self`.
///
/// Each core that binds the same address gets its own socket of one group, and the kernel spreads datagrams
/// over those that are open, by a hash of both ends' addresses: while no core comes or goes, what one peer
/// sends goes to one core.
///
/// Dropping the socket closes it. Datagrams that were not received are lost, also those that come until the
/// receive has been cancelled.
pub struct UdpSocket {
    socket: Rc<Socket>,
}

/// A received datagram. It derefs to its bytes.
#[derive(Debug)]
pub struct Datagram {
    bytes: Lease,
    source: SocketAddr,
    len: usize,
}

impl Datagram {
    /// The address of its sender.
    pub fn source(&self) -> SocketAddr {
        self.source
    }

    /// Whether its end was cut off, because it was longer than a receive buffer holds, about 8,100 bytes.
    pub fn is_truncated(&self) -> bool {
        self.len > self.bytes.len()
    }

    /// How many bytes it had when it was sent.
    pub fn full_len(&self) -> usize {
        self.len
    }

    /// Its bytes, in the core's node-local memory. They can be sent on from there, or taken to any thread.
    pub fn into_lease(self) -> Lease {
        self.bytes
    }
}

impl Deref for Datagram {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The rest of a buffer that other sockets used may be too short for a datagram, whose end would be lost. So
/// may a buffer that a bundled receive found nothing for: the kernel shortens it in its descriptor to the
/// length that it expected.
fn needs_whole_buffers(core: &Core) -> Result<()> {
    if core.options.incremental_buffers || core.options.bundles {
        let what = "datagrams need whole receive buffers; use UDP on a runtime without incremental_buffers and bundles";
        return Err(Error::new(ErrorKind::Input, what));
    }
    Ok(())
}

impl UdpSocket {
    /// This core's member of the group on `address`. Port 0 gives one real port, the same for all cores.
    ///
    /// Give an address and not a name. The system's resolver would look a name up, which holds the core up,
    /// and only its first address is used.
    ///
    /// # Errors
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) when the address cannot be read, the port is taken, the
    /// address is not this machine's or the port needs a privilege, and on a runtime with [incremental
    /// buffers](crate::Builder::incremental_buffers) or [bundles](crate::Builder::bundles), on any kernel.
    ///
    /// # Panics
    /// On a thread that is no core's.
    pub fn bind(address: impl ToSocketAddrs) -> Result<Self> {
        let place = tcp::first(address)?;
        Core::with(|core| {
            needs_whole_buffers(core)?;
            let (fd, member) = Member::join(core, Ask::Datagram, place)?;
            Ok(Self { socket: Socket::datagram(fd, Some(member)) })
        })
    }

    /// Takes over a UDP socket that was made elsewhere. It is made non-blocking and close-on-exec; its other
    /// options stay as they are.
    ///
    /// # Errors
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) when it is no datagram socket of IPv4 or IPv6.
    /// `socket(7)`: `SO_DOMAIN`, `SO_TYPE`. The same on a runtime with [incremental
    /// buffers](crate::Builder::incremental_buffers) or [bundles](crate::Builder::bundles).
    pub fn from_owned_fd(fd: OwnedFd) -> Result<Self> {
        // Outside of a core there are no buffers to receive into, and the socket cannot move to a core.
        Core::try_with(needs_whole_buffers).unwrap_or(Ok(()))?;
        // The domains are those of TCP.
        adopt::<Tcp>(&fd, SocketType::DGRAM, "UdpSocket")?;
        Ok(Self { socket: Socket::datagram(fd, None) })
    }

    /// Takes over a socket of the standard library; see [`from_owned_fd`](Self::from_owned_fd).
    ///
    /// # Errors
    /// What `ioctl(2)` and `fcntl(2)` say.
    pub fn from_std(socket: std::net::UdpSocket) -> Result<Self> {
        Self::from_owned_fd(socket.into())
    }

    pub(super) fn socket(&self) -> &Rc<Socket> {
        &self.socket
    }

    /// The address that it is bound to, with the real port.
    ///
    /// # Errors
    /// What `getsockname(2)` says.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        Place::of(self.socket.fd())?.ip()
    }

    /// The address that it is connected to.
    ///
    /// # Errors
    /// `ENOTCONN` when it is connected to none.
    pub fn peer_addr(&self) -> Result<SocketAddr> {
        Place::of_peer(self.socket.fd())?.ip()
    }

    /// Sends to, and receives from, `address` only (`connect(2)`). Datagrams that others sent before may
    /// still come. It sends nothing and does not wait.
    ///
    /// # Errors
    /// Those of `connect(2)`: there is no route to the address.
    pub fn connect(&self, address: SocketAddr) -> Result<()> {
        rustix::net::connect(self.socket.fd(), &address)
            .map_err(|e| Error::io(format!("cannot connect to {address}"), os(e)))
    }

    /// Receives the next datagram.
    ///
    /// The first call arms a multishot receive that stays armed (Linux 6.0). When eight datagrams wait to be
    /// taken at the end of a tick it is switched off until they are taken. The kernel's queue
    /// ([`set_recv_buffer_size`](Self::set_recv_buffer_size)) holds datagrams that come meanwhile, and drops
    /// those that do not fit; [`dropped`](Self::dropped) counts them. If several tasks wait, each
    /// datagram wakes all of them, in the order in which they came, and one gets it.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io). An error is reported once and receiving goes on: on a
    /// connected socket, for example, that nobody listens at the peer's port (`ECONNREFUSED`, `udp(7)`).
    ///
    /// # Cancellation
    /// Safe: no datagram is lost. A datagram that came waits for the next call.
    pub async fn recv(&self) -> Result<Datagram> {
        let failed = |e| Error::io("receive failed", e);
        let mut wait = ReadWait::new(&self.socket);
        let lease = poll_fn(|cx| Core::with(|core| wait.poll_recv(core, cx))).await.map_err(failed)?;
        match lease.map(recv_msg::unwrap) {
            Some((bytes, Some(source), len)) => Ok(Datagram { bytes, source, len }),
            _ => Err(failed(io::Error::other("a datagram without its sender's address"))),
        }
    }

    /// Sends `buf` as one datagram to `address` and gives it back. Sends of several tasks do not disturb each
    /// other. It waits while the socket's send buffer is full. `sendmsg(2)`, Linux 5.3.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason; the buffer comes back with it.
    /// `EMSGSIZE`: longer than 65,507 bytes, or than the path allows. `EACCES`: a broadcast address without
    /// [`set_broadcast`](Self::set_broadcast).
    ///
    /// # Cancellation
    /// The datagram has been sent whole, or not at all. The buffer is dropped when the kernel no longer uses
    /// it.
    pub async fn send_to<B: IoBuf>(&self, buf: B, address: SocketAddr) -> Result<B, BufError<B>> {
        sent(ask(SendTo::new(Rc::clone(&self.socket), buf, address)).await)
    }

    /// Sends `buf` as one datagram to the address that the socket is [connected](Self::connect) to.
    /// `send(2)`, Linux 5.6.
    ///
    /// # Errors
    /// As for [`send_to`](Self::send_to). `EDESTADDRREQ`: it is not connected. `ECONNREFUSED`: an earlier
    /// datagram found nobody; this one has not left.
    ///
    /// # Cancellation
    /// As for [`send_to`](Self::send_to).
    pub async fn send<B: IoBuf>(&self, buf: B) -> Result<B, BufError<B>> {
        sent(ask(Send { socket: Rc::clone(&self.socket), buf, from: 0, flags: 0 }).await)
    }

    /// How many datagrams the kernel has discarded because its queue for this socket was full (`SO_MEMINFO`,
    /// Linux 4.12). The count has 32 bits and wraps round.
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    pub fn dropped(&self) -> Result<u32> {
        sys::dropped_datagrams(self.socket.fd()).map_err(|e| Error::io("cannot read SO_MEMINFO", e))
    }

    /// Whether datagrams may be sent to broadcast addresses (`SO_BROADCAST`, `socket(7)`). Off by default.
    ///
    /// # Errors
    /// What `setsockopt(2)` says.
    pub fn set_broadcast(&self, broadcast: bool) -> Result<()> {
        set("SO_BROADCAST", sockopt::set_socket_broadcast(self.socket.fd(), broadcast))
    }

    /// Bytes that the kernel keeps for this socket until they are received (`SO_RCVBUF`, `socket(7)`). They
    /// include the kernel's own needs, so it is twice what was asked for.
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    pub fn recv_buffer_size(&self) -> Result<usize> {
        got("SO_RCVBUF", sockopt::socket_recv_buffer_size(self.socket.fd()))
    }

    /// Asks for a receive queue of this many bytes (`SO_RCVBUF`, `socket(7)`): the kernel doubles it and
    /// bounds it by `net.core.rmem_max`. A small datagram takes some 800 bytes of it.
    ///
    /// # Errors
    /// What `setsockopt(2)` says; [`ErrorKind::Input`](crate::ErrorKind::Input) for more than 2^31 - 1 bytes.
    pub fn set_recv_buffer_size(&self, bytes: usize) -> Result<()> {
        refuse_above(INT, "a receive buffer", bytes as u64)?;
        set("SO_RCVBUF", sockopt::set_socket_recv_buffer_size(self.socket.fd(), bytes))
    }

    /// Asks for a send buffer of this many bytes (`SO_SNDBUF`, `socket(7)`): the kernel doubles it and bounds
    /// it by `net.core.wmem_max`.
    ///
    /// # Errors
    /// What `setsockopt(2)` says; [`ErrorKind::Input`](crate::ErrorKind::Input) for more than 2^31 - 1 bytes.
    pub fn set_send_buffer_size(&self, bytes: usize) -> Result<()> {
        refuse_above(INT, "a send buffer", bytes as u64)?;
        set("SO_SNDBUF", sockopt::set_socket_send_buffer_size(self.socket.fd(), bytes))
    }
}

fn sent<B: IoBuf>((result, buf): (io::Result<usize>, B)) -> Result<B, BufError<B>> {
    match result {
        Ok(n) => {
            Core::with(|core| core.shared.counters.send_bytes.add(n as u64));
            Ok(buf)
        }
        Err(e) => Err(BufError::io("send failed", e, buf)),
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.fd()
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket").field("fd", &self.socket.fd()).finish_non_exhaustive()
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.socket.leave_group();
        self.socket.stop_receiving();
    }
}
