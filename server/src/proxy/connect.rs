//! Making the connection to an upstream.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::task::Context;
use std::time::Duration;

use annulus::net::{Connection, Family, Keepalive, TcpStream, UnixStream};
use annulus::time::{Sleep, sleep};
use futures_util::future::{Either, select};

use super::address::Target;
use super::options::DeadlineArgs;
use super::upstreams::Upstream;
use crate::listen::address::unix_address;

/// An attempt that takes longer is ended when the client closes. Before that, watching the client costs more
/// than it saves.
const BEFORE_LOOKING_OUT: Duration = Duration::from_millis(20);

/// A connection to an upstream.
pub(super) enum Server {
    /// By TCP.
    Tcp(TcpStream),
    /// By a Unix socket.
    Unix(UnixStream),
}

impl Server {
    pub(super) fn reset(self) {
        match self {
            Server::Tcp(stream) => stream.reset(),
            Server::Unix(stream) => stream.reset(),
        }
    }

    /// The address at this end.
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Server::Tcp(stream) => stream.local_addr().ok(),
            Server::Unix(_) => None,
        }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NoConnection {
    /// The upstream refuses, or cannot be reached.
    Refused(annulus::Error),
    /// This machine has no port or no descriptor left, or may not do what it is to do: no fault of the
    /// upstream.
    Lack(annulus::Error),
    /// It does not answer.
    TimedOut,
    /// The client has gone meanwhile.
    ClientGone,
}

impl NoConnection {
    /// The system's reason, if it gave one.
    pub(super) fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(error) | Self::Lack(error) => error.io_error().and_then(io::Error::raw_os_error),
            Self::TimedOut | Self::ClientGone => None,
        }
    }
}

/// Whether a connection failed for a reason of this machine's.
fn is_lack(error: &annulus::Error) -> bool {
    use libc::{EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM};
    let errno = error.io_error().and_then(io::Error::raw_os_error);
    let is_input = error.kind() == annulus::ErrorKind::Input;
    is_input
        || errno.is_some_and(|errno| [EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM].contains(&errno))
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct From {
    pub(super) address: IpAddr,
    /// It is not this machine's.
    pub(super) is_client: bool,
}

/// Connects to an upstream for `client`, with the user timeout of relays. Each of its addresses is given
/// the whole connect timeout. Returns the address too, if the upstream has one.
///
/// # Cancellation
/// Ends the attempt.
pub(super) async fn connect<F: Family>(
    upstream: &Upstream,
    deadlines: &DeadlineArgs,
    source: Option<From>,
    client: &Connection<F>,
) -> Result<(Server, Option<SocketAddr>), NoConnection> {
    let addresses = upstream.addresses();
    let mut tries: Vec<Option<SocketAddr>> = addresses.iter().copied().map(Some).collect();
    if let Target::Unix(_) = upstream.target() {
        tries.push(None);
    }
    let mut last = NoConnection::TimedOut;
    for address in tries {
        let limit = Duration::from_secs(deadlines.connect_timeout);
        let given_up = async {
            sleep(BEFORE_LOOKING_OUT.min(limit)).await;
            let rest = sleep(limit.saturating_sub(BEFORE_LOOKING_OUT));
            match select(pin!(client.gone()), pin!(rest)).await {
                Either::Left(_) => NoConnection::ClientGone,
                Either::Right(_) => NoConnection::TimedOut,
            }
        };
        last = match select(pin!(connect_to(upstream, address, source)), pin!(given_up)).await {
            Either::Left((Ok(server), _)) => {
                if let (Server::Tcp(stream), Some(timeout)) = (&server, deadlines.user_timeout()) {
                    tell(stream.set_user_timeout(Some(timeout)));
                }
                return Ok((server, address));
            }
            Either::Left((Err(error), _)) if is_lack(&error) => NoConnection::Lack(error),
            Either::Left((Err(error), _)) => NoConnection::Refused(error),
            Either::Right((NoConnection::ClientGone, _)) => return Err(NoConnection::ClientGone),
            Either::Right((given_up, _)) => given_up,
        };
    }
    Err(last)
}

/// Connects to one address of an upstream, to its first where none is given, or to its Unix socket.
pub(super) async fn connect_to(
    upstream: &Upstream,
    address: Option<SocketAddr>,
    source: Option<From>,
) -> annulus::Result<Server> {
    if let Target::Unix(path) = upstream.target() {
        let address = unix_address(path)?;
        return UnixStream::connect_addr(&address).await.map(Server::Unix);
    }
    let address = address.or_else(|| upstream.addresses().first().copied());
    let Some(address) = address else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "its name has not been found yet").into());
    };
    // The source must be of the address's family.
    let source = source.filter(|source| source.address.is_ipv4() == address.is_ipv4());
    let connected = match source {
        None => TcpStream::connect(address).await,
        Some(From { address: from, is_client: false }) => {
            TcpStream::connect_from((from, 0).into(), address).await
        }
        Some(From { address: from, is_client: true }) => {
            TcpStream::connect_transparent((from, 0).into(), address).await
        }
    };
    connected.map(Server::Tcp)
}

/// A connection that has gone meanwhile refuses an option, and its relay will find out.
fn tell(set: annulus::Result<()>) {
    if let Err(error) = set {
        tracing::debug!(%error, "a connection without its options");
    }
}

/// Keepalive for a connection to an upstream that lasts. It takes four calls, and the kernel asks nobody
/// before the connection was silent for a second at least, so one that is over sooner does without.
pub(super) struct LateKeepalive {
    due: Sleep,
    keepalive: Keepalive,
}

impl LateKeepalive {
    /// For a connection that was made just now.
    pub(super) fn new(keepalive: Keepalive) -> Box<Self> {
        // The kernel counts from the last byte, also where it is told later.
        let due = sleep((keepalive.time / 2).min(Duration::from_secs(1)));
        Box::new(Self { due, keepalive })
    }

    /// Sets it when it is time. True: it is done.
    pub(super) fn poll(&mut self, stream: &TcpStream, cx: &mut Context<'_>) -> bool {
        let is_due = Pin::new(&mut self.due).poll(cx).is_ready();
        if is_due {
            tell(stream.set_keepalive(Some(self.keepalive)));
        }
        is_due
    }
}
