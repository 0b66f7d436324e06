//! `annulus proxy`: each connection is carried to the upstream and back, byte for byte.

mod connect;
pub(crate) mod options;
pub(crate) mod own;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Instant;

use annulus::net::{Connection, Family, Tcp, TcpListener, TcpStream};
use annulus::transfer::{self, RelayCause, RelayEnd, RelayLimits, Road};

use self::connect::{NoConnection, connect};
use self::options::DeadlineArgs;
use crate::exit::Failure;
use crate::listen::client::Client;
use crate::log::access::{self, AccessLog};
use crate::metrics::{self, RelayOutcome};
use crate::proxy::options::ProxyArgs;

/// Where connections are carried to, and how.
pub(crate) struct Relay {
    /// The addresses of one name, tried in turn.
    upstream: Vec<SocketAddr>,
    deadlines: DeadlineArgs,
    limits: Rc<RelayLimits>,
    /// The road for bulk.
    road: Road,
    access: Rc<AccessLog>,
}

impl Relay {
    /// As `args` say; bulk goes by `road`.
    pub(crate) fn new(args: &ProxyArgs, road: Road, access: Rc<AccessLog>) -> Self {
        let limits = Rc::new(args.deadlines.limits());
        Relay { upstream: args.to.addresses.clone(), deadlines: args.deadlines, limits, road, access }
    }

    /// Gives a listening socket what its connections are to have: they inherit it (`tcp(7)`), so it costs no call for each.
    ///
    /// # Errors
    /// What `setsockopt(2)` says.
    pub(crate) fn prepare(&self, listener: &TcpListener) -> Result<(), Failure> {
        use rustix::net::sockopt;
        own::listens_on(listener.local_addr().port());
        let set = |result: rustix::io::Result<()>| {
            result.map_err(|e| Failure::failed("cannot set the options of relays on a listener", e))
        };
        if let Some(keepalive) = self.deadlines.keepalive() {
            set(sockopt::set_tcp_keepidle(listener, keepalive.time))?;
            set(sockopt::set_tcp_keepintvl(listener, keepalive.interval))?;
            set(sockopt::set_tcp_keepcnt(listener, keepalive.count))?;
            set(sockopt::set_socket_keepalive(listener, true))?;
        }
        if let Some(timeout) = self.deadlines.user_timeout() {
            let ms = timeout.as_millis().min(i32::MAX as u128) as u32;
            set(sockopt::set_tcp_user_timeout(listener, ms))?;
        }
        Ok(())
    }
}

/// A client's connection that is reset when it is dropped: who cannot be served must not take it for an empty answer.
struct Held<F: Family>(Option<Connection<F>>);

impl<F: Family> Held<F> {
    fn stream(&self) -> &Connection<F> {
        self.0.as_ref().expect("taken at the end of its life only")
    }

    fn take(mut self) -> Connection<F> {
        self.0.take().expect("taken once")
    }
}

impl<F: Family> Drop for Held<F> {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            stream.reset();
        }
    }
}

/// Carries one connection from its first byte to its last.
pub(crate) async fn carry<F: Family>(relay: Rc<Relay>, client: Client<F>) {
    let began = Instant::now();
    let from = client.address();
    let Client { stream, first, .. } = client;
    let client = Held(Some(stream));
    let mut note = Note { relay, from, upstream: None, began, first: 0, is_written: false };
    if let access::Client::Tcp(peer) = from
        && own::has_any()
        && own::is_ourselves(peer)
    {
        tracing::warn!(client = %from, "this relay is its own upstream: the connection is reset");
        return note.write(0, 0, "own upstream");
    }
    let (server, address) = match reach(&note.relay, from, client.stream()).await {
        Ok(reached) => reached,
        Err(why) => return note.write(0, 0, why),
    };
    note.upstream = Some(address);
    let _remembered = own::may_be_ours(address).then(|| server.local_addr().map(own::remember));
    if let Some(first) = first {
        note.first = first.len() as u64;
        if let Err(failed) = server.send_all(first).await {
            tracing::debug!(client = %from, upstream = %address, error = %failed.error, "broke off");
            server.reset();
            return note.write(0, 0, "upstream failed");
        }
    }
    let relaying = transfer::relay_within(client.take(), server, note.relay.road, &note.relay.limits);
    let end = Carrying { relaying, note }.run().await;
    let (up, down) = (end.a_to_b, end.b_to_a);
    match end.result {
        Ok(()) => tracing::debug!(client = %from, upstream = %address, up, down, "carried to the end"),
        Err(error) => tracing::debug!(client = %from, upstream = %address, up, down, %error, "broke off"),
    }
}

/// A relay that runs, and the line of the access log that it gets. Dropped before its end, it was cut.
struct Carrying<F: Family> {
    relaying: transfer::Relay<F, Tcp>,
    note: Note,
}

impl<F: Family> Carrying<F> {
    async fn run(mut self) -> RelayEnd {
        let end = poll_fn(|cx| Pin::new(&mut self.relaying).poll(cx)).await;
        self.note.write(end.a_to_b, end.b_to_a, word(end.cause));
        end
    }
}

impl<F: Family> Drop for Carrying<F> {
    fn drop(&mut self) {
        let (up, down) = self.relaying.moved();
        self.note.write(up, down, "cut");
    }
}

/// How a relay ended, for the access log.
fn word(cause: RelayCause) -> &'static str {
    match cause {
        RelayCause::Ended => "closed",
        RelayCause::FailedA => "client failed",
        RelayCause::FailedB => "upstream failed",
        RelayCause::Idle => "idle timeout",
        RelayCause::HalfClosed => "half-closed timeout",
        RelayCause::Lifetime => "lifetime over",
        RelayCause::TooSlow => "too slow",
        other => other.name(),
    }
}

/// What is known of a connection for its line in the access log.
struct Note {
    relay: Rc<Relay>,
    from: access::Client,
    upstream: Option<SocketAddr>,
    began: Instant,
    /// Bytes to the upstream that were sent before the relay.
    first: u64,
    is_written: bool,
}

impl Note {
    /// Counts it and writes the line, once.
    fn write(&mut self, up: u64, down: u64, end: &str) {
        if std::mem::replace(&mut self.is_written, true) {
            return;
        }
        let (up, elapsed) = (up + self.first, self.began.elapsed());
        let outcome = match (self.upstream, end) {
            (None, _) => RelayOutcome::NoUpstream,
            (Some(_), "closed") => RelayOutcome::Closed,
            (Some(_), _) => RelayOutcome::Failed,
        };
        metrics::relayed(outcome, up, down, elapsed);
        if !self.relay.access.is_on() {
            return;
        }
        self.relay.access.connection(&access::Connection {
            client: self.from,
            upstream: self.upstream.map(access::Client::Tcp),
            up,
            down,
            elapsed,
            end,
            road: if self.relay.road == Road::Ring { "ring" } else { "inline" },
        });
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        self.write(0, 0, "cut");
    }
}

/// Connects to the first upstream address that answers; else a word for the access log.
async fn reach<F: Family>(
    relay: &Relay,
    from: access::Client,
    client: &Connection<F>,
) -> Result<(TcpStream, SocketAddr), &'static str> {
    for &address in &relay.upstream {
        let none = match connect(address, &relay.deadlines, client).await {
            Ok(stream) => return Ok((stream, address)),
            Err(none) => none,
        };
        let errno = none.errno();
        match none {
            NoConnection::Refused(error) if errno.is_some() => {
                tracing::warn!(client = %from, upstream = %address, errno, %error, "the upstream refuses; is it running there?");
            }
            NoConnection::Refused(error) => {
                tracing::warn!(client = %from, upstream = %address, %error, "the upstream cannot be reached");
            }
            NoConnection::TimedOut => {
                let after = relay.deadlines.connect_timeout;
                tracing::warn!(client = %from, upstream = %address, after, "the upstream does not answer");
            }
            NoConnection::ClientGone => return Err("client gone"),
        }
    }
    Err("no upstream")
}
