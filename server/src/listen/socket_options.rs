//! What the connections of a listener are to have: set on the listening socket, from which they inherit it
//! (`tcp(7)`), so it costs no call for each.

use std::os::fd::AsFd;
use std::time::Duration;

use annulus::net::Keepalive;
use rustix::net::sockopt;

use crate::exit::Failure;

/// The options. The default has none of them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SocketOptions {
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) user_timeout: Option<Duration>,
}

impl SocketOptions {
    /// Gives them to a listening socket, whatever it had before: for the connections that come from now on.
    ///
    /// # Errors
    /// What `setsockopt(2)` says.
    pub(crate) fn give_to(self, listener: impl AsFd) -> Result<(), Failure> {
        let listener = listener.as_fd();
        let set = |result: rustix::io::Result<()>| {
            result.map_err(|e| Failure::failed("cannot set the options of a listener's connections", e))
        };
        if let Some(keepalive) = self.keepalive {
            set(sockopt::set_tcp_keepidle(listener, keepalive.time))?;
            set(sockopt::set_tcp_keepintvl(listener, keepalive.interval))?;
            set(sockopt::set_tcp_keepcnt(listener, keepalive.count))?;
        }
        set(sockopt::set_socket_keepalive(listener, self.keepalive.is_some()))?;
        // The option's range lets it fit; 0 is the kernel's own.
        let ms = self.user_timeout.map_or(0, |timeout| timeout.as_millis());
        set(sockopt::set_tcp_user_timeout(listener, u32::try_from(ms).unwrap_or(i32::MAX as u32)))
    }
}
