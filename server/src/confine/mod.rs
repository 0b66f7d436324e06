//! Least rights: a process that serves clients gives up everything that serving does not need.
//!
//! The process that was started keeps its rights: it opens sockets and directories, reads the
//! configuration, looks up names and starts programs. Another process serves, even where one process serves
//! all nodes. Before it serves anybody it becomes another user ([`user`]), reads only files below the parents
//! of its roots ([`files`]), and makes only the system calls that serving needs ([`filter`]). Its rings take
//! no operations but the library's (`RingFeatures::sealed`), whether or not it is confined, because no filter
//! sees what a ring does.

pub(crate) mod files;
pub(crate) mod filter;
pub(crate) mod options;
pub(crate) mod user;

use std::sync::{Mutex, PoisonError};

/// What is in force in this process, one line for each restriction.
static IN_FORCE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes a restriction that is in force, for the report.
fn note(line: String) {
    tracing::info!("{line}");
    IN_FORCE.lock().unwrap_or_else(PoisonError::into_inner).push(line);
}

/// What is in force in this process, one line for each restriction; none where nothing was asked for.
pub(crate) fn in_force() -> Vec<String> {
    IN_FORCE.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
