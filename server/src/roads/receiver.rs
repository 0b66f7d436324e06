//! Who takes what is sent: a thread of this process, or `annulus roads --receive` on another machine.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use super::figures::Cpu;
use crate::exit::{Failure, say};

/// How long a receiver waits for more before it gives its connection up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// To a thread of this process, over loopback.
    Loopback,
    /// To `annulus roads --receive` at this address.
    Elsewhere(SocketAddr),
}

impl Target {
    /// Someone who takes one connection.
    ///
    /// # Errors
    /// A socket or a thread cannot be had.
    pub(super) fn receiver(self) -> std::io::Result<Receiver> {
        match self {
            Target::Elsewhere(address) => Ok(Receiver { address, thread: None }),
            Target::Loopback => {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                let address = listener.local_addr()?;
                let take = move || listener.accept().map_or(Cpu::default(), |(stream, _)| take_all(stream));
                let thread = std::thread::Builder::new().name("receiver".to_owned()).spawn(take)?;
                Ok(Receiver { address, thread: Some(thread) })
            }
        }
    }
}

/// Who takes one connection.
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    thread: Option<JoinHandle<Cpu>>,
}

impl Receiver {
    /// What it used of this process's CPU. Call it when the connection has ended.
    pub(super) fn used(self) -> Cpu {
        self.thread.and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

/// Takes everything that comes, and closes. Returns what that took of the CPU.
fn take_all(mut stream: TcpStream) -> Cpu {
    let mut buf = vec![0; 1 << 20];
    loop {
        match stream.read(&mut buf) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    Cpu::of_thread()
}

/// Ends the sender's side, and waits until the receiver has taken everything and closes.
pub(super) fn finish(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

/// Takes connections at an address, one after the other, until a signal ends the program.
///
/// # Errors
/// The address cannot be listened on.
pub(crate) fn receive(address: SocketAddr) -> Result<(), Failure> {
    let failed = |error| Failure::input(format!("cannot listen on {address}: {error}"));
    let listener = TcpListener::bind(address).map_err(failed)?;
    say(&format!("listening on {}", listener.local_addr().map_err(failed)?));
    loop {
        // A client that has gone before it was accepted is no reason to end.
        let Ok((stream, _)) = listener.accept() else { continue };
        if stream.set_read_timeout(Some(PATIENCE)).is_ok() {
            take_all(stream);
        }
    }
}
