//! What names stand for, by the system's resolver (`getaddrinfo(3)`). The calls wait, so no core makes them.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::channel;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// How long the start waits for a resolver before it goes on without.
pub(super) const AT_START: Duration = Duration::from_secs(1);

/// Looks a name up.
type LookUp = Box<dyn Fn(&str, u16) -> Result<Vec<SocketAddr>, String> + Send + Sync>;

/// Who is asked in place of the system's resolver.
static LOOK_UP: OnceLock<LookUp> = OnceLock::new();

/// From now on names are looked up by `look_up`, in place of the system's resolver, which this process may
/// not ask. The first call decides.
pub(crate) fn look_up_by(
    look_up: impl Fn(&str, u16) -> Result<Vec<SocketAddr>, String> + Send + Sync + 'static,
) {
    LOOK_UP.get_or_init(|| Box::new(look_up));
}

/// What a name stands for.
pub(crate) fn look_up(name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if let Some(look_up) = LOOK_UP.get() {
        return look_up(name, port);
    }
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

/// All that was found at the start, and for the last configuration.
pub(crate) fn found() -> Vec<(String, u16, Vec<SocketAddr>)> {
    AT_START_FOUND.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Somebody else has found what a name stands for.
pub(crate) fn know(name: &str, port: u16, addresses: Vec<SocketAddr>) {
    let mut found = AT_START_FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    found.retain(|known| known.0 != name || known.1 != port);
    found.push((name.to_owned(), port, addresses));
}

/// What was found for a name at the start; nothing if it was not.
pub(crate) fn found_at_start(name: &str, port: u16) -> Vec<SocketAddr> {
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
    // The thread goes on where the resolver does not answer.
    let thread = std::thread::Builder::new().name("resolver".to_owned());
    // Nobody hears it when it is late.
    let started = thread.spawn(move || drop(tell.send(look_up(&asked, port))));
    if started.is_err() {
        return Ok(None);
    }
    match told.recv_timeout(AT_START) {
        Ok(Ok(addresses)) => {
            know(name, port, addresses.clone());
            Ok(Some(addresses))
        }
        // EAI_AGAIN is no answer.
        Ok(Err(error)) if error.contains("Temporary failure") => Ok(None),
        Ok(Err(error)) => Err(format!("{error}; write an address that exists, such as 127.0.0.1:8080")),
        Err(_) => Ok(None),
    }
}
