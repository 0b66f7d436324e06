//! What clap answers, as this program says it.

use crate::exit::Failure;

/// Prints help or version.
pub(super) fn print(answer: &clap::Error) -> Result<(), Failure> {
    answer.print().or_else(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Failure::failed("cannot write to standard output", error)),
    })
}

/// What clap says about a wrong command line, in one line: cause, tip, and where to read more.
pub(super) fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut said = Vec::new();
    let mut command = String::from("annulus");
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(usage) = line.strip_prefix("Usage: ") {
            let words: Vec<_> =
                usage.split(' ').take_while(|word| !word.starts_with(['[', '<', '-'])).collect();
            command = words.join(" ");
        }
        if line.starts_with("Usage: ") || line.starts_with("For more information") {
            break;
        }
        said.push(line.trim_start_matches("error: ").trim_start_matches("tip: "));
    }
    format!("{}; see {command} --help", said.join("; ").replace(":;", ":"))
}
