//! The server for operators: metrics, health, a page for people, and orders.
//!
//! It runs only when it is asked for, on an address of its own, and its requests are in no log and no count.
//! A thread of its own answers ([`server`]). It reads what the cores count and waits for none of them. So it
//! also answers when a core is stuck, and costs the cores nothing. A request is small and has one answer
//! ([`request`], [`routes`]).

pub(crate) mod options;
mod request;
mod routes;
mod server;
pub(crate) mod several;
mod socket;
mod source;

use std::io;
use std::thread::JoinHandle;

use options::AdminAddress;
use server::{Server, Stop};
use socket::Listener;
use source::Source;

use crate::metrics;

/// The address for operators, opened, and nobody answers yet.
pub(crate) struct Entrance(Listener);

/// The thread that answers. It ends when this is dropped.
pub(crate) struct Admin {
    stop: Option<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Entrance {
    /// Opens it.
    ///
    /// # Errors
    /// What is wrong with the address, and what to do.
    pub(crate) fn open(address: &AdminAddress) -> Result<Self, String> {
        let listener = Listener::open(address).map_err(|error| {
            let remedy = match error.kind() {
                io::ErrorKind::AddrInUse => "end the program that listens there, or choose another",
                io::ErrorKind::AddrNotAvailable => "name an address of this machine",
                io::ErrorKind::PermissionDenied => {
                    "choose a port from 1024 on, or a directory that you may write to"
                }
                _ => "choose another",
            };
            format!("cannot answer operators on {address}: {error}; {remedy}")
        })?;
        metrics::measure_times();
        Ok(Entrance(listener))
    }

    /// What is said of it: `admin on http://ADDR`.
    pub(crate) fn line(&self) -> String {
        format!("admin on {}", self.0.name())
    }

    /// Begins to answer.
    ///
    /// # Errors
    /// That of the thread's start.
    pub(crate) fn answer(self, source: Box<dyn Source>) -> io::Result<Admin> {
        let (server, stop) = Server::new(self.0, source)?;
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || server.run())?;
        Ok(Admin { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        // The thread waits for the next event only. Its panic has been logged.
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
