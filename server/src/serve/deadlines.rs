//! How long clients may take.

use std::time::Duration;

use clap::Args;

use crate::http::MAX_DISCARDED_BODY;
use crate::options::values::size;

/// How long clients may take. Each field is a flag of `annulus serve` and a key of a listener that has a
/// `root`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
#[command(next_help_heading = "Deadlines of clients")]
pub(crate) struct DeadlineArgs {
    /// How long a request's head may take from its first byte to its last, in seconds; then it is 408
    #[arg(long, value_name = "SECS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) header_timeout: u64,

    /// How long a connection stays open between two requests, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) idle_timeout: u64,

    /// How long a connection may last in all, in seconds (0: for ever)
    #[arg(long, value_name = "SECS", default_value_t = 0)]
    pub(crate) lifetime: u64,

    /// Bytes a second that a client has to take of an answer and to give of a body, such as 8K, beyond
    /// --idle-timeout for each MiB of an answer; a slower one is cut (0: any)
    #[arg(long, value_name = "BYTES", default_value = "8K", value_parser = rate)]
    pub(crate) min_rate: u64,
}

fn rate(text: &str) -> Result<u64, String> {
    size(text).map(|bytes| bytes as u64)
}

impl DeadlineArgs {
    /// How long a head may take.
    pub(super) fn head(&self) -> Duration {
        Duration::from_secs(self.header_timeout)
    }

    /// How long a connection may be idle.
    pub(super) fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_timeout)
    }

    /// How long a request's body may take.
    pub(super) fn body(&self) -> Duration {
        self.at_least_rate(self.head(), MAX_DISCARDED_BODY)
    }

    /// How long a client may take to receive so many bytes. It may have been unreachable for a while.
    pub(super) fn sending(&self, bytes: u64) -> Duration {
        self.at_least_rate(self.idle(), bytes)
    }

    fn at_least_rate(&self, patience: Duration, bytes: u64) -> Duration {
        match bytes.checked_div(self.min_rate) {
            Some(seconds) => patience + Duration::from_secs(seconds),
            None => Duration::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_time_for_so_many_bytes() {
        let args = DeadlineArgs { header_timeout: 10, idle_timeout: 60, lifetime: 0, min_rate: 8192 };
        assert_eq!(args.sending(0), args.idle());
        assert_eq!(args.sending(1 << 20), args.idle() + Duration::from_secs(128));
        assert_eq!(args.body(), Duration::from_secs(10 + 128));
        assert_eq!(DeadlineArgs { min_rate: 0, ..args }.sending(1), Duration::MAX);
        assert_eq!(rate("8K"), Ok(8192));
    }
}
