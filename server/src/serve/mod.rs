//! `annulus serve`: the files below a directory, over HTTP/1.1.

mod cache;
mod client;
mod clock;
pub(crate) mod connection;
mod deadline_timer;
pub(crate) mod deadlines;
mod entry;
mod facts;
mod file_body;
mod listing;
mod local;
mod lookup;
mod open;
pub(crate) mod options;
mod pages;
mod parts;
#[cfg(test)]
mod played;
mod respond;
pub(crate) mod roots;
mod rule;
mod rules;
mod send;
mod send_method;
mod site;
pub(crate) mod sites;
mod wanted;

use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
pub(crate) use site::{Site, Sites};

use crate::exit::Failure;

/// What the names of hidden files begin with.
const HIDDEN: &[u8] = b".";

/// How much of a large file is sent under one deadline, in bytes.
pub(crate) const SEND_STEP: u64 = 1024 * 1024;

/// How long a client that connected just before the end may take to send its first request.
pub(crate) const LAST_REQUEST_TIMEOUT: Duration = Duration::from_millis(500);

/// Makes sure, before anything starts, that `root` is a directory whose files can be reached.
///
/// # Errors
/// [`crate::exit::Kind::Input`], with the remedy.
pub(crate) fn check_root(root: &Path) -> Result<(), Failure> {
    let open = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(root, flags, Mode::empty())?;
        // Listing a directory and opening what is in it take two permissions.
        rustix::fs::statat(&directory, ".", AtFlags::empty())
    };
    let Err(errno) = open() else {
        return Ok(());
    };
    let remedy = match errno {
        Errno::NOENT => "name a directory that exists",
        Errno::NOTDIR => "name the directory that holds the files",
        Errno::ACCESS => "change its rights, or serve as a user who may read it",
        _ => "name another directory",
    };
    let cause = std::io::Error::from(errno);
    Err(Failure::input(format!("cannot serve {}: {cause}: {remedy}", root.display())))
}

#[cfg(test)]
mod tests {
    use crate::exit::Kind;

    use super::*;

    #[test]
    fn a_root_must_be_a_directory() {
        assert!(check_root(Path::new(".")).is_ok());
        for (bad, word) in [("/no/such/place", "No such file"), ("Cargo.toml", "Not a directory")] {
            let failure = check_root(Path::new(bad)).unwrap_err();
            assert_eq!(failure.kind(), Kind::Input);
            let text = failure.to_string();
            assert!(text.contains(bad) && text.contains(word) && !text.contains('\n'), "{text}");
        }
    }
}
