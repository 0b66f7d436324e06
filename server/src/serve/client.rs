//! The client of a connection.

use std::cell::Cell;
use std::rc::Rc;

use annulus::net::{Connection, Family};

use super::deadline_timer::DeadlineTimer;
use super::deadlines::DeadlineArgs;
use crate::listen::client::peer_of;
use crate::log::access;

/// A client, and how long we wait for it.
pub(super) struct Client<F: Family> {
    pub(super) stream: Connection<F>,
    pub(super) timer: DeadlineTimer,
    pub(super) deadlines: Rc<DeadlineArgs>,
    /// Where the client is, once it was asked for.
    pub(super) known: Cell<Option<access::Client>>,
    /// The other end of the connection, where requests name their client.
    pub(super) peer: Option<Box<access::Client>>,
    /// What the last answer was.
    pub(super) sent: Sent,
}

impl<F: Family> Client<F> {
    /// Where the client is. Asked for the first time, it is a call to the system, which knows it no more once
    /// the connection has gone.
    pub(super) fn address(&self) -> access::Client {
        self.known.get().unwrap_or_else(|| {
            let address = peer_of(&self.stream);
            self.known.set(Some(address));
            address
        })
    }
}

/// What was sent for a request, for the access log.
#[derive(Default)]
pub(super) struct Sent {
    /// The status code; 0 before there is any.
    pub(super) status: u16,
    /// Bytes of the body.
    pub(super) bytes: u64,
}
