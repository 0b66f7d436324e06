//! From a client to an upstream that accepts it: choose, connect, else the next.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annulus::net::{Connection, Family};
use annulus::time::sleep;
use annulus::waits;
use futures_util::future::{Either, select};

use super::balance::{Balance, Balancer, Candidate, mix};
use super::connect::{From, NoConnection, Server, connect};
use super::options::{DeadlineArgs, Source, UpstreamArgs};
use super::upkeep::keep_up;
use super::upstreams::{Taken, Upstream, Upstreams};
use crate::listen::client::peer_of;
use crate::log::access::Client;
use crate::slow;

/// What a core needs to reach upstreams.
pub(super) struct Reach {
    upstreams: Arc<Upstreams>,
    deadlines: DeadlineArgs,
    source: Option<Source>,
    balancer: RefCell<Balancer>,
    /// Memory for one choice at a time.
    candidates: RefCell<Vec<Candidate>>,
}

/// A connection to an upstream, and its place there.
pub(super) struct Reached {
    pub(super) server: Server,
    /// Where it is, if it is no Unix socket.
    pub(super) address: Option<SocketAddr>,
    pub(super) taken: Taken,
}

impl Reach {
    pub(super) fn new(args: &UpstreamArgs, deadlines: DeadlineArgs, source: Option<Source>) -> Self {
        // Each core begins with another upstream, so that few connections are spread too.
        let seed = mix(annulus::cores::index() as u64 + 1);
        Self {
            upstreams: Upstreams::of(args, keep_up),
            deadlines,
            source,
            balancer: RefCell::new(Balancer::new(args.balance, seed)),
            candidates: RefCell::default(),
        }
    }

    /// Whether the choice of an upstream, or the way there, depends on where the client is.
    pub(super) fn asks_for_client(&self) -> bool {
        matches!(self.source, Some(Source::Client)) || self.upstreams.args().balance == Balance::Hash
    }

    /// Connects to an upstream that takes the client; else a word for the access log. `from` may be unknown
    /// where nothing [asks for it](Self::asks_for_client).
    ///
    /// # Cancellation
    /// Ends the attempt.
    pub(super) async fn reach<F: Family>(
        &self,
        from: Client,
        client: &Connection<F>,
    ) -> Result<Reached, &'static str> {
        let key = key_of(from);
        let mut tried = Vec::new();
        let mut waits = None;
        loop {
            // It listens from before the check on, so that places that are given back meanwhile are not
            // missed.
            let freed = waits.is_some().then(|| self.upstreams.freed());
            let (chosen, may_wait) = self.choose(&tried, key);
            let Some(place) = chosen else {
                if !may_wait {
                    return Err("no upstream");
                }
                let (Some((_, deadline)), Some(freed)) = (&waits, freed) else {
                    let limit = Duration::from_secs(self.upstreams.args().queue_timeout);
                    let place = self.upstreams.wait().ok_or("queue full")?;
                    waits = Some((place, annulus::time::deadline_after(limit)));
                    continue;
                };
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err("queue timeout");
                }
                let mut later = pin!(sleep(left.min(check_again())));
                let mut gone = pin!(client.gone());
                let waiting = select(&mut gone, select(freed, &mut later));
                if let Either::Left(_) = waits::during(slow::QUEUE, waiting).await {
                    return Err("client gone");
                }
                continue;
            };
            // Another client was faster: the next choice leaves this upstream out.
            let Some(attempt) = self.upstreams.take(place) else { continue };
            match connect(attempt.upstream(), &self.deadlines, self.source_for(from), client).await {
                Ok((server, address)) => return Ok(Reached { server, address, taken: attempt.connected() }),
                Err(NoConnection::ClientGone) => return Err("client gone"),
                Err(none @ NoConnection::Lack(_)) => {
                    self.tell((from, client), attempt.upstream(), &none);
                    tried.push(place);
                }
                Err(none) => {
                    self.tell((from, client), attempt.upstream(), &none);
                    attempt.refused();
                    tried.push(place);
                }
            }
        }
    }

    /// The upstreams that it chooses from.
    pub(super) fn upstreams(&self) -> &Upstreams {
        &self.upstreams
    }

    /// An upstream for a client's datagrams, and its address, if one can be had now.
    pub(super) fn choose_now(&self, client: SocketAddr) -> Option<(Taken, SocketAddr)> {
        let mut tried = Vec::new();
        loop {
            let place = self.choose(&tried, key_of(Client::Tcp(client))).0?;
            // As in `reach`.
            let Some(attempt) = self.upstreams.take(place) else { continue };
            match attempt.upstream().addresses().first() {
                Some(&address) => return Some((attempt.connected(), address)),
                // A Unix socket.
                None => tried.push(place),
            }
        }
    }

    fn source_for(&self, client: Client) -> Option<From> {
        match (self.source?, client) {
            (Source::Address(address), _) => Some(From { address, is_client: false }),
            (Source::Client, Client::Tcp(client)) => Some(From { address: client.ip(), is_client: true }),
            (Source::Client, _) => None,
        }
    }

    /// The place of the upstream to ask next; and whether waiting may help where there is none.
    fn choose(&self, tried: &[usize], key: u64) -> (Option<usize>, bool) {
        let mut candidates = self.candidates.borrow_mut();
        let may_wait = self.upstreams.candidates(tried, &mut candidates);
        (self.balancer.borrow_mut().choose(&candidates, key), may_wait)
    }

    fn tell<F: Family>(
        &self,
        (from, client): (Client, &Connection<F>),
        upstream: &Upstream,
        none: &NoConnection,
    ) {
        let client = if from == Client::Unknown { peer_of(client) } else { from };
        let (upstream, errno) = (upstream.target(), none.errno());
        match none {
            NoConnection::Refused(error) if errno.is_some() => {
                tracing::warn!(%client, %upstream, errno, %error, "the upstream refuses; is it running there?");
            }
            NoConnection::Refused(error) => {
                tracing::warn!(%client, %upstream, %error, "the upstream cannot be reached");
            }
            NoConnection::Lack(error) => {
                tracing::warn!(%client, %upstream, errno, %error, "this machine cannot make a connection");
            }
            NoConnection::TimedOut | NoConnection::ClientGone => {
                let after = self.deadlines.connect_timeout;
                tracing::warn!(%client, %upstream, after, "the upstream does not answer");
            }
        }
    }
}

/// The client's address, without its port, as a number. Clients of a Unix socket are all alike.
fn key_of(client: Client) -> u64 {
    let Client::Tcp(address) = client else { return 0 };
    let bits = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    mix(mix((bits >> 64) as u64) ^ bits as u64)
}

/// How long a client waits to be notified of a free upstream before it checks by itself: other processes
/// tell nothing, and nobody tells what time alone brings back.
fn check_again() -> Duration {
    Duration::from_millis(if crate::limits::are_shared() { 10 } else { 1000 })
}
