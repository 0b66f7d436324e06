//! `annulus proxy`: each connection is carried to the upstream and back, byte for byte.

mod address;
mod balance;
mod check;
mod checker;
mod connect;
mod first_bytes;
mod health;
pub(crate) mod names;
pub(crate) mod options;
pub(crate) mod own;
mod proxy_header;
mod reach;
mod resolve;
mod sni;
mod udp;
mod upkeep;
pub(crate) mod upstreams;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use annulus::net::{Connection, Family, TcpStream, UdpSocket};
use annulus::transfer::{self, RelayCause, RelayEnd, RelayLimits, Road};

use self::balance::Balance;
use self::connect::{LateKeepalive, Server};
use self::options::{DeadlineArgs, TowardsArgs, UdpArgs, UpstreamArgs};
use self::own::Remembered;
use self::reach::{Reach, Reached};
use self::sni::Hello;
pub(crate) use self::udp::Sessions;
use self::upstreams::Taken;
use crate::listen::client::Client;
use crate::listen::socket_options::SocketOptions;
use crate::log::access::{self, AccessLog};
use crate::metrics::{self, RelayOutcome};
use crate::proxy::options::ProxyArgs;
use crate::slow::{Relayed, Watch};

/// Where connections are carried to, and how.
pub(crate) struct Relay {
    /// The first is for clients of no listed name, the others are for each name in order.
    reaches: Vec<Reach>,
    towards: TowardsArgs,
    deadlines: DeadlineArgs,
    /// Where datagrams go, and what bounds their sessions, if they are relayed too.
    datagrams: Option<(UpstreamArgs, UdpArgs)>,
    limits: Rc<RelayLimits>,
    /// The road for bulk.
    road: Road,
    access: Rc<AccessLog>,
}

impl Relay {
    /// As `args` say; bulk goes by `road`.
    pub(crate) fn new(args: &ProxyArgs, road: Road, access: Rc<AccessLog>) -> Self {
        let limits = Rc::new(args.deadlines.limits());
        let all = std::iter::once(args.upstreams.clone()).chain(args.routes());
        let reaches =
            all.map(|upstreams| Reach::new(&upstreams, args.deadlines, args.towards.source)).collect();
        let by_hash = || UpstreamArgs { balance: Balance::Hash, ..args.upstreams.clone() };
        let datagrams = (args.udp.udp || args.udp.udp_only).then(|| (by_hash(), args.udp));
        let (towards, deadlines) = (args.towards.clone(), args.deadlines);
        Relay { reaches, towards, deadlines, datagrams, limits, road, access }
    }

    /// What relays the datagrams that come on `socket`; `None` if that was not asked for.
    pub(crate) fn datagrams(&self, socket: UdpSocket) -> Option<Rc<Sessions>> {
        let (upstreams, bounds) = self.datagrams.as_ref()?;
        Some(Sessions::new(socket, Reach::new(upstreams, self.deadlines, None), bounds))
    }

    /// Has `sessions` go on as this one says: for new clients.
    pub(crate) fn take_over(&self, sessions: &Sessions) {
        if let Some((upstreams, bounds)) = &self.datagrams {
            sessions.go_over(Reach::new(upstreams, self.deadlines, None), bounds);
        }
    }

    /// What the connections of a listening socket on `port` are to have.
    pub(crate) fn socket_options(&self, port: u16) -> SocketOptions {
        own::listens_on(port);
        SocketOptions { keepalive: self.deadlines.keepalive(), user_timeout: self.deadlines.user_timeout() }
    }
}

/// A client's connection that is reset when it is dropped: a client that is not served must not see an empty
/// answer.
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
pub(crate) fn carry<F: Family, W: Watch>(relay: Rc<Relay>, client: Client<F>) -> impl Future<Output = ()> {
    let watch = W::new(&client.stream);
    carry_watched(relay, client, watch)
}

async fn carry_watched<F: Family, W: Watch>(relay: Rc<Relay>, client: Client<F>, mut watch: W) {
    watch.begins();
    let from = if W::IS_ON { client.address() } else { access::Client::Unknown };
    // Reaching an upstream takes more memory than all the rest, and is over soon.
    let Some(joined) = Box::pin(reach(relay, client, W::IS_ON)).await else {
        return watch.ended(from, || Relayed { upstream: None, up: 0, down: 0 });
    };
    let Joined { client, server, note, remembered } = joined;
    let from = note.from;
    let limits = Rc::clone(&note.relay.limits);
    let end = match server {
        Server::Tcp(server) => {
            let late = note.relay.deadlines.keepalive().map(LateKeepalive::new);
            let late = late.map(|late| Late { keepalive: late, of: |stream| stream });
            let relaying = transfer::relay_within(client.take(), server, note.relay.road, &limits);
            Carrying { relaying, note, watch, late }.await
        }
        Server::Unix(server) => {
            let relaying = transfer::relay_within(client.take(), server, note.relay.road, &limits);
            Carrying { relaying, note, watch, late: None }.await
        }
    };
    drop(remembered);
    let (up, down) = (end.a_to_b, end.b_to_a);
    match end.result {
        Ok(()) => tracing::debug!(client = %from, up, down, "carried to the end"),
        Err(error) => tracing::debug!(client = %from, up, down, %error, "broke off"),
    }
}

/// A client and the upstream that was reached for it.
struct Joined<F: Family> {
    client: Held<F>,
    server: Server,
    note: Note,
    /// Known to be ours, for as long as it lasts.
    remembered: Option<Remembered>,
}

/// Finds an upstream for a client and gives it what comes before the relay; `None` where that failed, of
/// which there is a line. `is_watched`: its end is told of.
async fn reach<F: Family>(relay: Rc<Relay>, client: Client<F>, is_watched: bool) -> Option<Joined<F>> {
    let began = Instant::now();
    let asks = is_watched || client.declared.is_some() || relay.asks_for_client();
    let from = if asks { client.address() } else { access::Client::Unknown };
    let Client { stream, first, .. } = client;
    let client = Held(Some(stream));
    let mut note = Note { relay, from, upstream: None, taken: None, began, first: 0, is_written: false };
    if let access::Client::Tcp(peer) = from
        && own::has_any()
        && own::is_ourselves(peer)
    {
        tracing::warn!(client = %from, "this relay is its own upstream: the connection is reset");
        note.write(0, 0, "own upstream");
        return None;
    }
    let mut head = first.map_or_else(Vec::new, |first| first.to_vec());
    let relay = Rc::clone(&note.relay);
    let reached = match relay.choose(client.stream(), &mut head).await {
        Ok(place) => relay.reaches[place].reach(from, client.stream()).await,
        Err(why) => Err(why),
    };
    let Reached { server, address, taken } = match reached {
        Ok(reached) => reached,
        Err(why) => {
            note.write(0, 0, why);
            return None;
        }
    };
    note.upstream = Some(address.map_or(access::Client::Unix, access::Client::Tcp));
    note.taken = Some(taken);
    let may_be_ours = address.is_some_and(own::may_be_ours);
    let remembered = if may_be_ours { server.local_addr().map(own::remember) } else { None };
    if let Some(version) = relay.towards.send_proxy {
        let source = if let access::Client::Tcp(from) = from { Some(from) } else { None };
        let header = proxy_header::header(version, source, local_addr(client.stream()));
        head.splice(0..0, header);
    }
    let server = first_bytes(server, head, &mut note).await?;
    Some(Joined { client, server, note, remembered })
}

/// Sends an upstream what comes before the relay, if there is anything; `None` where that failed or took
/// longer than nothing may move.
async fn first_bytes(server: Server, head: Vec<u8>, note: &mut Note) -> Option<Server> {
    note.first = head.len() as u64;
    let why = match first_bytes::send(&server, head, note.relay.limits.idle).await {
        Ok(()) => return Some(server),
        Err(why) => why,
    };
    tracing::debug!(client = %note.from, "broke off: {why}");
    match server {
        Server::Tcp(server) => server.reset(),
        Server::Unix(server) => server.reset(),
    }
    note.write(0, 0, why.name());
    None
}

impl Relay {
    /// Whether anything needs a client's address, which is a call to the system. Lines at `debug` are told
    /// when the connection has gone, and then it cannot be asked for.
    fn asks_for_client(&self) -> bool {
        self.access.is_on()
            || self.towards.send_proxy.is_some()
            || self.reaches.iter().any(Reach::asks_for_client)
            || own::has_any()
            || tracing::enabled!(tracing::Level::INFO)
    }

    /// Which of its reaches a client is for. Bytes that had to be read for that are appended to `head`.
    async fn choose<F: Family>(
        &self,
        client: &Connection<F>,
        head: &mut Vec<u8>,
    ) -> Result<usize, &'static str> {
        let TowardsArgs { sni, sni_only, sni_timeout, .. } = &self.towards;
        if sni.is_empty() {
            return Ok(0);
        }
        let limit = Duration::from_secs(*sni_timeout);
        let Ok(hello) = annulus::time::timeout(limit, read_hello(client, head)).await else {
            return Err("no client hello");
        };
        let found = if let Hello::Name(name) = hello { sni::route(sni, &name) } else { None };
        match found {
            Some(route) => Ok(route + 1),
            None if *sni_only => Err("no such name"),
            None => Ok(0),
        }
    }
}

/// Reads until it is known what a ClientHello says, or that there is none.
async fn read_hello<F: Family>(client: &Connection<F>, head: &mut Vec<u8>) -> Hello {
    loop {
        match sni::hello(head) {
            Hello::NotYet if head.len() <= sni::LONGEST => {}
            known => return known,
        }
        // A connection that ends here is no TLS; the relay reads the end again.
        let Ok(Some(chunk)) = client.recv().await else { return Hello::NotTls };
        head.extend_from_slice(&chunk);
    }
}

/// The address that a client has connected to.
fn local_addr<F: Family>(client: &Connection<F>) -> Option<SocketAddr> {
    SocketAddr::try_from(rustix::net::getsockname(client).ok()?).ok()
}

/// A relay that runs, and the line of the access log that it gets. Dropped before its end, it was cut.
struct Carrying<F: Family, G: Family, W> {
    relaying: transfer::Relay<F, G>,
    note: Note,
    watch: W,
    late: Option<Late<G>>,
}

/// What is to be done for the connection to the upstream.
struct Late<G: Family> {
    keepalive: Box<LateKeepalive>,
    /// The connection as what it is.
    of: fn(&Connection<G>) -> &TcpStream,
}

// Nothing in it is pinned.
impl<F: Family, G: Family, W> Unpin for Carrying<F, G, W> {}

impl<F: Family, G: Family, W: Watch> Future for Carrying<F, G, W> {
    type Output = RelayEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let Poll::Ready(end) = Pin::new(&mut self.relaying).poll(cx) else {
            let this = &mut *self;
            W::relay_waits(|| this.relaying.held_up());
            if let Some(Late { keepalive, of }) = &mut this.late
                && keepalive.poll(of(this.relaying.second()), cx)
            {
                this.late = None;
            }
            return Poll::Pending;
        };
        self.note.write(end.a_to_b, end.b_to_a, word(end.cause));
        let Self { note, watch, .. } = &mut *self;
        let (upstream, up, down) = (note.upstream, end.a_to_b, end.b_to_a);
        watch.ended(note.from, || Relayed { upstream, up, down });
        Poll::Ready(end)
    }
}

impl<F: Family, G: Family, W> Drop for Carrying<F, G, W> {
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
    upstream: Option<access::Client>,
    /// The place there.
    taken: Option<Taken>,
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
        if let Some(taken) = &self.taken {
            taken.carried(up, down);
        }
        if !self.relay.access.is_on() {
            return;
        }
        self.relay.access.connection(&access::Connection {
            client: self.from,
            upstream: self.upstream,
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
