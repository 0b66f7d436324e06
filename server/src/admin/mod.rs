//! The server for operators: metrics, health, a page for people, and orders.
//!
//! It runs only when it is asked for, on an address of its own, and its requests are in no log and no count.
//! A thread of its own answers ([`server`]), and waits for nobody. What the processes count is asked for by
//! another ([`asking`]), which reads what the cores count and waits for none of them. So both also answer
//! when a core is stuck, and cost the cores nothing. A request is small and has one answer ([`request`],
//! [`routes`]).

mod asking;
pub(crate) mod options;
mod request;
mod routes;
mod server;
pub(crate) mod several;
mod socket;
mod source;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use options::AdminAddress;
use server::{Server, Stop};
use socket::Listener;
use source::Source;

use crate::listen::passed::Passed;
use crate::metrics;

/// The address for operators, opened, and nobody answers yet.
pub(crate) struct Entrance(Listener, String);

/// What a program needs to take the address for operators over.
pub(crate) struct Handle {
    address: String,
    socket: OwnedFd,
    is_given: Arc<AtomicBool>,
}

impl Handle {
    /// The address, as it was written, and a descriptor of its socket.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn copy(&self) -> io::Result<(String, OwnedFd)> {
        Ok((self.address.clone(), self.socket.try_clone()?))
    }

    /// The other program has it: here nobody is accepted any more.
    pub(crate) fn give(&self) {
        self.is_given.store(true, Ordering::Release);
    }
}

/// The thread that answers. It ends when this is dropped.
pub(crate) struct Admin {
    stop: Option<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Entrance {
    /// Opens it, or takes it over from the program before.
    ///
    /// # Errors
    /// What is wrong with the address, and what to do.
    pub(crate) fn open(address: &AdminAddress, passed: &Passed) -> Result<Self, String> {
        let opened = match passed.admin(Some(&address.to_string())) {
            Some(socket) => Listener::take_over(address, socket),
            None => Listener::open(address),
        };
        let listener = opened.map_err(|error| {
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
        Ok(Entrance(listener, address.to_string()))
    }

    /// What a program needs to take it over.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn handle(&self) -> io::Result<Handle> {
        let socket = self.0.as_fd().try_clone_to_owned()?;
        Ok(Handle { address: self.1.clone(), socket, is_given: Arc::clone(self.0.is_given()) })
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
