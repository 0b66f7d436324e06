//! What a relay can be told.

use std::net::SocketAddr;
use std::time::Duration;

use annulus::net::Keepalive;
use annulus::transfer::RelayLimits;
use clap::Args;

use super::own;
use crate::options::values::resolve;

/// How connections are relayed. Each field is a flag of `annulus proxy` and a key of a listener that has a `to`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct ProxyArgs {
    /// Where to relay to, HOST:PORT, or several with commas; all addresses of a name are tried, in turn
    #[arg(long, value_name = "ADDR", value_parser = Upstream::parse)]
    pub(crate) to: Upstream,

    #[command(flatten)]
    pub(crate) deadlines: DeadlineArgs,
}

/// How long connections may take, each in seconds. None lasts for ever by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
#[command(next_help_heading = "Deadlines of relays")]
pub(crate) struct DeadlineArgs {
    /// How long an upstream may take to accept a connection, in seconds; then the next one is asked
    #[arg(long, value_name = "SECS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) connect_timeout: u64,

    /// How long no byte may move in either direction, in seconds; then both sides are reset (0: for ever)
    #[arg(long, value_name = "SECS", default_value_t = 600)]
    pub(crate) idle_timeout: u64,

    /// The same once one side has sent its end, in seconds (0: as --idle-timeout)
    #[arg(long, value_name = "SECS", default_value_t = 120)]
    pub(crate) half_closed_timeout: u64,

    /// How long a connection may last in all, in seconds (0: for ever)
    #[arg(long, value_name = "SECS", default_value_t = 0)]
    pub(crate) lifetime: u64,

    /// How long a peer that is to be reset may take to acknowledge any of what was sent to it before, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) drain_timeout: u64,

    /// Bytes a second, of both directions together, below which a connection is reset; one that is silent is idle (0: any)
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub(crate) min_rate: u64,

    /// Seconds of silence after which the kernel asks a peer whether it is still there, four times (0: never)
    #[arg(long, value_name = "SECS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(..=32_767))]
    pub(crate) keepalive: u64,

    /// Seconds that sent bytes may stay unacknowledged before the kernel gives a connection up; it also ends a peer that
    /// reads nothing for so long, so not less than --idle-timeout (0: as the kernel has it)
    #[arg(long, value_name = "SECS", default_value_t = 0)]
    pub(crate) user_timeout: u64,
}

impl DeadlineArgs {
    /// As the relay keeps them.
    pub(crate) fn limits(&self) -> RelayLimits {
        let time = |secs: u64| (secs > 0).then(|| Duration::from_secs(secs));
        RelayLimits {
            idle: time(self.idle_timeout),
            half_closed: time(self.half_closed_timeout),
            lifetime: time(self.lifetime),
            drain: Duration::from_secs(self.drain_timeout),
            min_rate: (self.min_rate > 0).then_some(self.min_rate),
        }
    }

    /// What the kernel is to ask silent peers.
    pub(crate) fn keepalive(&self) -> Option<Keepalive> {
        let time = Duration::from_secs(self.keepalive);
        let interval = (time / 4).max(Duration::from_secs(1));
        (self.keepalive > 0).then_some(Keepalive { time, interval, count: 4 })
    }

    /// How long the kernel keeps what is not acknowledged.
    pub(crate) fn user_timeout(&self) -> Option<Duration> {
        (self.user_timeout > 0).then(|| Duration::from_secs(self.user_timeout))
    }

    /// Whether they go together.
    ///
    /// # Errors
    /// What does not.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.user_timeout > 0 && (self.idle_timeout == 0 || self.user_timeout < self.idle_timeout) {
            return Err(format!(
                "--user-timeout {} also ends a peer that only pauses: make it at least --idle-timeout, which is {}",
                self.user_timeout, self.idle_timeout
            ));
        }
        Ok(())
    }
}

impl ProxyArgs {
    /// Whether this relay can be, beside a listener at these addresses.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check(&self, listens: &[SocketAddr]) -> Result<(), String> {
        self.deadlines.check()?;
        for upstream in &self.to.addresses {
            if let Some(listen) = listens.iter().find(|listen| own::comes_to(*upstream, **listen)) {
                return Err(format!(
                    "cannot relay {listen} to {upstream}: it would be its own upstream; name another address"
                ));
            }
        }
        Ok(())
    }
}

/// An address to connect to, as it was written and as it was resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upstream {
    pub(crate) written: String,
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Upstream {
    fn parse(text: &str) -> Result<Self, String> {
        let addresses = text.split(',').map(resolve).collect::<Result<Vec<_>, _>>()?.concat();
        Ok(Upstream { written: text.to_owned(), addresses })
    }
}
