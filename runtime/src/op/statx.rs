//! Reads the attributes of a file. Linux 5.6; `statx(2)`. The kernel always runs it on an io-wq worker.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, types};

use super::slots::Outcome;
use super::waits_for::WaitsFor;
use super::{Operation, Sqes, check};

/// One statx of an open file. The kernel writes the answer into the box.
pub(crate) struct Statx {
    file: Rc<OwnedFd>,
    answer: Box<libc::statx>,
}

impl Statx {
    pub(crate) fn new(file: Rc<OwnedFd>) -> Self {
        // SAFETY: statx is plain integers, for which zeroes are a value.
        Self { file, answer: Box::new(unsafe { std::mem::zeroed() }) }
    }
}

// SAFETY: the entry points to the boxed answer and to a static empty path, and names a descriptor that the
// `Rc` keeps open.
unsafe impl Operation for Statx {
    const NAME: &'static str = "statx";
    type Output = io::Result<Box<libc::statx>>;

    fn sqes(&mut self) -> Sqes {
        opcode::Statx::new(
            types::Fd(self.file.as_raw_fd()),
            c"".as_ptr(),
            std::ptr::from_mut(&mut *self.answer).cast(),
        )
        .flags(libc::AT_EMPTY_PATH)
        .mask(libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_DIOALIGN)
        .build()
        .into()
    }

    fn runs_on_iowq(&self) -> bool {
        true
    }

    fn waits_for(&self) -> WaitsFor {
        WaitsFor::Disk
    }

    fn complete(self, outcome: Outcome) -> Self::Output {
        check(outcome).map(|_| self.answer)
    }
}
