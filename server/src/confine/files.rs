//! The files that a serving process may reach: those below the parents of its roots, and those that the C
//! library and the report read (Landlock, `landlock(7)`, Linux 5.13).

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, RulesetStatus,
};

use super::note;
use crate::exit::{Failure, Kind};

/// What is read besides the roots: libraries that the program loads, and figures about process and machine.
/// Nothing of /etc is read, because the first process looks names up.
const READ_TOO: [&str; 6] = ["/usr", "/lib", "/lib64", "/proc", "/sys", "/dev"];

/// Which files may be reached.
pub(crate) enum Rules {
    /// All files, for the reason that the report gives.
    All(String),
    /// The files that the rules name, and the text for the report.
    Some(Box<RulesetCreated>, String),
}

impl Rules {
    /// The rules for the parents of `roots`, and for the folders of `logs`, which may be written.
    ///
    /// A root that is a symbolic link may be changed to lead elsewhere, and its parent says nothing about
    /// where. Then files are not restricted, and the report says so.
    ///
    /// # Errors
    /// The kernel has Landlock and refuses the rules.
    pub(crate) fn find(roots: &[PathBuf], logs: &[PathBuf]) -> Result<Rules, Failure> {
        if let Some(link) = roots.iter().find(|root| is_link(root)) {
            let what = format!("files: not restricted: {} is a link, and may lead elsewhere", link.display());
            return Ok(Rules::All(what));
        }
        let parents: Vec<String> = roots.iter().map(|root| parent(root).display().to_string()).collect();
        let what = match parents.is_empty() {
            true => "files: none of anybody's are read (Landlock)".to_owned(),
            false => format!("files: read below {} only (Landlock)", parents.join(", ")),
        };
        Ok(Rules::Some(Box::new(rules(roots, logs).map_err(refused)?), what))
    }

    /// Keeps this thread, and every one that it starts, from all other files. Call it before the first thread
    /// is started.
    ///
    /// # Errors
    /// The kernel has Landlock and refuses the rules.
    pub(crate) fn enforce(self) -> Result<(), Failure> {
        let (rules, what) = match self {
            Rules::All(what) => {
                note(what);
                return Ok(());
            }
            Rules::Some(rules, what) => (rules, what),
        };
        note(match rules.restrict_self().map_err(refused)?.ruleset {
            RulesetStatus::NotEnforced => {
                "files: not restricted: this kernel has no Landlock (Linux 5.13, and lsm=landlock)".to_owned()
            }
            RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => what,
        });
        Ok(())
    }
}

fn refused(error: RulesetError) -> Failure {
    Failure::new(Kind::Platform, format!("cannot restrict which files can be reached (Landlock): {error}"))
}

fn rules(roots: &[PathBuf], logs: &[PathBuf]) -> Result<RulesetCreated, RulesetError> {
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
    Ok(rules)
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
