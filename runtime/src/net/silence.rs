//! For how long a connection has been silent, as the kernel counts it.

use std::time::Duration;

use super::connection::Connection;
use super::family::{Family, Side};
use super::sys;

/// For how long a TCP connection has been silent. The kernel counts in steps of 1 to 10 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Silence {
    /// The time since data was sent. Before the first send it is the time since the handshake. For a
    /// connection that was accepted just now that is the time in the backlog.
    pub sent: Duration,
    /// The time since data came, taken or not. Before the first data it is the time since the handshake.
    pub received: Duration,
}

impl<F: Family, S: Side> Connection<F, S> {
    /// For how long nothing was sent and nothing came (`TCP_INFO`, `tcp(7)`; Linux 4.6). `None` for a
    /// connection that is not TCP.
    pub fn silence(&self) -> Option<Silence> {
        let (sent, received) = sys::silence(self.socket().fd())?;
        let time = |ms: u32| Duration::from_millis(ms.into());
        Some(Silence { sent: time(sent), received: time(received) })
    }
}
