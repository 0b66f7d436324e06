//! Making the connection to an upstream.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use annulus::net::{Connection, Family, TcpStream};
use annulus::time::sleep;

use super::options::DeadlineArgs;
use crate::first_of::{First, first_of};

/// An attempt that takes longer is ended when the client goes. Before that, looking out for it costs more than it saves.
const BEFORE_LOOKING_OUT: Duration = Duration::from_millis(20);

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NoConnection {
    /// The upstream refuses, or cannot be reached.
    Refused(annulus::Error),
    /// It does not answer.
    TimedOut,
    /// The client has gone meanwhile.
    ClientGone,
}

impl NoConnection {
    /// The system's reason, if it gave one.
    pub(super) fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(error) => error.io_error().and_then(io::Error::raw_os_error),
            Self::TimedOut | Self::ClientGone => None,
        }
    }
}

/// Connects to `address` for `client`, with the socket options of relays.
///
/// # Cancellation
/// Ends the attempt.
pub(super) async fn connect<F: Family>(
    address: SocketAddr,
    deadlines: &DeadlineArgs,
    client: &Connection<F>,
) -> Result<TcpStream, NoConnection> {
    let limit = Duration::from_secs(deadlines.connect_timeout);
    let given_up = async {
        sleep(BEFORE_LOOKING_OUT.min(limit)).await;
        match first_of(client.gone(), sleep(limit.saturating_sub(BEFORE_LOOKING_OUT))).await {
            First::A(()) => NoConnection::ClientGone,
            First::B(()) => NoConnection::TimedOut,
        }
    };
    let stream = match first_of(TcpStream::connect(address), given_up).await {
        First::A(connected) => connected.map_err(NoConnection::Refused)?,
        First::B(given_up) => return Err(given_up),
    };
    set_options(&stream, deadlines);
    Ok(stream)
}

/// Keepalive and user timeout. A connection that has gone meanwhile refuses them, and its relay will find out.
pub(super) fn set_options(stream: &TcpStream, deadlines: &DeadlineArgs) {
    let keepalive = deadlines.keepalive().map_or(Ok(()), |keepalive| stream.set_keepalive(Some(keepalive)));
    let timeout = deadlines.user_timeout().map_or(Ok(()), |timeout| stream.set_user_timeout(Some(timeout)));
    if let Err(error) = keepalive.and(timeout) {
        tracing::debug!(%error, "a connection without its options");
    }
}
