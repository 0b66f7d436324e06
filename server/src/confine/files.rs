//! The files that a serving process may reach: those below the parents of its roots, and those that the C
//! library and the report read (Landlock, `landlock(7)`, Linux 5.13).

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus,
};

use super::note;
use crate::exit::{Failure, Kind};

/// What is read in addition: for name resolution, libraries that it loads, and figures about process and
/// machine.
const READ_TOO: [&str; 8] = ["/etc", "/run", "/usr", "/lib", "/lib64", "/proc", "/sys", "/dev"];

/// From now on this thread, and every thread that it starts, reaches only files below the parents of `roots`,
/// and files in the folders of `logs`, which it may write. Call it before the first thread.
///
/// A root that is a symbolic link may lead elsewhere later, and its parent says nothing about where. In that
/// case there is no such restriction, and this is noted.
///
/// # Errors
/// The kernel has Landlock and refuses the rules.
pub(crate) fn restrict(roots: &[PathBuf], logs: &[PathBuf]) -> Result<(), Failure> {
    if let Some(link) = roots.iter().find(|root| is_link(root)) {
        note(format!("files: not restricted: {} is a link, and may lead elsewhere", link.display()));
        return Ok(());
    }
    let status = apply(roots, logs).map_err(|error| {
        Failure::new(
            Kind::Platform,
            format!("cannot restrict which files can be reached (Landlock): {error}"),
        )
    })?;
    note(match status {
        RulesetStatus::NotEnforced => {
            "files: not restricted: this kernel has no Landlock (Linux 5.13, and lsm=landlock)".to_owned()
        }
        RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => {
            let parents: Vec<String> = roots.iter().map(|root| parent(root).display().to_string()).collect();
            format!("files: read below {} only (Landlock)", parents.join(", "))
        }
    });
    Ok(())
}

fn apply(roots: &[PathBuf], logs: &[PathBuf]) -> Result<RulesetStatus, landlock::RulesetError> {
    let abi = ABI::V5;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules = Ruleset::default().handle_access(AccessFs::from_all(abi))?.create()?;
    let read_too = READ_TOO.iter().map(|path| (PathBuf::from(path), read));
    let roots = roots.iter().map(|root| (parent(root), read));
    let written: BitFlags<AccessFs> = read | AccessFs::WriteFile | AccessFs::MakeReg;
    let logs = logs.iter().map(|log| (parent(log), written));
    for (path, access) in read_too.chain(roots).chain(logs) {
        // A path that does not exist needs no rule.
        if let Ok(folder) = PathFd::new(&path) {
            rules = rules.add_rule(PathBeneath::new(folder, access))?;
        }
    }
    // The only device that is written is /dev/null.
    if let Ok(null) = PathFd::new("/dev/null") {
        rules = rules.add_rule(PathBeneath::new(null, AccessFs::ReadFile | AccessFs::WriteFile))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

fn is_link(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|file| file.is_symlink())
}

/// The folder that contains `path`.
fn parent(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.parent().map_or_else(|| path.clone(), Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents() {
        assert_eq!(parent(Path::new("/srv/www")), Path::new("/srv"));
        assert_eq!(parent(Path::new("/")), Path::new("/"));
        assert_eq!(parent(Path::new("www")), std::env::current_dir().unwrap());
    }
}
