//! The commands about files of configuration.

use std::io::Write;
use std::path::Path;

use clap::ArgMatches;

use crate::config::{self, Configuration, Loaded};
use crate::exit::{Failure, Kind};

/// Reads a file; what is wrong with it is told on standard error, a line each.
pub(super) fn load(file: &Path) -> Result<Loaded, Failure> {
    config::load(file).map_err(|lines| {
        // In one write, and without the program's name: editors read such lines.
        let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        drop(std::io::stderr().lock().write_all(text.as_bytes()));
        Failure::told(Kind::Input, format!("{} is wrong", file.display()))
    })
}

/// Says whether a file is right.
pub(super) fn check(file: &Path) -> Result<(), Failure> {
    let config = load(file)?.read.config;
    let addresses: usize = config.listeners.iter().map(|listener| listener.addresses().len()).sum();
    let (listeners, addresses) =
        (count(config.listeners.len(), "listener", ""), count(addresses, "address", "es"));
    out(&format!("{} is right: {listeners} on {addresses}\n", file.display()))
}

fn count(number: usize, what: &str, plural: &str) -> String {
    let plural = if plural.is_empty() { "s" } else { plural };
    format!("{number} {what}{}", if number == 1 { "" } else { plural })
}

/// The file that equals a command line, whose command, `serve` or `proxy`, is the next of `matches`.
pub(super) fn text(matches: &ArgMatches, config: &Configuration) -> Result<String, String> {
    let matches = matches.subcommand().map_or(matches, |(_, serving)| serving);
    config::write::write(matches, config)
}

/// Prints it.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    out(text)
}

fn out(text: &str) -> Result<(), Failure> {
    std::io::stdout().lock().write_all(text.as_bytes()).or_else(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Failure::failed("cannot write to standard output", error)),
    })
}
