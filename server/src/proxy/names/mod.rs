//! What the names of upstreams stand for, and for how long.
//!
//! Where this machine looks names up in its hosts file and by DNS, both are asked here, because
//! getaddrinfo(3) tells no TTL. Where it has anything else set up, and for names that DNS does not know,
//! getaddrinfo(3) is asked. Every call blocks, so no core makes one.

mod dns;
mod message;
mod order;
mod setup;

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::message::Family;
use self::setup::{Dns, PORT, Setup, Way};

/// How long the start waits for a resolver before it goes on without.
pub(super) const AT_START: Duration = Duration::from_secs(1);

/// A name that is to be looked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) port: u16,
    /// The DNS servers to ask. Where there is none the machine's own set-up counts.
    pub(crate) servers: Vec<SocketAddr>,
}

/// What a look-up brought.
pub(crate) type Answer = Result<Found, Missing>;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// The addresses in the order in which they are to be tried; at least one.
    addresses: Vec<SocketAddr>,
    /// The TTL, if it is known.
    holds: Option<Duration>,
    /// The family for which no server had an answer.
    unknown: Option<Family>,
}

/// Why it is not known what a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Missing {
    /// There is no such name, or it has no address.
    NoSuchName(String),
    /// No server has an answer now.
    NoAnswer(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Missing::NoSuchName(why) | Missing::NoAnswer(why)) = self;
        f.write_str(why)
    }
}

impl Found {
    /// What a name stands for now that stood for `before`. It keeps the addresses of a family for which no
    /// server had an answer.
    pub(super) fn after(&self, before: &[SocketAddr]) -> Vec<SocketAddr> {
        let is_kept = |address: &&SocketAddr| self.unknown.is_some_and(|family| family.is_of(address.ip()));
        self.addresses.iter().chain(before.iter().filter(is_kept)).copied().collect()
    }

    /// These, for so long.
    #[cfg(test)]
    pub(crate) fn of(addresses: Vec<SocketAddr>, holds: Duration) -> Self {
        Self { addresses, holds: Some(holds), unknown: None }
    }

    /// The TTL, if it is known.
    pub(super) fn holds(&self) -> Option<Duration> {
        // A family that is unknown is asked for again as if there were no TTL.
        if self.unknown.is_some() { None } else { self.holds }
    }
}

/// A function that looks a name up.
type LookUp = Box<dyn Fn(&Asked) -> Answer + Send + Sync>;

/// What looks names up in a process that may not do it itself.
static LOOK_UP: OnceLock<LookUp> = OnceLock::new();

/// Has names looked up by `look_up` from now on, because this process may not do it. The first call decides.
pub(crate) fn look_up_by(look_up: impl Fn(&Asked) -> Answer + Send + Sync + 'static) {
    LOOK_UP.get_or_init(|| Box::new(look_up));
}

/// Looks a name up.
///
/// # Errors
/// Why nothing was found.
pub(crate) fn look_up(asked: &Asked) -> Answer {
    if let Some(look_up) = LOOK_UP.get() {
        return look_up(asked);
    }
    let Asked { name, port, servers } = asked;
    let port = *port;
    if servers.is_empty() {
        return of_machine(name, port, Path::new("/etc"));
    }
    let no_such_name = || Missing::NoSuchName(format!("the resolver knows no address of the name {name}"));
    of_dns(&Dns::of(servers, name.trim_end_matches('.')), name, port)?.ok_or_else(no_such_name)
}

/// Looks a name up as the files in `etc` say.
fn of_machine(name: &str, port: u16, etc: &Path) -> Result<Found, Missing> {
    let way = Setup::read(etc).map_or_else(|error| Way::System(error.to_string()), |setup| setup.way(name));
    match way {
        Way::Hosts(mut addresses) => {
            order::sort(&mut addresses);
            let addresses = addresses.into_iter().map(|ip| (ip, port).into()).collect();
            Ok(Found { addresses, holds: None, unknown: None })
        }
        // A name that DNS does not know may be known to another source of nsswitch.conf(5).
        Way::Dns(dns) => of_dns(&dns, name, port)?.map_or_else(|| of_system(name, port), Ok),
        Way::System(why) => {
            tracing::debug!(name, why, "the system's resolver is asked, which tells no TTL");
            of_system(name, port)
        }
    }
}

fn of_dns(dns: &Dns, name: &str, port: u16) -> Result<Option<Found>, Missing> {
    let no_answer =
        |why| Missing::NoAnswer(format!("nobody can tell what the name {name} stands for: {why}"));
    let Some(mut known) = dns::ask(dns).map_err(no_answer)? else { return Ok(None) };
    order::sort(&mut known.addresses);
    let addresses = known.addresses.into_iter().map(|ip| (ip, port).into()).collect();
    Ok(Some(Found { addresses, holds: Some(known.holds), unknown: known.unknown }))
}

/// Looks a name up by getaddrinfo(3).
fn of_system(name: &str, port: u16) -> Result<Found, Missing> {
    let found = (name, port).to_socket_addrs().map_err(|error| {
        let why = format!("the name {name} is not found: {error}");
        // EAI_AGAIN, which the standard library tells by its text alone.
        if why.contains("Temporary failure") { Missing::NoAnswer(why) } else { Missing::NoSuchName(why) }
    })?;
    let mut addresses = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(Missing::NoSuchName(format!("the name {name} has no address")));
    }
    Ok(Found { addresses, holds: None, unknown: None })
}

/// Parses a DNS server: an address, with its port or without.
///
/// # Errors
/// The text is no address.
pub(super) fn server(text: &str) -> Result<SocketAddr, String> {
    let with_port = || text.parse::<SocketAddr>().ok().filter(|server| server.port() > 0);
    let address = text.parse::<IpAddr>().ok().map(|ip| (ip, PORT).into());
    address.or_else(with_port).ok_or_else(|| "write ADDR or ADDR:PORT, such as 127.0.0.1:53".to_owned())
}

/// What was found at the start, so that the first clients need not wait for the resolver.
static AT_START_FOUND: Mutex<Vec<(String, u16, Vec<SocketAddr>)>> = Mutex::new(Vec::new());

/// All that was found at the start and for the last configuration.
pub(crate) fn found() -> Vec<(String, u16, Vec<SocketAddr>)> {
    AT_START_FOUND.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Keeps what a name stands for, for [`found_at_start`].
pub(crate) fn know(name: &str, port: u16, addresses: Vec<SocketAddr>) {
    let mut found = AT_START_FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    found.retain(|known| known.0 != name || known.1 != port);
    found.push((name.to_owned(), port, addresses));
}

/// The addresses that were found for a name at the start.
pub(crate) fn found_at_start(name: &str, port: u16) -> Vec<SocketAddr> {
    let found = AT_START_FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let known = found.iter().find(|known| known.0 == name && known.1 == port);
    known.map_or_else(Vec::new, |known| known.2.clone())
}

/// The most look-ups at a time at the start. A silent resolver keeps each of them for seconds.
const AT_ONCE: usize = 32;

/// Looks names up, [`AT_ONCE`] at a time, and keeps what is found within [`AT_START`] for [`found_at_start`].
///
/// # Errors
/// One of the names does not exist.
pub(super) fn look_up_at_start(names: impl Iterator<Item = Asked>) -> Result<(), String> {
    let until = Instant::now() + AT_START;
    let told = look_up_all(names.collect(), AT_ONCE, look_up);
    while let Ok((asked, found)) = told.recv_timeout(until.saturating_duration_since(Instant::now())) {
        match found {
            Ok(found) => know(&asked.name, asked.port, found.addresses),
            Err(Missing::NoAnswer(why)) => tracing::debug!(name = asked.name, why, "not looked up yet"),
            Err(Missing::NoSuchName(why)) => {
                return Err(format!("{why}; write an address that exists, such as 127.0.0.1:8080"));
            }
        }
    }
    Ok(())
}

/// Looks names up on so many threads. The receiver's end comes when all are told; when it is dropped, each
/// thread ends with the name that it has.
fn look_up_all(
    names: Vec<Asked>,
    at_once: usize,
    look_up: impl Fn(&Asked) -> Answer + Clone + Send + 'static,
) -> Receiver<(Asked, Answer)> {
    let (tell, told) = channel();
    let threads = at_once.min(names.len());
    let names = Arc::new(Mutex::new(names.into_iter()));
    for _ in 0..threads {
        let (names, tell, look_up) = (Arc::clone(&names), tell.clone(), look_up.clone());
        let look = move || loop {
            // The lock is not held during the look-up.
            let next = names.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(asked) = next else { return };
            let found = look_up(&asked);
            if tell.send((asked, found)).is_err() {
                return;
            }
        };
        // Names without a thread are looked up later, like those whose resolver does not answer.
        if let Err(error) = std::thread::Builder::new().name("resolver".to_owned()).spawn(look) {
            tracing::debug!(%error, "no thread can be started to look names up");
        }
    }
    told
}

#[cfg(test)]
mod tests;
