//! What a relay can be told.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use annulus::net::Keepalive;
use annulus::transfer::RelayLimits;
use clap::Args;

use super::address::{Target, UpstreamAddress, UpstreamList};
use super::balance::Balance;
use super::check::{Check, StatusRange};
use super::health::Policy;
use super::names::{self, Asked};
use super::own;
use super::proxy_header::Version;
use super::sni::SniRoute;

/// How connections are relayed. Each field is a flag of `annulus proxy` and a key of a listener that has a
/// `to`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct ProxyArgs {
    #[command(flatten)]
    pub(crate) upstreams: UpstreamArgs,

    #[command(flatten)]
    pub(crate) towards: TowardsArgs,

    #[command(flatten)]
    pub(crate) deadlines: DeadlineArgs,

    #[command(flatten)]
    pub(crate) udp: UdpArgs,
}

/// Datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
#[command(next_help_heading = "Datagrams")]
pub(crate) struct UdpArgs {
    /// Relay datagrams too: those that come to the same address and port by UDP, in sessions by client
    /// address, by --balance hash
    #[arg(long)]
    pub(crate) udp: bool,

    /// Relay datagrams alone: nothing listens by TCP
    #[arg(long)]
    pub(crate) udp_only: bool,

    /// Seconds without a datagram after which a session is over
    #[arg(long, value_name = "SECS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) udp_timeout: u64,

    /// Sessions that each core has at most, each with a socket of its own; datagrams of further clients are
    /// dropped
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub(crate) udp_sessions: u32,
}

impl UdpArgs {
    /// How long a session may be idle, and how many each core may have.
    pub(super) fn of_sessions(&self) -> (Duration, usize) {
        (Duration::from_secs(self.udp_timeout), self.udp_sessions as usize)
    }
}

/// What upstreams learn of the client, and what of the client's first bytes decides where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(next_help_heading = "Towards upstreams")]
pub(crate) struct TowardsArgs {
    /// Tell upstreams who the client is, by a header of the PROXY protocol before its first byte: "v1" text,
    /// "v2" binary
    #[arg(long, value_name = "v1|v2", hide_possible_values = true)]
    pub(crate) send_proxy: Option<Version>,

    /// The address to connect to upstreams from; "client" is the client's own, which needs CAP_NET_ADMIN and
    /// routes back
    #[arg(long, value_name = "ADDR|client")]
    pub(crate) source: Option<Source>,

    /// Where TLS connections go that ask for this name, as often as wanted: NAME=ADDR, or *.NAME=ADDR; more
    /// addresses with commas. TLS is passed through. All others go to --to
    #[arg(long, value_name = "NAME=ADDR")]
    pub(crate) sni: Vec<SniRoute>,

    /// Reset connections that ask for no name of --sni, or that are no TLS
    #[arg(long, requires = "sni")]
    pub(crate) sni_only: bool,

    /// Seconds that a client may take to say which name it asks for
    #[arg(long, value_name = "SECS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) sni_timeout: u64,
}

/// Where connections to upstreams come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// This address.
    Address(IpAddr),
    /// The client's.
    Client,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "client" => Ok(Source::Client),
            _ => text
                .parse()
                .map(Source::Address)
                .map_err(|_| "write an address without a port, or client".to_owned()),
        }
    }
}

/// Who the upstreams are, how one of them is chosen, and what is found out about them.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct UpstreamArgs {
    /// Where to relay to, as often as wanted or with commas: HOST:PORT or unix:PATH, with "weight=N" behind
    /// it where shares are not equal
    #[arg(long, value_name = "ADDR", required = true)]
    pub(crate) to: Vec<UpstreamList>,

    /// How an upstream is chosen: "roundrobin" in turn, "leastconn" the one with the fewest connections,
    /// "random2" the better of two at random, "hash" the same one for the same client address unless it has a
    /// quarter more than its share, "first" the first that can be had
    #[arg(long, value_name = "HOW", default_value = "roundrobin", value_enum, hide_possible_values = true)]
    pub(crate) balance: Balance,

    /// Seconds for which an upstream that could not be connected to is asked by nobody while there are
    /// others; doubles up to 16 times as it goes on
    #[arg(long, value_name = "SECS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600), help_heading = UPSTREAMS)]
    pub(crate) out_time: u64,

    /// Check each upstream: "tcp" connects, "http:/PATH" asks and looks at the status
    #[arg(long, value_name = "tcp|http:/PATH", help_heading = UPSTREAMS)]
    pub(crate) check: Option<Check>,

    /// Seconds between two checks
    #[arg(long, value_name = "SECS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=86_400), help_heading = UPSTREAMS)]
    pub(crate) check_interval: u64,

    /// Seconds that a check may take
    #[arg(long, value_name = "SECS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=86_400), help_heading = UPSTREAMS)]
    pub(crate) check_timeout: u64,

    /// Status codes that an HTTP check takes for well
    #[arg(long, value_name = "CODES", default_value = "200-399", help_heading = UPSTREAMS)]
    pub(crate) check_status: StatusRange,

    /// Checks in a row that must succeed for an upstream to come up again
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..), help_heading = UPSTREAMS)]
    pub(crate) rise: u32,

    /// Checks in a row that must fail for an upstream to go down
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..), help_heading = UPSTREAMS)]
    pub(crate) fall: u32,

    /// Seconds over which an upstream that has come back gets its share again, little by little
    #[arg(long, value_name = "SECS", default_value_t = 0, help_heading = UPSTREAMS)]
    pub(crate) slow_start: u64,

    /// Connections that each upstream gets at most
    #[arg(long, value_name = "N", help_heading = UPSTREAMS)]
    pub(crate) upstream_max_connections: Option<usize>,

    /// Clients that wait at most where no upstream has room; the others are reset
    #[arg(long, value_name = "N", default_value_t = 1024, help_heading = UPSTREAMS)]
    pub(crate) queue: usize,

    /// Seconds that a client waits for an upstream with room
    #[arg(long, value_name = "SECS", default_value_t = 5, help_heading = UPSTREAMS)]
    pub(crate) queue_timeout: u64,

    /// Servers of DNS to ask for the names of upstreams, as often as wanted: ADDR or ADDR:PORT [default: the
    /// hosts file and the servers of this machine]
    #[arg(long, value_name = "ADDR", value_parser = names::server, help_heading = UPSTREAMS)]
    pub(crate) resolver: Vec<SocketAddr>,

    /// Seconds for which the address of a name holds at least, whatever its TTL says
    #[arg(long, value_name = "SECS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=86_400), help_heading = UPSTREAMS)]
    pub(crate) ttl_min: u64,

    /// Seconds for which the address of a name holds at most, whatever its TTL says
    #[arg(long, value_name = "SECS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=86_400), help_heading = UPSTREAMS)]
    pub(crate) ttl_max: u64,

    /// Seconds after which a name is looked up again where nothing tells how long the answer holds (the hosts
    /// file, getaddrinfo), or where no answer came
    #[arg(long, value_name = "SECS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400), help_heading = UPSTREAMS)]
    pub(crate) resolve_interval: u64,
}

const UPSTREAMS: &str = "Upstreams";

impl UpstreamArgs {
    /// All upstreams, in the order given.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &UpstreamAddress> {
        self.to.iter().flat_map(|list| &list.0)
    }

    /// As they were written, without weights.
    pub(crate) fn written(&self) -> String {
        self.addresses().map(|it| it.target.to_string()).collect::<Vec<_>>().join(",")
    }

    pub(super) fn policy(&self) -> Policy {
        Policy {
            rise: self.rise,
            fall: self.fall,
            out: Duration::from_secs(self.out_time),
            slow_start: Duration::from_secs(self.slow_start),
        }
    }

    /// Whether none is at one of these addresses, where a relay listens, as far as names have been looked up.
    ///
    /// # Errors
    /// Which is.
    fn check(&self, listens: &[SocketAddr]) -> Result<(), String> {
        if self.ttl_min > self.ttl_max {
            return Err(format!("--ttl-min {} is more than --ttl-max {}", self.ttl_min, self.ttl_max));
        }
        for upstream in self.addresses() {
            let addresses = match &upstream.target {
                Target::Ip(address) => vec![*address],
                Target::Name(name, port) => names::found_at_start(name, *port),
                Target::Unix(_) => Vec::new(),
            };
            let is_own = |listen: &&SocketAddr| addresses.iter().any(|to| own::comes_to(*to, **listen));
            if let Some(listen) = listens.iter().find(is_own) {
                return Err(format!(
                    "cannot relay {listen} to {}: it would be its own upstream; name another address",
                    upstream.target
                ));
            }
        }
        Ok(())
    }
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

    /// How long a peer that is to be reset may take to acknowledge any of what was sent to it before, in
    /// seconds
    #[arg(long, value_name = "SECS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) drain_timeout: u64,

    /// Bytes a second, of both directions together, below which a connection is reset; one that is silent is
    /// idle (0: any)
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub(crate) min_rate: u64,

    /// Seconds of silence after which the kernel asks a peer whether it is still there, four times (0: never)
    #[arg(long, value_name = "SECS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(..=32_767))]
    pub(crate) keepalive: u64,

    /// Seconds that sent bytes may stay unacknowledged before the kernel gives a connection up; it also ends
    /// a peer that reads nothing for so long, so not less than --idle-timeout (0: as the kernel has it)
    #[arg(long, value_name = "SECS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=2_147_483))]
    pub(crate) user_timeout: u64,
}

impl DeadlineArgs {
    /// As the relay keeps them.
    pub(crate) fn limits(&self) -> RelayLimits {
        let time = |secs: u64| (secs > 0).then(|| Duration::from_secs(secs));
        let mut limits = RelayLimits::default();
        limits.idle = time(self.idle_timeout);
        limits.half_closed = time(self.half_closed_timeout);
        limits.lifetime = time(self.lifetime);
        limits.drain = Duration::from_secs(self.drain_timeout);
        limits.min_rate = (self.min_rate > 0).then_some(self.min_rate);
        limits
    }

    /// What the kernel is to ask silent peers.
    pub(crate) fn keepalive(&self) -> Option<Keepalive> {
        let time = Duration::from_secs(self.keepalive);
        let interval = Duration::from_secs(self.keepalive.div_ceil(4));
        (self.keepalive > 0).then_some(Keepalive::new(time, interval, 4))
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
        let all: Vec<UpstreamArgs> = std::iter::once(self.upstreams.clone()).chain(self.routes()).collect();
        let targets = all.iter().flat_map(UpstreamArgs::addresses).map(|upstream| &upstream.target);
        let names = targets.filter_map(|target| match target {
            Target::Name(name, port) => {
                Some(Asked { name: name.clone(), port: *port, servers: self.upstreams.resolver.clone() })
            }
            Target::Ip(_) | Target::Unix(_) => None,
        });
        names::look_up_at_start(names)?;
        all.iter().try_for_each(|upstreams| upstreams.check(listens))
    }

    /// The upstreams of each name, chosen and checked as all others.
    pub(super) fn routes(&self) -> impl Iterator<Item = UpstreamArgs> {
        let of = |route: &SniRoute| UpstreamArgs { to: vec![route.to.clone()], ..self.upstreams.clone() };
        self.towards.sni.iter().map(of)
    }
}
