//! How a program has ended, and waiting for that.

use crate::lines::Lines;
use crate::watch;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};

/// A program that has ended, with all that it said.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// The lines of its standard output.
    pub out: Vec<String>,
    /// The lines of its standard error.
    pub err: Vec<String>,
}

impl Ended {
    /// The exit code.
    #[track_caller]
    pub fn code(&self) -> i32 {
        match self.status.code() {
            Some(code) => code,
            None => panic!("killed by signal {:?}: {self:#?}", self.status.signal()),
        }
    }

    /// Ends the test unless the program failed with `code` and exactly one line on standard error, which it
    /// returns.
    #[track_caller]
    pub fn one_line(&self, code: i32) -> &str {
        assert_eq!(self.code(), code, "exit code: {self:#?}");
        assert_eq!(self.err.len(), 1, "exactly one line says why: {self:#?}");
        let line = &self.err[0];
        assert!(line.trim().len() > 10, "the line says something: {self:#?}");
        line
    }
}

/// Waits for a child under the watchdog; kills it when that is used up.
#[track_caller]
pub(super) fn wait(child: &mut Child) -> ExitStatus {
    let pidfd =
        pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("pidfd_open of a child of ours");
    let limit = Timespec { tv_sec: watch::LIMIT.as_secs() as i64, tv_nsec: 0 };
    let ended = loop {
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)) {
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => panic!("poll of a pidfd: {e}"),
            Ok(count) => break count == 1,
        }
    };
    if !ended {
        let threads = crate::procfs::threads(child.id());
        stop_at_once(child);
        panic!("process {} did not end within {:?}; its threads: {threads:#?}", child.id(), watch::LIMIT);
    }
    child.wait().expect("wait of a child of ours")
}

#[track_caller]
pub(super) fn end(mut child: Child, out: Lines, err: Lines) -> Ended {
    let status = wait(&mut child);
    Ended { status, out: out.all(), err: err.all() }
}

/// Kills a child and waits for it.
pub(super) fn stop_at_once(child: &mut Child) {
    // Both fail only for a child that has been waited for already, which is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
}
