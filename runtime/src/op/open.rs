//! Open a file. Linux 5.6; `openat2(2)`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, types};

use super::slots::Outcome;
use super::waits_for::WaitsFor;
use super::{Operation, Sqes, check};

/// One open. The path and the `open_how` stay here until the kernel has read them.
pub(crate) struct Open {
    dir: Option<Rc<OwnedFd>>,
    path: CString,
    how: types::OpenHow,
    /// It makes or truncates a file: the kernel's `io_openat_force_async` sends these to a worker.
    makes: bool,
}

impl Open {
    /// `path` beneath `dir` (`RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS`), or without `dir` as the process sees
    /// it.
    pub(crate) fn new(dir: Option<Rc<OwnedFd>>, path: CString, flags: i32, mode: u32) -> Self {
        let resolve = if dir.is_some() { libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS } else { 0 };
        let how = types::OpenHow::new()
            .flags((flags | libc::O_CLOEXEC) as u64)
            .mode(u64::from(mode))
            .resolve(resolve);
        let makes = flags & (libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE & !libc::O_DIRECTORY) != 0;
        Self { dir, path, how, makes }
    }
}

// SAFETY: the entry points to the path's own allocation and to `how` inside `self`, and names a descriptor
// that the `Rc` keeps open.
unsafe impl Operation for Open {
    const NAME: &'static str = "openat2";
    type Output = io::Result<OwnedFd>;

    fn sqes(&mut self) -> Sqes {
        let dir = self.dir.as_ref().map_or(libc::AT_FDCWD, |dir| dir.as_fd().as_raw_fd());
        opcode::OpenAt2::new(types::Fd(dir), self.path.as_ptr(), &raw const self.how).build().into()
    }

    fn runs_on_iowq(&self) -> bool {
        self.makes
    }

    fn waits_for(&self) -> WaitsFor {
        WaitsFor::Disk
    }

    fn complete(self, outcome: Outcome) -> Self::Output {
        check(outcome).map(|fd| {
            // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
            unsafe { OwnedFd::from_raw_fd(fd as i32) }
        })
    }
}
