//! What clap answers, as this program says it.

use clap::error::ErrorKind;

use crate::exit::Failure;
use crate::options::values::what_to_write;

/// Prints help or version.
pub(super) fn print(answer: &clap::Error) -> Result<(), Failure> {
    answer.print().or_else(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Failure::failed("cannot write to standard output", error)),
    })
}

/// What clap says about a wrong command line, in one line: cause, tip, and where to read more. `command` is
/// the one that was meant, such as `annulus serve`.
pub(super) fn one_line(error: &clap::Error, command: &str) -> String {
    let text = error.render().to_string();
    let mut said = Vec::new();
    let mut command = command.to_owned();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(usage) = line.strip_prefix("Usage: ") {
            let words: Vec<_> =
                usage.split(' ').take_while(|word| !word.starts_with(['[', '<', '-'])).collect();
            command = words.join(" ");
        }
        if line.starts_with("Usage: ") || line.starts_with("For more information") {
            break;
        }
        // The help has the commands. No value of ours begins with a dash.
        if !line.starts_with("[subcommands:") && !line.starts_with("tip: to pass '-") {
            said.push(line.trim_start_matches("error: ").trim_start_matches("tip: "));
        }
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        said = vec!["the command line ends too early"];
    }
    let said = what_to_write(&said.join("; ").replace(":;", ":"));
    format!("{said}; see {command} --help")
}
