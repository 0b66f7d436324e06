//! The client of a connection.

use std::rc::Rc;

use annulus::net::{Connection, Family};

use super::deadline_timer::DeadlineTimer;
use super::deadlines::DeadlineArgs;
use crate::log::access;

/// A client, and how long we wait for it.
pub(super) struct Client<F: Family> {
    pub(super) stream: Connection<F>,
    pub(super) timer: DeadlineTimer,
    pub(super) deadlines: Rc<DeadlineArgs>,
    /// Where the client is.
    pub(super) address: access::Client,
    /// The other end of the connection, where requests name their client.
    pub(super) peer: Option<Box<access::Client>>,
    /// What the last answer was.
    pub(super) sent: Sent,
}

/// What was sent for a request, for the access log.
#[derive(Default)]
pub(super) struct Sent {
    /// The status code; 0 before there is any.
    pub(super) status: u16,
    /// Bytes of the body.
    pub(super) bytes: u64,
}
