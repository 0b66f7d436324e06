//! Which clients a listener serves, and what proxies in front say of them.

use std::time::Duration;

use annulus::net::{Connection, Family};

use super::client::{Client, peer_of};
use super::forwarded::{self, Field};
use super::networks::{AccessList, Network};
use super::proxy_protocol::{Header, Parsed, parse};
use crate::log::access::Client as Address;

/// How long a PROXY header may take to come.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a listener checks before it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gate {
    access: AccessList,
    /// Whose connections begin with a PROXY header.
    proxies: Vec<Network>,
    /// Whose requests name the client.
    forwarders: Vec<Network>,
    field: Field,
}

impl Gate {
    /// For the clients of `access`. The connections of `proxies` begin with a PROXY header, and the requests
    /// of `forwarders` name the client in `field`.
    pub(crate) fn new(
        access: AccessList,
        proxies: Vec<Network>,
        forwarders: Vec<Network>,
        field: Field,
    ) -> Self {
        Gate { access, proxies, forwarders, field }
    }

    /// Whether every client is allowed and no proxy is trusted: then there is nothing to check.
    pub(crate) fn is_open(&self) -> bool {
        self.access.is_empty() && self.proxies.is_empty()
    }

    /// Whether requests may name the client.
    pub(crate) fn reads_requests(&self) -> bool {
        !self.forwarders.is_empty()
    }

    /// The client of a request of `peer`, when the lines of the trusted field are `lines`. `None` where the
    /// lists refuse that client.
    pub(crate) fn forwarded(&self, peer: Address, lines: &[u8]) -> Option<Address> {
        let client = forwarded::client(peer, &self.forwarders, self.field, lines);
        self.access.allows(&client).then_some(client)
    }

    /// Which field is believed.
    pub(crate) fn field(&self) -> Field {
        self.field
    }

    /// Admits a connection, after its PROXY header where it has one; `None` when it was closed.
    ///
    /// # Cancellation
    /// Closes it.
    pub(crate) async fn admit<F: Family>(&self, stream: Connection<F>) -> Option<Client<F>> {
        let mut client = Client::new(stream);
        let peer = peer_of(&client.stream);
        if self.proxies.iter().any(|network| network.has(&peer)) {
            let header = annulus::time::timeout(HEADER_TIMEOUT, read_header(&mut client)).await;
            if let Err(why) = header.unwrap_or(Err("no PROXY header came in time")) {
                tracing::info!(client = %peer, why, "the connection is closed: it was to begin with a PROXY header");
                return None;
            }
        }
        let from = client.declared.map_or(peer, Address::Tcp);
        // For a proxy that names clients in requests, each request is judged.
        let speaks_for_others = self.forwarders.iter().any(|network| network.has(&from));
        if speaks_for_others || self.access.allows(&from) {
            return Some(client);
        }
        tracing::info!(client = %from, "the connection is closed: the lists do not allow it");
        None
    }
}

/// Reads a header, and leaves what came behind it.
async fn read_header<F: Family>(client: &mut Client<F>) -> Result<(), &'static str> {
    let mut before = Vec::new();
    loop {
        let mut chunk = match client.stream.recv().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Err("it ended before the header did"),
            Err(error) => {
                tracing::debug!(%error, "the connection broke off before its PROXY header");
                return Err("it broke off before the header ended");
            }
        };
        let known = before.len();
        // Nearly always it comes in one piece, and is read where it lies.
        let parsed = if known == 0 {
            parse(&chunk)
        } else {
            before.extend_from_slice(&chunk);
            parse(&before)
        };
        match parsed {
            Parsed::Complete(header, len) => {
                if let Header::Addresses { from, .. } = header {
                    client.declared = Some(super::client::canonical(from));
                }
                chunk.advance(len - known);
                client.first = Some(chunk).filter(|rest| !rest.is_empty());
                return Ok(());
            }
            Parsed::Partial if known == 0 => before.extend_from_slice(&chunk),
            Parsed::Partial => {}
            Parsed::Wrong(why) => return Err(why),
        }
    }
}
