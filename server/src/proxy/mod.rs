//! `annulus proxy`: each connection is carried to the upstream and back, byte for byte.

pub(crate) mod options;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use annulus::net::TcpStream;
use annulus::transfer::{self, Road};

use crate::accept_loop::{self, AcceptLoop};
use crate::exit::Failure;
use crate::lingering_close::lingering_close;

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
    accept_loop::accept(listener, |client| carry(Arc::clone(&settings), client)).await
}

/// Carries one connection from its first byte to its last.
async fn carry(settings: Arc<Settings>, client: TcpStream) {
    let Some((server, address)) = reach(&settings.upstream).await else {
        lingering_close(client).await;
        return;
    };
    let end = transfer::relay(client, server, settings.road).await;
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
