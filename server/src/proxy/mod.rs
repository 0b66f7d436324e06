//! `annulus proxy`: each connection is carried to the upstream and back, byte for byte.

pub(crate) mod options;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annulus::net::TcpStream;
use annulus::transfer::{self, Road};

use crate::accept_loop::{self, AcceptLoop};
use crate::exit::Failure;
use crate::lingering_close::lingering_close;
use crate::log::access::{self, AccessLog};

/// How long one upstream address may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What every core needs to know.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Where clients come in.
    pub(crate) accept_loop: AcceptLoop,
    /// Where they are carried to: the addresses of one name, tried in turn.
    pub(crate) upstream: Vec<SocketAddr>,
    /// The road for bulk.
    pub(crate) road: Road,
}

/// The root task of one core.
pub(crate) async fn on_core(settings: Arc<Settings>) -> Result<(), Failure> {
    let listener = settings.accept_loop.open()?;
    let log = Rc::new(AccessLog::on_core());
    accept_loop::accept(listener, |client| carry(Arc::clone(&settings), Rc::clone(&log), client)).await
}

/// Carries one connection from its first byte to its last.
async fn carry(settings: Arc<Settings>, log: Rc<AccessLog>, client: TcpStream) {
    let began = Instant::now();
    let from = client.peer_addr().ok().into();
    let note = |upstream: Option<SocketAddr>, up, down, end: &str| {
        let elapsed = began.elapsed();
        let road = if settings.road == Road::Ring { "ring" } else { "inline" };
        let upstream = upstream.map(access::Client::Tcp);
        log.connection(&access::Connection { client: from, upstream, up, down, elapsed, end, road });
    };
    let Some((server, address)) = reach(&settings.upstream, from).await else {
        lingering_close(client).await;
        note(None, 0, 0, "no upstream");
        return;
    };
    let end = transfer::relay(client, server, settings.road).await;
    let (up, down) = (end.a_to_b, end.b_to_a);
    match end.result {
        Ok(()) => {
            tracing::debug!(client = %from, upstream = %address, up, down, "carried to the end");
            note(Some(address), up, down, "closed");
        }
        Err(error) => {
            tracing::debug!(client = %from, upstream = %address, up, down, %error, "broke off");
            if log.is_on() {
                note(Some(address), up, down, &error.to_string());
            }
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
