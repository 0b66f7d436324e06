//! `--udp`: datagrams, in sessions by client address.
//!
//! A session is a socket that is connected to an upstream: datagrams that come on it go to the session's
//! client. All datagrams of a client come to one core (the kernel hashes both ends' addresses), in order, and
//! are sent in that order by calls that never wait. Where a socket's buffer is full, the datagram is lost, as
//! anywhere on its way. They are received and sent in batches, those of one length by one call where the
//! kernel can (`UDP_GRO`, `UDP_SEGMENT`).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use annulus::net::{Datagrams, SentDatagrams, UdpSocket};
use futures_util::future::select;

use super::options::UdpArgs;
use super::reach::Reach;
use super::upstreams::Taken;
use crate::lifecycle;

/// How often a session is checked within the time that it may be idle.
const CHECKS: u32 = 4;
/// Receives of one call, and calls before others get a turn.
const AT_ONCE: usize = 16;
const BATCHES: usize = 4;
/// The ring refuses a wait for want of something that comes back.
const AFTER_AN_ERROR: Duration = Duration::from_millis(20);

/// The sessions of one listener on one core.
pub(crate) struct Sessions {
    listener: UdpSocket,
    reach: RefCell<Rc<Reach>>,
    /// How long a session may be idle, and how many there may be.
    bounds: Cell<(Duration, usize)>,
    open: RefCell<HashMap<SocketAddr, Rc<Session>>>,
    /// Who waits for the end of the last one.
    waiting: RefCell<Option<Waker>>,
    /// What is under way: taken, and given, without waiting between.
    batch: RefCell<Datagrams>,
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
    pub(super) fn new(listener: UdpSocket, reach: Reach, bounds: &UdpArgs) -> Rc<Self> {
        coalesce(&listener);
        let batch = RefCell::new(Datagrams::new(AT_ONCE));
        let (reach, bounds) = (RefCell::new(Rc::new(reach)), Cell::new(bounds.of_sessions()));
        Rc::new(Self {
            listener,
            reach,
            bounds,
            open: RefCell::default(),
            waiting: RefCell::default(),
            batch,
        })
    }

    /// New sessions go where `reach` says from now on.
    pub(super) fn go_over(&self, reach: Reach, bounds: &UdpArgs) {
        drop(self.reach.replace(Rc::new(reach)));
        self.bounds.set(bounds.of_sessions());
    }

    /// Takes datagrams of clients, for ever.
    ///
    /// # Cancellation
    /// Ends all sessions, once their tasks notice that nobody holds them.
    async fn run(self: Rc<Self>) {
        loop {
            if let Err(error) = self.listener.readable().await {
                tracing::warn!(%error, "waiting for datagrams");
                annulus::time::sleep(AFTER_AN_ERROR).await;
                continue;
            }
            let batch = &mut *self.batch.borrow_mut();
            for _ in 0..BATCHES {
                match self.listener.recv_many_now(batch) {
                    Ok(0) => break,
                    Ok(_) => batch.by_source().for_each(|(client, run)| self.pass_on(client, run)),
                    // An error of one that was sent before (ICMP).
                    Err(error) => tracing::debug!(%error, "receiving datagrams"),
                }
            }
        }
    }

    /// Takes datagrams of clients until `end`. Sessions finish where another process takes them then.
    ///
    /// # Cancellation
    /// As for [`run`](Self::run).
    pub(crate) async fn run_until(self: Rc<Self>, end: impl Future + Unpin) {
        select(end, pin!(Rc::clone(&self).run())).await;
        if lifecycle::is_replaced() {
            self.finished().await;
        }
    }

    /// Waits until every session is over. Nothing of clients is taken meanwhile: another process does. What
    /// upstreams send still goes to the clients.
    async fn finished(&self) {
        poll_fn(|cx| {
            if self.open.borrow().is_empty() {
                return Poll::Ready(());
            }
            // The old waker is dropped after the borrow.
            drop(self.waiting.replace(Some(cx.waker().clone())));
            Poll::Pending
        })
        .await;
    }

    fn pass_on<'a>(self: &Rc<Self>, client: SocketAddr, run: impl Iterator<Item = &'a [u8]>) {
        let known = self.open.borrow().get(&client).cloned();
        let Some(session) = known.or_else(|| self.begin(client)) else { return };
        session.is_active.set(true);
        let SentDatagrams { bytes, error, .. } = session.upstream.send_many_now(None, run);
        session.up.set(session.up.get() + bytes);
        match error {
            Some(error) if error.kind() == ErrorKind::ConnectionRefused => self.refused(&session),
            Some(error) => {
                tracing::debug!(%client, %error, "datagrams are lost on their way to the upstream")
            }
            None => {}
        }
    }

    /// A new session, if there may be one and an upstream can be had.
    fn begin(self: &Rc<Self>, client: SocketAddr) -> Option<Rc<Session>> {
        let (_, most) = self.bounds.get();
        if self.open.borrow().len() >= most {
            tracing::warn!(
                %client,
                sessions = most,
                "a core has as many sessions as it may have: datagrams are dropped"
            );
            return None;
        }
        let reach = Rc::clone(&self.reach.borrow());
        let (taken, address) = reach.choose_now(client)?;
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
        coalesce(&session.upstream);
        annulus::spawn(bring_back(sessions, returning)).detach();
        Some(session)
    }

    /// Sends what has come from the upstream to the client. False: nobody listens at the upstream.
    fn send_back(&self, session: &Session) -> bool {
        let batch = &mut *self.batch.borrow_mut();
        for _ in 0..BATCHES {
            match session.upstream.recv_many_now(batch) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    let errno = error.io_error().and_then(std::io::Error::raw_os_error);
                    if errno == Some(libc::ECONNREFUSED) {
                        return false;
                    }
                    tracing::debug!(client = %session.client, %error, "receiving from the upstream");
                    continue;
                }
            }
            session.is_active.set(true);
            for (_, run) in batch.by_source() {
                let sent = self.listener.send_many_now(Some(session.client), run);
                session.down.set(session.down.get() + sent.bytes);
                if let Some(error) = sent.error {
                    tracing::debug!(client = %session.client, %error, "datagrams are lost on their way to the client");
                }
            }
        }
        true
    }

    /// Nobody listens at the upstream: the next datagram finds another.
    fn refused(&self, session: &Session) {
        let reach = Rc::clone(&self.reach.borrow());
        session.taken.refused(reach.upstreams());
        self.end(session);
    }

    fn end(&self, session: &Session) {
        let ended = self.open.borrow_mut().remove(&session.client);
        if ended.is_some() {
            session.taken.carried(session.up.get(), session.down.get());
        }
        let waiting = if self.open.borrow().is_empty() { self.waiting.take() } else { None };
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

/// Carries what comes from a session's upstream to its client, until the session is idle, the upstream has
/// gone, or nobody holds the sessions any more.
async fn bring_back(sessions: Weak<Sessions>, session: Rc<Session>) {
    let mut silent = 0;
    loop {
        let Some(idle) = sessions.upgrade().map(|sessions| sessions.bounds.get().0) else { return };
        let ready = annulus::time::timeout(idle / CHECKS, session.upstream.readable()).await;
        let Some(sessions) = sessions.upgrade() else { return };
        match ready {
            Ok(Ok(())) => {
                if !sessions.send_back(&session) {
                    return sessions.refused(&session);
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(client = %session.client, %error, "waiting for datagrams of the upstream");
                return sessions.end(&session);
            }
            Err(_) if session.is_active.replace(false) => silent = 0,
            Err(_) => {
                silent += 1;
                if silent >= CHECKS {
                    return sessions.end(&session);
                }
            }
        }
    }
}

/// Has the kernel put datagrams together that belong together. One that cannot brings them one by one.
fn coalesce(socket: &UdpSocket) {
    if let Err(error) = socket.set_coalescing(true) {
        tracing::debug!(%error, "datagrams come one by one");
    }
}
