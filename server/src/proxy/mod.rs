//! `annulus proxy`: each connection is carried to the upstream and back, byte for byte.

pub(crate) mod options;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use annulus::net::{Family, TcpStream};
use annulus::transfer::{self, Road};

use crate::lingering_close::lingering_close;
use crate::listen::client::Client;
use crate::proxy::options::ProxyArgs;

/// How long one upstream address may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where connections are carried to, and how.
#[derive(Debug)]
pub(crate) struct Relay {
    /// The addresses of one name, tried in turn.
    upstream: Vec<SocketAddr>,
    /// The road for bulk.
    road: Road,
}

impl Relay {
    /// As `args` say; bulk goes by `road`.
    pub(crate) fn new(args: &ProxyArgs, road: Road) -> Self {
        Relay { upstream: args.to.addresses.clone(), road }
    }
}

/// Carries one connection from its first byte to its last.
pub(crate) async fn carry<F: Family>(relay: Rc<Relay>, client: Client<F>) {
    let Some((server, address)) = reach(&relay.upstream).await else {
        lingering_close(client.stream).await;
        return;
    };
    if let Some(first) = client.first
        && let Err(failed) = server.send_all(first).await
    {
        tracing::debug!(upstream = %address, error = %failed.error, "broke off");
        lingering_close(client.stream).await;
        return;
    }
    let end = transfer::relay(client.stream, server, relay.road).await;
    let (up, down) = (end.a_to_b, end.b_to_a);
    match end.result {
        Ok(()) => tracing::debug!(upstream = %address, up, down, "carried to the end"),
        Err(error) => tracing::debug!(upstream = %address, up, down, %error, "broke off"),
    }
}

/// Connects to the first upstream address that answers.
async fn reach(upstream: &[SocketAddr]) -> Option<(TcpStream, SocketAddr)> {
    for &address in upstream {
        match annulus::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Some((stream, address)),
            Ok(Err(error)) => match error.io_error().and_then(std::io::Error::raw_os_error) {
                Some(errno) => {
                    tracing::warn!(upstream = %address, errno, %error, "the upstream refuses; is it running there?");
                }
                None => tracing::warn!(upstream = %address, %error, "the upstream cannot be reached"),
            },
            Err(_elapsed) => {
                tracing::warn!(upstream = %address, after = ?CONNECT_TIMEOUT, "the upstream does not answer");
            }
        }
    }
    None
}
