//! Gives a file another name. Linux 5.11; `renameat2(2)`. The kernel always runs it on an io-wq worker.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, types};

use super::{Sqes, UnitOperation};

/// One rename, each name in its own directory. The names stay here until the kernel has read them.
pub(crate) struct Rename {
    pub(crate) from: (Rc<OwnedFd>, CString),
    pub(crate) to: (Rc<OwnedFd>, CString),
    /// `RENAME_*`.
    pub(crate) flags: u32,
}

// SAFETY: the entry points to the names' own allocations, and names descriptors that the `Rc`s keep open.
unsafe impl UnitOperation for Rename {
    const NAME: &'static str = "renameat2";

    fn sqes(&mut self) -> Sqes {
        let ((from_dir, from), (to_dir, to)) = (&self.from, &self.to);
        opcode::RenameAt::new(
            types::Fd(from_dir.as_raw_fd()),
            from.as_ptr(),
            types::Fd(to_dir.as_raw_fd()),
            to.as_ptr(),
        )
        .flags(self.flags)
        .build()
        .into()
    }
}
