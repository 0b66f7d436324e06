//! The logs: what happened, on standard error, and what was asked for, where the operator wants it.
//!
//! No other thread waits for a log. It puts its line into a bounded queue ([`queue`]); a thread for each
//! place ([`writer`]) takes lines out and writes them ([`sink`]), and it alone waits where a terminal, a pipe
//! or a disk takes nothing. When a queue is full, lines are dropped and counted, and the count is told when
//! lines get through again. Every core has a queue of its own, in memory of its node; other threads share
//! one.
//!
//! - [`diagnostics`] is the log on standard error, with [`repeats`] for what says the same again and again;
//! - [`access`] has a line for each request and each relayed connection.

pub(crate) mod access;
mod barrier;
mod diagnostics;
pub(crate) mod options;
mod queue;
mod repeats;
mod sink;
mod writer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) use diagnostics::{begin, filter, on_core, say, speak_as, start_tracing};
pub(crate) use writer::LogCounts;

/// How long the end of the program waits for a reader that takes nothing.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long it waits for a disk that takes nothing.
const DISK_PATIENCE: Duration = Duration::from_secs(5);

/// SIGUSR2: opens the files of all logs again, once what was logged before is written.
pub(crate) fn reopen() {
    access::reopen();
}

/// Whether the counts of the logs are told at the end.
static COUNTS_AT_END: AtomicBool = AtomicBool::new(false);

/// Has [`end`] print the counts: they are final only when nothing waits to be written.
pub(crate) fn tell_counts_at_end() {
    COUNTS_AT_END.store(true, Ordering::Relaxed);
}

/// Writes all that is logged, and waits for it as long as somebody takes it. Call it last.
pub(crate) fn end() {
    // The access log reports its errors in the other log.
    access::end(PATIENCE, DISK_PATIENCE);
    if COUNTS_AT_END.load(Ordering::Relaxed) {
        counted().iter().for_each(|line| say(line));
    }
    diagnostics::end(PATIENCE, DISK_PATIENCE);
}

/// What each log has counted, a line each.
pub(crate) fn counted() -> Vec<String> {
    let (diagnostics, access) = counts();
    let line = |(name, counts): (&str, LogCounts)| {
        let LogCounts { logged, written, dropped } = counts;
        format!("log {name} logged={logged} written={written} dropped={dropped}")
    };
    [("stderr", diagnostics)].into_iter().chain(access.map(|counts| ("access", counts))).map(line).collect()
}

/// What the log on standard error has counted, and the access log, if there is one.
pub(crate) fn counts() -> (LogCounts, Option<LogCounts>) {
    (diagnostics::counts(), access::counts())
}
