//! Closing a connection so that the peer can read the last answer.
//!
//! close(2) on a socket with unread input sends a reset, and a reset discards what the peer has not read yet:
//! the answer that says why. So the server shuts down its direction, reads what still comes, and then closes
//! (RFC 9112 9.6).

use std::net::Shutdown;
use std::time::{Duration, Instant};

use annulus::net::{Connection, Family};

/// How long the peer may take to notice.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many bytes it may still send, in the time it takes to notice.
const LAST_BYTES: usize = 256 * 1024;

/// Shuts down our direction, reads and discards what still comes for a while, and closes.
pub(crate) async fn lingering_close<F: Family>(stream: Connection<F>) {
    if let Err(error) = stream.shutdown(Shutdown::Write) {
        tracing::trace!(%error, "the peer had already gone");
        return;
    }
    let deadline = Instant::now() + PATIENCE;
    let mut heard = 0;
    while heard <= LAST_BYTES {
        let left = deadline.saturating_duration_since(Instant::now());
        match annulus::time::timeout(left, stream.recv()).await {
            Ok(Ok(Some(chunk))) => heard += chunk.len(),
            Ok(Ok(None)) | Ok(Err(_)) | Err(_) => return,
        }
    }
}
