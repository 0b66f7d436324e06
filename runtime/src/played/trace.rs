//! What happened, step by step, so that a failure can be read.

use std::collections::VecDeque;
use std::fmt;

/// How many lines are kept for the message of a failure.
const KEPT: usize = 80;

/// What is done with the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracing {
    /// No line is made. A seed that fails is played again.
    Off,
    /// The last ones are kept, for the message of the failure.
    Last,
    /// Each is printed as it comes.
    All,
}

/// The lines of a play.
pub(super) struct Trace {
    lines: VecDeque<String>,
    tracing: Tracing,
    /// Something was wrong: what comes after it does not matter.
    pub(super) stopped: bool,
}

impl Trace {
    pub(super) fn new(tracing: Tracing) -> Self {
        Self { lines: VecDeque::new(), tracing, stopped: false }
    }

    pub(super) fn line(&mut self, step: u64, time: u64, what: fmt::Arguments<'_>) {
        if self.stopped || self.tracing == Tracing::Off {
            return;
        }
        let line = format!("{step:>5} {:>12} us  {what}", time / 1000);
        if self.tracing == Tracing::All {
            eprintln!("{line}");
            return;
        }
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The last lines, for the message of a failure.
    pub(super) fn last(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}
