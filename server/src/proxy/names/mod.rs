//! What the names of upstreams stand for, and for how long.
//!
//! Where this machine has names looked up in its hosts file and by DNS, both are asked here, because
//! getaddrinfo(3) tells no TTL. Where it has anything else set up, and for names that DNS does not know,
//! getaddrinfo(3) is asked. Every call waits: no core makes them.

mod dns;
mod message;
mod order;
mod setup;

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use self::message::Family;
use self::setup::{Dns, PORT, Setup, Way};

/// How long the start waits for a resolver before it goes on without.
pub(super) const AT_START: Duration = Duration::from_secs(1);

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// In the order in which they are to be tried; one at least.
    addresses: Vec<SocketAddr>,
    /// How long it holds, if whoever was asked knows it.
    holds: Option<Duration>,
    /// Of this family nobody could tell anything.
    unknown: Option<Family>,
}

/// Why it is not known what a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Missing {
    /// There is no such name, or it has no address.
    NoSuchName(String),
    /// Nobody can tell now.
    NoAnswer(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Missing::NoSuchName(why) | Missing::NoAnswer(why)) = self;
        f.write_str(why)
    }
}

impl Found {
    /// What a name stands for now, that stood for `before`: addresses of a family of which nobody could tell
    /// anything are still its own.
    pub(super) fn after(&self, before: &[SocketAddr]) -> Vec<SocketAddr> {
        let is_kept = |address: &&SocketAddr| self.unknown.is_some_and(|family| family.is_of(address.ip()));
        self.addresses.iter().chain(before.iter().filter(is_kept)).copied().collect()
    }

    /// One that holds so long.
    #[cfg(test)]
    pub(super) fn that_holds(holds: Duration) -> Self {
        Self { addresses: Vec::new(), holds: Some(holds), unknown: None }
    }

    /// How long it holds, if that is known.
    pub(super) fn holds(&self) -> Option<Duration> {
        // The family that is unknown is asked for again as if nothing were known.
        if self.unknown.is_some() { None } else { self.holds }
    }
}

/// Looks a name up: by these servers of DNS, or as this machine has it where there are none.
///
/// # Errors
/// Why nothing was found.
pub(super) fn look_up(name: &str, port: u16, servers: &[SocketAddr]) -> Result<Found, Missing> {
    if servers.is_empty() {
        return of_machine(name, port, Path::new("/etc"));
    }
    let no_such_name = || Missing::NoSuchName(format!("the resolver knows no address of the name {name}"));
    of_dns(&Dns::of(servers, name.trim_end_matches('.')), name, port)?.ok_or_else(no_such_name)
}

/// As the files in `etc` say.
fn of_machine(name: &str, port: u16, etc: &Path) -> Result<Found, Missing> {
    let way = Setup::read(etc).map_or_else(|error| Way::System(error.to_string()), |setup| setup.way(name));
    match way {
        Way::Hosts(mut addresses) => {
            order::sort(&mut addresses);
            let addresses = addresses.into_iter().map(|ip| (ip, port).into()).collect();
            Ok(Found { addresses, holds: None, unknown: None })
        }
        // What DNS does not know something else may, and what to say to whoever has mistyped it is getaddrinfo's.
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

/// By getaddrinfo(3).
fn of_system(name: &str, port: u16) -> Result<Found, Missing> {
    let found = (name, port).to_socket_addrs().map_err(|error| {
        let why = error.to_string();
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

/// A server of DNS: an address, with its port or without.
///
/// # Errors
/// It is none.
pub(super) fn server(text: &str) -> Result<SocketAddr, String> {
    let with_port = || text.parse::<SocketAddr>().ok().filter(|server| server.port() > 0);
    let address = text.parse::<IpAddr>().ok().map(|ip| (ip, PORT).into());
    address.or_else(with_port).ok_or_else(|| "write ADDR or ADDR:PORT, such as 127.0.0.1:53".to_owned())
}

/// What the resolver said at the start, so that the first clients need not wait for it.
static AT_START_FOUND: Mutex<Vec<(String, u16, Vec<SocketAddr>)>> = Mutex::new(Vec::new());

/// What was found for a name at the start; nothing if it was not.
pub(super) fn found_at_start(name: &str, port: u16) -> Vec<SocketAddr> {
    let found = AT_START_FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let known = found.iter().find(|known| known.0 == name && known.1 == port);
    known.map_or_else(Vec::new, |known| known.2.clone())
}

/// Looks names up, all at the same time, and keeps what is known at once for [`found_at_start`].
///
/// # Errors
/// There is no such name.
pub(super) fn look_up_at_start(names: Vec<(String, u16)>, servers: &[SocketAddr]) -> Result<(), String> {
    let (tell, told) = channel();
    let (mut left, servers): (_, Arc<[SocketAddr]>) = (0, servers.into());
    for (name, port) in names {
        let (tell, servers) = (tell.clone(), Arc::clone(&servers));
        let look = move || {
            let found = look_up(&name, port, &servers);
            // Nobody hears it when it is late: the thread goes on where the resolver does not answer.
            drop(tell.send((name, port, found)));
        };
        // Without a thread the cores find it out.
        left += usize::from(std::thread::Builder::new().name("resolver".to_owned()).spawn(look).is_ok());
    }
    let until = Instant::now() + AT_START;
    while left > 0 {
        let Ok((name, port, found)) = told.recv_timeout(until.saturating_duration_since(Instant::now()))
        else {
            break;
        };
        left -= 1;
        match found {
            Ok(found) => {
                let mut all = AT_START_FOUND.lock().unwrap_or_else(PoisonError::into_inner);
                all.retain(|known| known.0 != name || known.1 != port);
                all.push((name, port, found.addresses));
            }
            Err(Missing::NoAnswer(why)) => tracing::debug!(name, why, "not looked up yet"),
            Err(Missing::NoSuchName(why)) => {
                return Err(format!("{why}; write an address that exists, such as 127.0.0.1:8080"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
