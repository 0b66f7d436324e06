//! Names of upstreams: looked up off the cores, again and again.
//!
//! The system's resolver is asked (`getaddrinfo(3)`), because it alone knows what the machine's operator has
//! set up: /etc/hosts, search domains, nsswitch. It does not tell how long an answer holds, so it is asked
//! every [`ResolveArgs::resolve_interval`] seconds; where it caches, that costs nobody a packet. A stub
//! resolver of our own (hickory-proto) would know the TTL and none of the rest. An answer that does not come,
//! or has nothing in it, leaves the addresses as they were: connections that are there are their own, and new
//! ones have somewhere to go.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::upstreams::{Upstream, Upstreams};

/// How long the start waits for a resolver before it goes on without.
const AT_START: Duration = Duration::from_secs(1);

/// What a name stands for.
pub(super) fn look_up(name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = (name, port).to_socket_addrs().map_err(|error| error.to_string())?;
    let mut addresses = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(format!("the name {name} has no address")) } else { Ok(addresses) }
}

/// What the resolver said at the start, so that the first clients need not wait for it.
static AT_START_FOUND: Mutex<Vec<(String, u16, Vec<SocketAddr>)>> = Mutex::new(Vec::new());

/// What was found for a name at the start; nothing if it was not.
pub(super) fn found_at_start(name: &str, port: u16) -> Vec<SocketAddr> {
    let found = AT_START_FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let known = found.iter().find(|known| known.0 == name && known.1 == port);
    known.map_or_else(Vec::new, |known| known.2.clone())
}

/// What a name stands for, if the resolver knows it at once. `None` where it does not know yet.
///
/// # Errors
/// It says that there is no such name.
pub(super) fn look_up_at_start(name: &str, port: u16) -> Result<Option<Vec<SocketAddr>>, String> {
    let (tell, told) = channel();
    let asked = name.to_owned();
    // It is left behind where the resolver does not answer.
    let thread = std::thread::Builder::new().name("resolver".to_owned());
    // Nobody hears it when it is late.
    let started = thread.spawn(move || drop(tell.send(look_up(&asked, port))));
    if started.is_err() {
        return Ok(None);
    }
    match told.recv_timeout(AT_START) {
        Ok(Ok(addresses)) => {
            let mut found = AT_START_FOUND.lock().unwrap_or_else(PoisonError::into_inner);
            found.retain(|known| known.0 != name || known.1 != port);
            found.push((name.to_owned(), port, addresses.clone()));
            Ok(Some(addresses))
        }
        // EAI_AGAIN is no answer.
        Ok(Err(error)) if error.contains("Temporary failure") => Ok(None),
        Ok(Err(error)) => Err(format!("{error}; write an address that exists, such as 127.0.0.1:8080")),
        Err(_) => Ok(None),
    }
}

/// Keeps the addresses of an upstream up to date, as a task of one core, for as long as anybody uses them.
pub(super) async fn keep(upstreams: std::sync::Weak<Upstreams>, place: usize, name: String, port: u16) {
    let mut was_told = false;
    loop {
        let asked = name.clone();
        let found = annulus::spawn_blocking(move || look_up(&asked, port)).await;
        let found = found.unwrap_or_else(|error| Err(error.to_string()));
        let Some(all) = upstreams.upgrade() else { return };
        let upstream: &Arc<Upstream> = &all.list()[place];
        match found {
            Ok(addresses) => {
                was_told = false;
                if upstream.set_addresses(addresses) {
                    tracing::info!(upstream = %upstream.target(), addresses = ?upstream.addresses(), "has other addresses");
                }
            }
            // Told once for each time that it goes on for.
            Err(error) if !std::mem::replace(&mut was_told, true) => {
                tracing::warn!(upstream = %upstream.target(), error, "the name is not found; its addresses stay as they were");
            }
            Err(_) => {}
        }
        // Without addresses clients are waiting.
        let interval = Duration::from_secs(all.args().resolve_interval);
        let interval = if upstream.addresses().is_empty() { interval.min(AT_START) } else { interval };
        drop(all);
        annulus::time::sleep(interval).await;
    }
}
