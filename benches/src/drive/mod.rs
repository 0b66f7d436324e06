//! The load driver: one thread on epoll, which plays the clients and, for a relay, the server behind it as well.
//!
//! Every session can check each byte against [`pattern`](crate::pattern) (`verify`), which costs time, or only
//! count (`run`), which is what gets measured. Connections are made before the clock starts.

mod backend;
mod bulk;
mod echo;
mod http;
mod poller;

pub use backend::Backend;
pub use bulk::{Bulk, Direction};
pub use echo::Echo;
pub use http::Http;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// What one timed run did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Requests answered, or messages that came back, or for bulk the connections that were served.
    pub requests: u64,
    /// Payload bytes delivered to the driver, heads not counted.
    pub bytes: u64,
    /// From the first byte sent to the last one received.
    pub wall: Duration,
}

/// Load on one server, over connections that are open.
pub trait Session {
    /// Has the server do some work and checks every byte of it.
    ///
    /// # Errors
    /// A wrong byte, a connection that ended, nothing for [`STALL`], or an answer that is not what was asked for.
    fn verify(&mut self) -> io::Result<()>;

    /// Has the server do `work` (requests, messages, or bytes for bulk) and counts.
    ///
    /// # Errors
    /// As [`Session::verify`], but of the bytes only their number is checked.
    fn run(&mut self, work: u64) -> io::Result<Outcome>;
}

/// After so long without any progress a server counts as stuck.
pub const STALL: Duration = Duration::from_secs(10);

/// What to ask of a server.
#[derive(Clone, Debug)]
pub enum Load {
    /// GET `path` over `connections` keep-alive connections, each with one request under way; the body must be the
    /// first `body` bytes of the pattern.
    Http {
        /// Beginning with a slash.
        path: String,
        /// Bytes of the body.
        body: u64,
        /// How many.
        connections: usize,
    },
    /// Messages of `size` bytes (at most 16 KiB) that must come back, one under way on each connection. `relayed`:
    /// the driver's own backend sends them back, through the server.
    Echo {
        /// Bytes of a message.
        size: usize,
        /// How many.
        connections: usize,
        /// Through a relay.
        relayed: bool,
    },
    /// Bulk bytes between the driver's own backend and its clients, through the server.
    Bulk {
        /// Which way.
        direction: Direction,
        /// How many.
        connections: usize,
    },
}

impl Load {
    /// Opens the connections. Bodies are received without being copied out of the kernel (MSG_TRUNC, tcp(7)) in
    /// timed runs, unless `copy`: then the client reads them as a real one would, and has less time for the server.
    ///
    /// # Errors
    /// The server cannot be reached, or the load needs a `backend` and there is none.
    pub fn open<'a>(
        &self,
        server: SocketAddr,
        backend: Option<&'a Backend>,
        copy: bool,
    ) -> io::Result<Box<dyn Session + 'a>> {
        let needed = || {
            backend.ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, "a relay needs the driver's backend behind it")
            })
        };
        Ok(match self {
            Load::Http { path, body, connections } => {
                Box::new(Http::open(server, path, *body, *connections, copy)?)
            }
            Load::Echo { size, connections, relayed: false } => {
                Box::new(Echo::open(server, None, *size, *connections)?)
            }
            Load::Echo { size, connections, relayed: true } => {
                Box::new(Echo::open(server, Some(needed()?), *size, *connections)?)
            }
            Load::Bulk { direction, connections } => {
                Box::new(Bulk::open(server, needed()?, *direction, *connections, copy)?)
            }
        })
    }
}

/// An error that says what the server did wrong.
fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}
