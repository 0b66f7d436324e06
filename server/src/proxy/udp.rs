//! `--udp`: datagrams, in sessions by client address.
//!
//! A session is a socket that is connected to an upstream: datagrams that come on it go to the session's
//! client. All datagrams of a client come to one core (the kernel hashes both ends' addresses), in order, and
//! are sent in that order by calls that never wait. Where a socket's buffer is full, the datagram is lost, as
//! anywhere on its way.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use annulus::buf::Lease;
use annulus::net::UdpSocket;
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::reach::Reach;
use super::upstreams::Taken;

/// Sessions of a core at most. Each has a socket.
const SESSIONS: usize = 16_384;
/// How often a session is checked within the time that it may be idle.
const LOOKS: u32 = 4;

/// The sessions of one listener on one core.
pub(super) struct Sessions {
    listener: UdpSocket,
    reach: Reach,
    idle: Duration,
    open: RefCell<HashMap<SocketAddr, Rc<Session>>>,
}

/// A client and its upstream.
struct Session {
    client: SocketAddr,
    upstream: UdpSocket,
    taken: Taken,
    /// A datagram has been sent since the last check.
    is_active: Cell<bool>,
    up: Cell<u64>,
    down: Cell<u64>,
}

impl Sessions {
    pub(super) fn new(listener: UdpSocket, reach: Reach, idle: Duration) -> Rc<Self> {
        Rc::new(Self { listener, reach, idle, open: RefCell::default() })
    }

    /// Takes datagrams of clients, for ever.
    ///
    /// # Cancellation
    /// Ends all sessions, once their tasks notice that nobody holds them.
    pub(super) async fn run(self: Rc<Self>) {
        loop {
            match self.listener.recv().await {
                Ok(datagram) if datagram.is_truncated() => {
                    let (client, bytes) = (datagram.source(), datagram.full_len());
                    tracing::debug!(%client, bytes, "a datagram is dropped: it is longer than a receive buffer");
                }
                Ok(datagram) => {
                    let client = datagram.source();
                    self.pass_on(client, &datagram.into_lease());
                }
                // An error of one that was sent before (ICMP).
                Err(error) => tracing::debug!(%error, "receiving datagrams"),
            }
        }
    }

    fn pass_on(self: &Rc<Self>, client: SocketAddr, bytes: &Lease) {
        let known = self.open.borrow().get(&client).cloned();
        let Some(session) = known.or_else(|| self.begin(client)) else { return };
        session.is_active.set(true);
        match rustix::net::send(&session.upstream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(n) => session.up.set(session.up.get() + n as u64),
            Err(Errno::CONNREFUSED) => self.refused(&session),
            Err(error) => tracing::debug!(%client, %error, "a datagram is lost on its way to the upstream"),
        }
    }

    /// A new session, if there may be one and an upstream can be had.
    fn begin(self: &Rc<Self>, client: SocketAddr) -> Option<Rc<Session>> {
        if self.open.borrow().len() >= SESSIONS {
            tracing::warn!(
                %client,
                sessions = SESSIONS,
                "a core has as many sessions as it may have: datagrams are dropped"
            );
            return None;
        }
        let (taken, address) = self.reach.choose_now(client)?;
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let made = std::net::UdpSocket::bind(any).map_err(annulus::Error::from);
        let made = made.and_then(UdpSocket::from_std).and_then(|socket| {
            socket.connect(address)?;
            Ok(socket)
        });
        let upstream = match made {
            Ok(upstream) => upstream,
            Err(error) => {
                tracing::warn!(%client, upstream = %address, %error, "no session can be made");
                return None;
            }
        };
        let (is_active, up, down) = (Cell::new(true), Cell::new(0), Cell::new(0));
        let session = Rc::new(Session { client, upstream, taken, is_active, up, down });
        self.open.borrow_mut().insert(client, Rc::clone(&session));
        let sessions = Rc::downgrade(self);
        let returning = Rc::clone(&session);
        annulus::spawn(async move {
            let mut silent = 0;
            loop {
                let Some(idle) = sessions.upgrade().map(|sessions| sessions.idle) else { return };
                let look = annulus::time::timeout(idle / LOOKS, returning.upstream.recv()).await;
                let Some(sessions) = sessions.upgrade() else { return };
                match look {
                    Ok(Ok(datagram)) => sessions.send_back(&returning, &datagram),
                    Ok(Err(error)) => {
                        let errno = error.io_error().and_then(std::io::Error::raw_os_error);
                        if errno == Some(libc::ECONNREFUSED) {
                            return sessions.refused(&returning);
                        }
                        tracing::debug!(client = %returning.client, %error, "receiving from the upstream");
                    }
                    Err(_) if returning.is_active.replace(false) => silent = 0,
                    Err(_) => {
                        silent += 1;
                        if silent >= LOOKS {
                            return sessions.end(&returning);
                        }
                    }
                }
            }
        })
        .detach();
        Some(session)
    }

    fn send_back(&self, session: &Session, datagram: &annulus::net::Datagram) {
        if datagram.is_truncated() {
            tracing::debug!(client = %session.client, bytes = datagram.full_len(), "an answer is dropped: it is longer than a receive buffer");
            return;
        }
        session.is_active.set(true);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::sendto(&self.listener, datagram, flags, &session.client) {
            Ok(n) => session.down.set(session.down.get() + n as u64),
            Err(error) => {
                tracing::debug!(client = %session.client, %error, "a datagram is lost on its way to the client")
            }
        }
    }

    /// Nobody listens at the upstream: the next datagram finds another.
    fn refused(&self, session: &Session) {
        session.taken.refused(self.reach.upstreams());
        self.end(session);
    }

    fn end(&self, session: &Session) {
        let ended = self.open.borrow_mut().remove(&session.client);
        if ended.is_some() {
            session.taken.carried(session.up.get(), session.down.get());
        }
    }
}
