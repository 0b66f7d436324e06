//! TCP connections: how they are made, and the options that only they have (`tcp(7)`).

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{SocketFlags, SocketType, bind, ipproto, socket_with, sockopt};

use super::connection::{Connection, got, set};
use super::eyeballs::first_to_answer;
use super::family::{Both, Reader, Side, Tcp, Writer};
use super::listen_options::ListenOptions;
use super::listener::Listener;
use super::names::{Target, ToTarget, addresses_of};
use super::op::connect::Connect;
use super::{oneself, sys};
use crate::core::ask::ask;
use crate::error::os;
use crate::limits::{Unit, in_units, refuse_outside};
use crate::place::Place;
use crate::{Error, ErrorKind, Result};

/// A TCP connection of the current core. Its options are here; all else that it can do is described at
/// [`Connection`].
///
/// `TCP_NODELAY` is on for connections that Annulus connects or accepts: bytes leave when they are sent, so
/// bytes that belong together should be sent together ([`send_all_more`](Connection::send_all_more)).
pub type TcpStream<S = Both> = Connection<Tcp, S>;

/// The half of a [`TcpStream`] that receives.
pub type TcpReadHalf = TcpStream<Reader>;

/// The half of a [`TcpStream`] that sends.
pub type TcpWriteHalf = TcpStream<Writer>;

/// `MAX_TCP_KEEPIDLE` and `MAX_TCP_KEEPINTVL` of the kernel (include/net/tcp.h).
const KEEPALIVE_SECONDS: RangeInclusive<u32> = 1..=32_767;
/// Up to `MAX_TCP_KEEPCNT`.
const KEEPALIVE_COUNT: RangeInclusive<u32> = 1..=127;

/// When the kernel asks a silent peer whether it is still there (`tcp(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keepalive {
    /// Silence before the first question (`TCP_KEEPIDLE`), in whole seconds, 1 to 32,767.
    pub time: Duration,
    /// Between two questions (`TCP_KEEPINTVL`), in whole seconds, 1 to 32,767.
    pub interval: Duration,
    /// Questions without an answer after which the connection is given up (`TCP_KEEPCNT`), 1 to 127.
    pub count: u32,
}

impl Keepalive {
    /// A keepalive with these times and so many questions, in the ranges that the fields name.
    pub const fn new(time: Duration, interval: Duration, count: u32) -> Self {
        Self { time, interval, count }
    }
}

impl TcpStream {
    /// Connects to an address, or to a host by its name: `"localhost:80"`, `("localhost", 80)`. Linux 5.5
    /// (`connect(2)`).
    ///
    /// A name is looked up by [`lookup_host`](super::lookup_host). Of several addresses the first that
    /// answers is taken: IPv6 and IPv4 in turn, the next 250 ms after the one before, or at once when that
    /// has failed (RFC 8305). A [`timeout`](crate::time::timeout) around it bounds all of this.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] for a text that is no `host:port`, and those of
    /// [`lookup_host`](super::lookup_host). Of several addresses the error of the first that failed.
    ///
    /// [`ErrorKind::Io`] with the system's reason (`ECONNREFUSED`, `ETIMEDOUT`, ...) and the address. It is
    /// also `ECONNREFUSED` when the port is this machine's, nobody listens on it, and the kernel has chosen
    /// the same port for this end: the connection would be one with itself (simultaneous open, RFC 9293
    /// section 3.5), which returns all that is sent.
    ///
    /// # Cancellation
    /// Safe: a connection that is made after the future was dropped is closed.
    pub async fn connect(to: impl ToTarget) -> Result<Self> {
        match to.to_target()? {
            Target::Address(address) => connect(None, address).await,
            // It is boxed, because few connect by name, and every future that connects would become as large
            // as this one.
            Target::Name { host, port } => Box::pin(connect_by_name(host, port)).await,
        }
    }

    /// Connects to `address` from the local address `from`; with port 0 the kernel chooses a port when it
    /// knows both ends (`IP_BIND_ADDRESS_NO_PORT`, `ip(7)`), so that one local port may be used for many
    /// destinations. Linux 5.5.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when `from` is not this machine's, is in use, or needs a privilege; else as for
    /// [`connect`](Self::connect).
    ///
    /// # Cancellation
    /// As for [`connect`](Self::connect).
    pub async fn connect_from(from: SocketAddr, address: SocketAddr) -> Result<Self> {
        connect(Some((from, false)), address).await
    }

    /// Connects as [`connect_from`](Self::connect_from) does, from an address that need not be this
    /// machine's, such as the address of a client of a proxy (`IP_TRANSPARENT`, `ip(7)`; `IPV6_TRANSPARENT`).
    /// It needs `CAP_NET_ADMIN` or `CAP_NET_RAW`, and routes that bring the answers back to this machine.
    ///
    /// # Errors
    /// As for [`connect_from`](Self::connect_from); [`ErrorKind::Io`] with `EPERM` without the privilege.
    ///
    /// # Cancellation
    /// As for [`connect`](Self::connect).
    pub async fn connect_transparent(from: SocketAddr, address: SocketAddr) -> Result<Self> {
        connect(Some((from, true)), address).await
    }

    /// Takes over a connection of the standard library. It is made non-blocking; its other options stay as
    /// they are.
    ///
    /// # Errors
    /// What `ioctl(2)` and `fcntl(2)` say.
    pub fn from_std(stream: std::net::TcpStream) -> Result<Self> {
        Self::from_owned_fd(stream.into())
    }
}

async fn connect_by_name(host: String, port: u16) -> Result<TcpStream> {
    let addresses = addresses_of(host.clone(), port).await?;
    first_to_answer(addresses, |address| connect(None, address)).await.map_err(|e| {
        match e.io_error().and_then(io::Error::raw_os_error) {
            Some(errno) => {
                Error::io(format!("cannot connect to {host}:{port}"), io::Error::from_raw_os_error(errno))
            }
            None => e,
        }
    })
}

async fn connect(from: Option<(SocketAddr, bool)>, address: SocketAddr) -> Result<TcpStream> {
    let failed = |e| Error::io(format!("cannot connect to {address}"), e);
    let place = Place::Ip(address);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    #[cfg(all(any(test, feature = "played"), not(loom)))]
    crate::ring::played::descriptor().map_err(failed)?;
    let socket = socket_with(place.family(), SocketType::STREAM, flags, Some(ipproto::TCP));
    let socket = socket.map_err(os).map_err(failed)?;
    sockopt::set_tcp_nodelay(&socket, true).map_err(os).map_err(failed)?;
    if let Some((from, is_transparent)) = from {
        if is_transparent {
            let (level, option) = match from {
                SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
                SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
            };
            sys::set_flag(&socket, level, option, true)
                .map_err(|e| Error::io("cannot connect from an address of another machine", e))?;
        }
        bind_to(&socket, from)?;
    }
    // Asked before, so that the future need not keep `from`.
    let may_be_itself = oneself::may_be(from.map(|(from, _)| from), address);
    let socket = ask(Connect::new(socket, place.to_any()?)).await.map_err(failed)?;
    if may_be_itself {
        oneself::refuse(&socket, address)?;
    }
    Ok(TcpStream::from_fd(socket))
}

fn bind_to(socket: &OwnedFd, from: SocketAddr) -> Result<()> {
    if from.port() == 0 {
        // The option lies at the same place for IPv6 (ipv6(7): the IPv4 options hold there too).
        sys::set_flag(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, true)
            .map_err(|e| Error::io("cannot set IP_BIND_ADDRESS_NO_PORT", e))?;
    }
    bind(socket, &from).map_err(|e| {
        let what =
            format!("cannot connect from {from}: choose an address that `ip address` shows, and a free port");
        Error::with_source(ErrorKind::Input, what, os(e))
    })
}

impl<S: Side> TcpStream<S> {
    /// The address at the other end.
    ///
    /// # Errors
    /// `ENOTCONN` when the connection has gone already.
    pub fn peer_addr(&self) -> Result<SocketAddr> {
        self.peer_place()?.ip()
    }

    /// The address at this end.
    ///
    /// # Errors
    /// What `getsockname(2)` says.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.place()?.ip()
    }

    /// Switches `TCP_NODELAY` (`tcp(7)`): whether a short segment leaves although an earlier one is not
    /// acknowledged.
    ///
    /// # Errors
    /// What `setsockopt(2)` says.
    pub fn set_nodelay(&self, nodelay: bool) -> Result<()> {
        set("TCP_NODELAY", sockopt::set_tcp_nodelay(self.socket().fd(), nodelay))
    }

    /// Whether `TCP_NODELAY` is on.
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    pub fn nodelay(&self) -> Result<bool> {
        got("TCP_NODELAY", sockopt::tcp_nodelay(self.socket().fd()))
    }

    /// Lets the kernel ask a silent peer whether it is still there; `None` ends that. If the peer has gone, a
    /// receive fails with `ETIMEDOUT`. `socket(7)`, `SO_KEEPALIVE`.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] for a value out of its range, and for a time that is not in whole seconds:
    /// nothing is set then. Else what `setsockopt(2)` says.
    pub fn set_keepalive(&self, keepalive: Option<Keepalive>) -> Result<()> {
        let fd = self.socket().fd();
        if let Some(Keepalive { time, interval, count }) = keepalive {
            in_units(Unit::Seconds, KEEPALIVE_SECONDS, "a keepalive time", time)?;
            in_units(Unit::Seconds, KEEPALIVE_SECONDS, "a keepalive interval", interval)?;
            refuse_outside(KEEPALIVE_COUNT, "a keepalive count", count)?;
            set("TCP_KEEPINTVL", sockopt::set_tcp_keepintvl(fd, interval))?;
            set("TCP_KEEPCNT", sockopt::set_tcp_keepcnt(fd, count))?;
            set("SO_KEEPALIVE", sockopt::set_socket_keepalive(fd, true))?;
            // Last: only where keepalive is on does the kernel count from the last byte that came, and not
            // from now (`tcp_sock_set_keepidle_locked()` in net/ipv4/tcp.c).
            return set("TCP_KEEPIDLE", sockopt::set_tcp_keepidle(fd, time));
        }
        set("SO_KEEPALIVE", sockopt::set_socket_keepalive(fd, false))
    }

    /// How the kernel asks a silent peer; `None` when it does not.
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    pub fn keepalive(&self) -> Result<Option<Keepalive>> {
        let fd = self.socket().fd();
        if !got("SO_KEEPALIVE", sockopt::socket_keepalive(fd))? {
            return Ok(None);
        }
        Ok(Some(Keepalive {
            time: got("TCP_KEEPIDLE", sockopt::tcp_keepidle(fd))?,
            interval: got("TCP_KEEPINTVL", sockopt::tcp_keepintvl(fd))?,
            count: got("TCP_KEEPCNT", sockopt::tcp_keepcnt(fd))?,
        }))
    }

    /// What closing does with bytes that have not left (`SO_LINGER`, `socket(7)`). With `None`, the default,
    /// they are sent in the background. With zero they are discarded and the peer sees a reset. With a longer
    /// time the close waits as long for them; it is made by a thread for [blocking
    /// work](crate::spawn_blocking), one of [a limited number](crate::Builder::blocking_threads), so the core
    /// does not wait. In whole seconds.
    ///
    /// Each such close may keep one of these threads for so long, and other blocking work waits when there
    /// are no more. Where no thread can be started, the close is made on the core, which waits.
    ///
    /// This holds if the option is set here, or before the descriptor is taken over. If it is set by other
    /// means, closing the connection holds the core up.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] for a time that is not in whole seconds, or longer than 2^31 - 1 of them; what
    /// `setsockopt(2)` says.
    pub fn set_linger(&self, linger: Option<Duration>) -> Result<()> {
        if let Some(time) = linger {
            in_units(Unit::Seconds, 0..=i32::MAX as u32, "a time to linger", time)?;
        }
        set("SO_LINGER", sockopt::set_socket_linger(self.socket().fd(), linger))?;
        self.socket().set_lingers(linger.is_some_and(|time| !time.is_zero()));
        Ok(())
    }

    /// What closing does with bytes that have not left.
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    pub fn linger(&self) -> Result<Option<Duration>> {
        got("SO_LINGER", sockopt::socket_linger(self.socket().fd()))
    }

    /// Acknowledges at once (`true`) or with the next bytes sent (`TCP_QUICKACK`, `tcp(7)`). The setting does
    /// not last: the kernel returns to its own judgement as the connection goes on.
    ///
    /// # Errors
    /// What `setsockopt(2)` says.
    pub fn set_quickack(&self, quickack: bool) -> Result<()> {
        set("TCP_QUICKACK", sockopt::set_tcp_quickack(self.socket().fd(), quickack))
    }

    /// Whether the connection acknowledges at once.
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    pub fn quickack(&self) -> Result<bool> {
        got("TCP_QUICKACK", sockopt::tcp_quickack(self.socket().fd()))
    }

    /// How long sent bytes may stay unacknowledged before the connection is given up with `ETIMEDOUT`
    /// (`TCP_USER_TIMEOUT`, `tcp(7)`), in milliseconds; `None` leaves it to the kernel's retransmissions,
    /// some fifteen minutes.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] for a time that is not in whole milliseconds, for zero (which to the kernel is
    /// none), and for more than 2^31 - 1 of them; what `setsockopt(2)` says.
    pub fn set_user_timeout(&self, timeout: Option<Duration>) -> Result<()> {
        let ms = match timeout {
            Some(time) => in_units(Unit::Milliseconds, 1..=i32::MAX as u32, "a user timeout", time)?,
            None => 0,
        };
        set("TCP_USER_TIMEOUT", sockopt::set_tcp_user_timeout(self.socket().fd(), ms))
    }

    /// How long sent bytes may stay unacknowledged.
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    pub fn user_timeout(&self) -> Result<Option<Duration>> {
        let ms = got("TCP_USER_TIMEOUT", sockopt::tcp_user_timeout(self.socket().fd()))?;
        Ok((ms > 0).then(|| Duration::from_millis(ms.into())))
    }
}

/// A listening TCP socket of the current core.
///
/// Each core that binds the same address gets its own socket of one group, and the kernel spreads connections
/// over those that listen. Port 0 gives one real port, the same for all cores. Dropping the listener closes
/// it; connections that wait in its backlog are reset unless [`drain`](Listener::drain) has taken them.
pub type TcpListener = Listener<Tcp>;

impl TcpListener {
    /// This core's member of the group that listens on `address`. It listens when this returns.
    ///
    /// Give an address and not a name. The system's resolver would look a name up, which holds the core up,
    /// and only its first address is used.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when the address cannot be read, the port is taken, the address is not this
    /// machine's or the port needs a privilege.
    ///
    /// # Panics
    /// On a thread that is no core's.
    pub fn bind(address: impl ToSocketAddrs) -> Result<Self> {
        Self::bind_with(address, &ListenOptions::new())
    }

    /// Binds as [`bind`](Self::bind) does, with options. Each core gives its own.
    ///
    /// # Errors
    /// As for [`bind`](Self::bind).
    ///
    /// # Panics
    /// As for [`bind`](Self::bind).
    pub fn bind_with(address: impl ToSocketAddrs, options: &ListenOptions) -> Result<Self> {
        Self::listen_on(first(address)?, options)
    }

    /// The address that it listens on, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        match self.place() {
            Place::Ip(address) => *address,
            other => unreachable!("a TCP socket on {other}: its domain was checked"),
        }
    }
}

/// The first of the addresses.
pub(super) fn first(address: impl ToSocketAddrs) -> Result<Place> {
    address
        .to_socket_addrs()
        .and_then(|mut all| all.next().ok_or_else(|| std::io::ErrorKind::NotFound.into()))
        .map(Place::Ip)
        .map_err(|e| Error::with_source(ErrorKind::Input, "this is no address to listen on", e))
}
