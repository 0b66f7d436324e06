//! `annulus proxy`: each connection is carried to the upstream and back, byte for byte.

pub(crate) mod options;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use annulus::net::{Family, TcpStream};
use annulus::transfer::{self, Road};

use crate::lingering_close::lingering_close;
use crate::listen::client::Client;
use crate::log::access::{self, AccessLog};
use crate::metrics::{self, RelayOutcome};
use crate::proxy::options::ProxyArgs;

/// How long one upstream address may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where connections are carried to, and how.
pub(crate) struct Relay {
    /// The addresses of one name, tried in turn.
    upstream: Vec<SocketAddr>,
    /// The road for bulk.
    road: Road,
    access: Rc<AccessLog>,
}

impl Relay {
    /// As `args` say; bulk goes by `road`.
    pub(crate) fn new(args: &ProxyArgs, road: Road, access: Rc<AccessLog>) -> Self {
        Relay { upstream: args.to.addresses.clone(), road, access }
    }
}

/// Carries one connection from its first byte to its last.
pub(crate) async fn carry<F: Family>(relay: Rc<Relay>, client: Client<F>) {
    let began = Instant::now();
    let from = client.address();
    let note = |outcome, upstream: Option<SocketAddr>, up, down, end: &str| {
        let elapsed = began.elapsed();
        metrics::relayed(outcome, up, down, elapsed);
        let road = if relay.road == Road::Ring { "ring" } else { "inline" };
        let upstream = upstream.map(access::Client::Tcp);
        relay.access.connection(&access::Connection { client: from, upstream, up, down, elapsed, end, road });
    };
    let Some((server, address)) = reach(&relay.upstream, from).await else {
        lingering_close(client.stream).await;
        note(RelayOutcome::NoUpstream, None, 0, 0, "no upstream");
        return;
    };
    let mut first_bytes = 0;
    if let Some(first) = client.first {
        first_bytes = first.len() as u64;
        if let Err(failed) = server.send_all(first).await {
            tracing::debug!(client = %from, upstream = %address, error = %failed.error, "broke off");
            lingering_close(client.stream).await;
            note(RelayOutcome::Failed, Some(address), 0, 0, &failed.error.to_string());
            return;
        }
    }
    let end = transfer::relay(client.stream, server, relay.road).await;
    let (up, down) = (first_bytes + end.a_to_b, end.b_to_a);
    match end.result {
        Ok(()) => {
            tracing::debug!(client = %from, upstream = %address, up, down, "carried to the end");
            note(RelayOutcome::Closed, Some(address), up, down, "closed");
        }
        Err(error) => {
            tracing::debug!(client = %from, upstream = %address, up, down, %error, "broke off");
            let end = if relay.access.is_on() { error.to_string() } else { String::new() };
            note(RelayOutcome::Failed, Some(address), up, down, &end);
        }
    }
}

/// Connects to the first upstream address that answers.
async fn reach(upstream: &[SocketAddr], client: access::Client) -> Option<(TcpStream, SocketAddr)> {
    for &address in upstream {
        match annulus::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Some((stream, address)),
            Ok(Err(error)) => match error.io_error().and_then(std::io::Error::raw_os_error) {
                Some(errno) => {
                    tracing::warn!(%client, upstream = %address, errno, %error, "the upstream refuses; is it running there?");
                }
                None => {
                    tracing::warn!(%client, upstream = %address, %error, "the upstream cannot be reached")
                }
            },
            Err(_elapsed) => {
                tracing::warn!(%client, upstream = %address, after = ?CONNECT_TIMEOUT, "the upstream does not answer");
            }
        }
    }
    None
}
