//! The log: to stderr, quiet unless asked.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::exit::Failure;

/// The environment variable that filters the log, in tracing-subscriber's language (`debug`,
/// `annulus::proxy=trace,info`). It outranks `-v`.
pub(crate) const VARIABLE: &str = "ANNULUS_LOG";

/// Starts the log; `verbose` counts the `-v` flags. Call it once.
pub(crate) fn start(verbose: u8) -> Result<(), Failure> {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let filter = match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|error| {
            Failure::input(format!(
                "{VARIABLE}={text:?} is not a log filter ({error}); write for example {VARIABLE}=debug"
            ))
        })?,
        Ok(_) | Err(std::env::VarError::NotPresent) => EnvFilter::default().add_directive(level.into()),
        Err(std::env::VarError::NotUnicode(_)) => {
            return Err(Failure::input(format!(
                "{VARIABLE} is not text; write for example {VARIABLE}=debug"
            )));
        }
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter)
        // It would complain on stderr that stderr cannot be written to, by a macro that panics.
        .log_internal_errors(false)
        .try_init()
        .map_err(|error| Failure::failed("cannot start the log", error))
}
