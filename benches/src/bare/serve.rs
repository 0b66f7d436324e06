//! How a bare server begins and ends.

use super::args::Common;
use super::core::Core;
use std::io;
use std::process::ExitCode;

/// Pins the thread, makes the ring, listens, says so on stderr, and runs `server` until it ends.
///
/// Exits with 0 when `server` returns, as it does on SIGTERM, and with 1 and one line on stderr when
/// something failed.
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
