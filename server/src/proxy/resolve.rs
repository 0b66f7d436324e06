//! Keeps the addresses of upstreams up to date whose names are looked up.
//!
//! The system's resolver is asked, because it alone knows what the machine's operator has set up: /etc/hosts,
//! search domains, nsswitch. It does not tell how long an answer holds, so it is asked every
//! [`resolve_interval`](super::options::UpstreamArgs::resolve_interval) seconds; where it caches, that costs
//! no packet. A stub resolver of our own (hickory-proto) would know the TTL and none of the rest. Where no
//! answer comes, or an empty one, the addresses stay as they were: connections that are open keep theirs, and
//! new ones have an address to go to.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::names::{AT_START, look_up};
use super::upstreams::{Upstream, Upstreams};

/// Keeps the addresses of an upstream up to date, as a task of one core, for as long as anybody uses them.
pub(super) async fn keep(upstreams: Weak<Upstreams>, place: usize, name: String, port: u16) {
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
            // Logged once, until a name is found again.
            Err(error) if !std::mem::replace(&mut was_told, true) => {
                tracing::warn!(upstream = %upstream.target(), error, "the name is not found; its addresses stay as they were");
            }
            Err(_) => {}
        }
        // Clients wait while there is no address.
        let interval = Duration::from_secs(all.args().resolve_interval);
        let interval = if upstream.addresses().is_empty() { interval.min(AT_START) } else { interval };
        drop(all);
        annulus::time::sleep(interval).await;
    }
}
