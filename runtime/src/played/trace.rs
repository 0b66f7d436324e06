//! What happened, step by step, so that a failure can be read.

use std::collections::VecDeque;
use std::fmt;

/// Lines that are kept where not all are wanted.
const KEPT: usize = 80;

/// The last lines, or all of them.
pub(super) struct Trace {
    lines: VecDeque<String>,
    all: bool,
    /// Something was wrong: what comes after it does not matter.
    pub(super) stopped: bool,
}

impl Trace {
    /// `all`: each line is printed as it comes.
    pub(super) fn new(all: bool) -> Self {
        Self { lines: VecDeque::new(), all, stopped: false }
    }

    pub(super) fn line(&mut self, step: u64, time: u64, what: fmt::Arguments<'_>) {
        if self.stopped {
            return;
        }
        let line = format!("{step:>5} {:>12} us  {what}", time / 1000);
        if self.all {
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
