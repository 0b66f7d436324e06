//! The load driver: one thread, which plays the clients and, for a relay, the server behind it as well.
//!
//! Every session can check each byte against [`pattern`](crate::pattern) (`verify`), which costs time, or
//! only count (`run`), which is what gets measured. Connections are made before the clock starts, but for
//! those that are the work themselves. HTTP and echo are driven by a small loop on epoll that lets the kernel
//! drop bulk bytes uncopied; relays, and load at a fixed rate, by a program on Annulus.

mod asks;
mod backend;
mod beside;
mod brief;
mod bulk;
mod clock;
mod cold;
mod datagrams;
mod echo;
mod exchange;
pub(crate) mod files;
mod fresh;
mod http;
mod order;
mod poller;
mod redis;
mod stranger;
mod wire;

pub use asks::Told;
pub use backend::Backend;
pub use brief::Brief;
pub use bulk::Direction;
pub use cold::{Cold, ColdFile};
pub use datagrams::Datagrams;
pub use echo::Echo;
pub use files::Choice;
pub use fresh::Fresh;
pub use http::Http;
pub use redis::{Command, Redis};
pub use stranger::{Stranger, Tool};

use crate::histogram::Histogram;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// What one timed run did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Requests answered, or messages that came back, or for bulk the connections that were served.
    pub requests: u64,
    /// Payload bytes delivered to the driver, heads not counted.
    pub bytes: u64,
    /// From the first byte sent to the last one received.
    pub wall: Duration,
    /// How long each request took, where that is measured.
    pub latency: Option<Histogram>,
    /// Whether the driver kept its schedule, where it has one.
    pub driver: Option<Driver>,
}

/// How the driver itself fared at a fixed rate, on its own CPU.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Driver {
    /// How late it sent requests that waited for nothing but their moment.
    pub late: Histogram,
    /// How long it had its CPU, of which it always wants all.
    pub cpu: Duration,
}

/// Load on one server, over connections that are open.
pub trait Session {
    /// Has the server do some work and checks every byte of it.
    ///
    /// # Errors
    /// A wrong byte, a connection that ended, nothing for [`STALL`], or an answer that is not what was asked
    /// for.
    fn verify(&mut self) -> io::Result<()>;

    /// Has the server do `work` (requests, messages, or bytes for bulk) and counts.
    ///
    /// # Errors
    /// As [`Session::verify`], but of the bytes only their number is checked.
    fn run(&mut self, work: u64) -> io::Result<Outcome>;
}

/// Bytes of a file that clients have already.
const TOLD_BODY: u64 = 1 << 10;

/// After so long without any progress a server counts as stuck.
pub const STALL: Duration = Duration::from_secs(10);

/// What to ask of a server.
#[derive(Clone, Debug, PartialEq)]
pub enum Load {
    /// GET `path` over `connections` keep-alive connections, each with one request under way; the body must
    /// be the first `body` bytes of the pattern.
    Http {
        /// Beginning with a slash.
        path: String,
        /// Bytes of the body.
        body: u64,
        /// How many.
        connections: usize,
    },
    /// Messages of `size` bytes (at most 16 KiB) that must come back, one under way on each connection.
    /// `relayed`: the driver's own backend sends them back, through the server.
    Echo {
        /// Bytes of a message.
        size: usize,
        /// How many.
        connections: usize,
        /// Through a relay.
        relayed: bool,
    },
    /// GET `path` over a new connection each time, `connections` of them at once.
    Fresh {
        /// Beginning with a slash.
        path: String,
        /// Bytes of the body.
        body: u64,
        /// How many at the same time.
        connections: usize,
    },
    /// GET `path`, which is answered without content, as [`Load::Http`] does.
    Told {
        /// Beginning with a slash.
        path: String,
        /// The answer.
        told: Told,
        /// How many.
        connections: usize,
    },
    /// GET one of 10,000 files of 4 to 32 KiB, as [`Load::Http`] does.
    Many {
        /// Which.
        choice: Choice,
        /// How many.
        connections: usize,
    },
    /// A message of `size` bytes that comes back through a relay, over a new connection each time,
    /// `connections` of them at once.
    Brief {
        /// Bytes of a message.
        size: usize,
        /// How many at the same time.
        connections: usize,
    },
    /// Datagrams of `size` bytes that come back through a relay.
    Datagrams {
        /// Bytes of a datagram.
        size: usize,
        /// How many, each with one under way.
        clients: usize,
    },
    /// GET over one connection; before each request, the file is dropped from the page cache.
    Cold(ColdFile),
    /// `of`, at a fixed rate, while the server streams a file from the disk.
    Beside {
        /// What is measured.
        of: Box<Load>,
        /// What is streamed.
        cold: ColdFile,
    },
    /// `of`, with requests that are due at fixed moments, `rate` in a second over all connections.
    Paced {
        /// HTTP or echo.
        of: Box<Load>,
        /// Requests a second.
        rate: u32,
    },
    /// As HTTP, by a load generator that is not ours.
    Stranger {
        /// Which.
        tool: Tool,
        /// Beginning with a slash.
        path: String,
        /// Bytes of the body.
        body: u64,
        /// How many.
        connections: usize,
    },
    /// Commands of Redis clients, by redis-benchmark.
    Redis {
        /// Which.
        command: Command,
        /// How many of them a client sends at once.
        pipelined: u32,
        /// How many clients.
        connections: usize,
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
    /// Opens the connections. Bodies are received without being copied out of the kernel (MSG_TRUNC, tcp(7))
    /// in timed runs, unless `copy`: then the client reads them as a real one would, and has less time for
    /// the server.
    ///
    /// # Errors
    /// The server cannot be reached, or the load needs a `backend` and there is none.
    pub fn open<'a>(
        &self,
        server: SocketAddr,
        backend: Option<&'a Backend>,
        copy: bool,
    ) -> io::Result<Box<dyn Session + 'a>> {
        let on_annulus = || match backend {
            Some(backend) => backend.open(self, server),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "this load needs the driver's backend")),
        };
        Ok(match self {
            Load::Http { path, body, connections } => {
                Box::new(Http::open(server, path, *body, *connections, copy)?)
            }
            Load::Fresh { path, body, connections } => {
                Box::new(Fresh::open(server, path, *body, *connections)?)
            }
            Load::Told { path, told, connections } => {
                Box::new(Http::told(server, path, *told, *connections, copy)?)
            }
            Load::Many { choice, connections } => Box::new(Http::many(server, *choice, *connections, copy)?),
            Load::Brief { size, connections } => Box::new(Brief::open(server, *size, *connections)?),
            Load::Datagrams { size, clients } => Box::new(Datagrams::open(server, *size, *clients)?),
            Load::Cold(file) => Box::new(Cold::open(server, file, copy)?),
            Load::Stranger { tool, path, body, connections } => {
                Box::new(Stranger::open(*tool, server, path, *body, *connections)?)
            }
            Load::Redis { command, pipelined, connections } => {
                Box::new(Redis::new(server, *command, *pipelined, *connections))
            }
            Load::Echo { size, connections, relayed: false } => {
                Box::new(Echo::open(server, *size, *connections)?)
            }
            Load::Echo { relayed: true, .. }
            | Load::Bulk { .. }
            | Load::Paced { .. }
            | Load::Beside { .. } => Box::new(on_annulus()?),
        })
    }

    /// The least that can be asked of it: one request on each connection, or bulk that is more than all
    /// buffers on the way.
    pub fn least(&self) -> u64 {
        match self {
            Load::Http { connections, .. }
            | Load::Echo { connections, .. }
            | Load::Fresh { connections, .. }
            | Load::Told { connections, .. }
            | Load::Many { connections, .. }
            | Load::Brief { connections, .. }
            | Load::Datagrams { clients: connections, .. }
            | Load::Stranger { connections, .. } => *connections as u64,
            Load::Redis { pipelined, connections, .. } => *connections as u64 * u64::from(*pipelined),
            Load::Cold(_) => 1,
            Load::Paced { of, .. } | Load::Beside { of, .. } => of.least(),
            Load::Bulk { connections, .. } => (*connections as u64) << 20,
        }
    }

    /// The path that is asked for and the bytes of its body, if it is HTTP.
    pub fn asks_for(&self) -> Option<(&str, u64)> {
        match self {
            Load::Http { path, body, .. }
            | Load::Fresh { path, body, .. }
            | Load::Cold(ColdFile { path, body, .. })
            | Load::Stranger { path, body, .. } => Some((path, *body)),
            Load::Told { path, told: Told::NotModified, .. } => Some((path, TOLD_BODY)),
            Load::Paced { of, .. } | Load::Beside { of, .. } => of.asks_for(),
            Load::Echo { .. }
            | Load::Bulk { .. }
            | Load::Told { .. }
            | Load::Many { .. }
            | Load::Brief { .. }
            | Load::Datagrams { .. }
            | Load::Redis { .. } => None,
        }
    }
}

/// An error that says what the server did wrong.
fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}
