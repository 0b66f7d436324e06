//! What all peers share: the command line, the bytes they answer with, and the micro-operations.
//!
//! The modules are those of the benches themselves, included by path: a dependency on that package would
//! build Annulus into every peer.

#[path = "../../../src/cputime.rs"]
pub mod cputime;
#[path = "../../../src/micro.rs"]
pub mod micro;
#[path = "../../../src/pattern.rs"]
pub mod pattern;
#[path = "../../../src/pin.rs"]
pub mod pin;
#[path = "../../../src/bare/request.rs"]
pub mod request;
#[path = "../../../src/size.rs"]
pub mod size;

use clap::{Parser, Subcommand};
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;

/// Receive buffers of this many bytes, as the bare servers have.
pub const BLOCK: usize = 4096;

/// The same work on another runtime, on one CPU.
#[derive(Parser)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub work: Work,
}

/// What a peer can do.
#[derive(Subcommand)]
pub enum Work {
    /// Answer every HTTP request with the same bytes
    Hello(Hello),
    /// The same through hyper, where the peer has it
    Hyper(Hello),
    /// Send back what comes
    Echo {
        /// The CPU to run on
        #[arg(long)]
        cpu: u32,
    },
    /// Measure a micro-operation and print the figures
    Micro(Micro),
}

/// A server of one answer.
#[derive(clap::Args)]
pub struct Hello {
    /// The CPU to run on
    #[arg(long)]
    pub cpu: u32,
    /// Bytes of the body
    #[arg(long, value_parser = size::parse_size)]
    pub body: u64,
}

impl Hello {
    /// Head and body.
    pub fn answer(&self) -> &'static [u8] {
        let mut answer = request::response_head(self.body);
        answer.extend(pattern::bytes(self.body as usize));
        answer.leak()
    }

    /// The body alone.
    pub fn bytes(&self) -> &'static [u8] {
        pattern::bytes(self.body as usize).leak()
    }
}

/// A micro-operation.
#[derive(clap::Args)]
pub struct Micro {
    /// spawn, yield, timer, ping-pong or sleepers
    pub op: micro::Op,
    /// How often; for sleepers, how many waves of a thousand
    #[arg(long)]
    pub count: u64,
    /// The CPU to run on
    #[arg(long)]
    pub cpu: u32,
    /// The other CPU of ping-pong
    #[arg(long)]
    pub other_cpu: u32,
}

/// Where servers listen.
pub const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Says where a server listens.
pub fn listening(address: SocketAddr) {
    eprintln!("listening on {address}");
}

/// The exit status for `result`, with a line on stderr if it is an error.
pub fn end(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `far` on a thread of its own, pinned to `cpu`, while `near` runs here; returns what `near` does.
///
/// # Errors
/// Either failed.
pub fn beside<T>(
    cpu: u32,
    far: impl FnOnce() -> io::Result<()> + Send + 'static,
    near: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let far = thread::spawn(move || {
        pin::pin_current_thread(cpu)?;
        far()
    });
    let result = near();
    far.join().map_err(|_| io::Error::other("the far thread panicked"))??;
    result
}

/// What this peer does not do.
pub fn not_here(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("this peer has no {what}"))
}
