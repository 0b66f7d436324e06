//! What a package has beside the program, made from the definition of the command line: a manual page for
//! each command, completions for shells.

use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

use crate::exit::Failure;

/// The shells that the distributions have, and the folder and name that each looks for.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Writes `DIR/man/*.1` and `DIR/completions/*` for `command`.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn write(command: Command, dir: &Path) -> Result<(), Failure> {
    write_all(command, dir)
        .map_err(|error| Failure::input(format!("cannot write below {}: {error}", dir.display())))
}

fn write_all(mut command: Command, dir: &Path) -> io::Result<()> {
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    std::fs::create_dir_all(&man)?;
    std::fs::create_dir_all(&completions)?;
    // A page of its own for `annulus config serve` would say what `annulus serve` says.
    let pages = command.clone().mut_subcommand("config", |config| {
        config.mut_subcommands(|serving| serving.hide(true)).disable_help_subcommand(true)
    });
    clap_mangen::generate_to(pages.disable_help_subcommand(true), &man)?;
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut command, "annulus", &completions)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    /// Seen to fail: with a command that is hidden and has a page.
    #[test]
    fn every_command_that_people_see_has_a_page_and_every_flag_stands_in_it() {
        let dir = std::env::temp_dir().join(format!("annulus-package-files-{}", std::process::id()));
        write(Cli::command(), &dir).unwrap();
        let mut pages: Vec<String> = std::fs::read_dir(dir.join("man"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let command = Cli::command();
        let seen = || command.get_subcommands().filter(|command| !command.is_hide_set());
        let mut wanted: Vec<String> =
            seen().map(|command| format!("annulus-{}.1", command.get_name())).collect();
        wanted.push("annulus.1".to_owned());
        pages.sort();
        wanted.sort();
        assert_eq!(pages, wanted);
        for command in seen() {
            let page = dir.join(format!("man/annulus-{}.1", command.get_name()));
            let page = std::fs::read_to_string(page).unwrap();
            let bash = std::fs::read_to_string(dir.join("completions/annulus.bash")).unwrap();
            for flag in command.get_arguments().filter_map(|argument| argument.get_long()) {
                assert!(page.contains(&format!("\\-\\-{}", flag.replace('-', "\\-"))), "{flag}");
                assert!(bash.contains(&format!("--{flag}")), "{flag}");
            }
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
