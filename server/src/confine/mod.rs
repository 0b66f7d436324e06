//! Least rights: what serves clients gives up all that serving does not take.
//!
//! The process that was started keeps its rights: it opens sockets and directories, reads the configuration,
//! looks up names, starts programs.
//! A process of its own serves, also where one for all nodes does, and before it serves anybody it becomes
//! another user ([`user`]), reads no files but those below the parents of its roots ([`files`]), and makes no
//! system calls but those that serving takes ([`filter`]). Its rings take no operations but the library's
//! (`RingFeatures::sealed`), with or without all this: no filter sees what a ring does.

pub(crate) mod files;
pub(crate) mod filter;
pub(crate) mod options;
pub(crate) mod user;

use std::sync::{Mutex, PoisonError};

/// What is in force in this process, a line each.
static IN_FORCE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes what is in force, for the report.
fn note(line: String) {
    tracing::info!("{line}");
    IN_FORCE.lock().unwrap_or_else(PoisonError::into_inner).push(line);
}

/// What is in force in this process, a line each; none where nothing was asked for.
pub(crate) fn in_force() -> Vec<String> {
    IN_FORCE.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
