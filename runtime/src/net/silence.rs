//! For how long a connection was silent, as the kernel knows it.

use std::time::Duration;

use super::connection::Connection;
use super::family::{Family, Side};
use super::sys;

/// For how long a TCP connection was silent, as the kernel counts it: in its ticks of 1 to 10 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Silence {
    /// Since data was sent last. Before the first send: since the handshake, so that of a connection that was
    /// accepted just now it is the time that it had waited for that.
    pub sent: Duration,
    /// Since data came last, taken or not; before the first: since the handshake.
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
