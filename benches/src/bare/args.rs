//! What all bare servers take on the command line, and how they begin and end.

use super::core::Core;
use clap::Args;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

/// Flags that every bare server has.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// The one CPU to run on, io-wq workers included
    #[arg(long)]
    pub cpu: u32,
    /// Where to listen; port 0 lets the kernel choose
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// io-wq workers of each class at most
    #[arg(long, default_value_t = 2)]
    pub workers: u32,
    /// Blocks in the receive buffer ring, a power of two
    #[arg(long, default_value_t = 1024)]
    pub buffers: u16,
    /// Bytes in each of them
    #[arg(long, default_value = "4k", value_parser = crate::size::parse_size)]
    pub buffer_size: u64,
}

/// Pins the thread, makes the ring, listens, says so on stderr, and runs `server` until it ends.
///
/// Exits with 0 when `server` returns, as it does on SIGTERM, and with 1 and one line on stderr when something failed.
pub fn serve<S>(common: &Common, server: impl FnOnce(&mut Core<S>) -> io::Result<()>) -> ExitCode {
    let run = || {
        let (mut core, address) = Core::new(common)?;
        eprintln!("listening on {address}");
        server(&mut core)
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}
