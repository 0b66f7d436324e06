//! What the logs can be told.

use std::path::PathBuf;

use clap::Args;

use super::access::{self, Format};

/// Where the access log goes, and how it looks.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct LogArgs {
    /// Log each request, and each relayed connection, to a file, or "-" for standard output; SIGUSR2 opens
    /// the file again
    #[arg(long, value_name = "PATH|-")]
    pub(crate) access_log: Option<PathBuf>,

    /// How its lines look: "common", "combined" with Referer and User-Agent, or "json"
    #[arg(
        long,
        value_name = "common|combined|json",
        default_value = "combined",
        hide_possible_values = true
    )]
    pub(crate) access_log_format: Format,
}

impl LogArgs {
    /// Opens the access log, if one is asked for.
    ///
    /// # Errors
    /// What cannot be written, why, and what to do.
    pub(crate) fn open(&self) -> Result<(), String> {
        let Some(path) = &self.access_log else { return Ok(()) };
        access::open(path, self.access_log_format).map_err(|error| {
            let remedy = match error.raw_os_error() {
                Some(libc::ENXIO) => "start what reads this FIFO first",
                Some(libc::ENOENT) => "make its directory first",
                Some(libc::EISDIR) => "name a file in it",
                _ => "name a file that may be written",
            };
            format!("cannot write the access log {}: {error}; {remedy}", path.display())
        })
    }
}
