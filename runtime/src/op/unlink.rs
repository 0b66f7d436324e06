//! Remove a name. Linux 5.11; `unlinkat(2)`. The kernel always runs it on an io-wq worker.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, types};

use super::{Sqes, UnitOperation};

/// One unlink of `name` in `dir`. The name stays here until the kernel has read it.
pub(crate) struct Unlink {
    pub(crate) dir: Rc<OwnedFd>,
    pub(crate) name: CString,
    /// Remove a directory, which must be empty (`AT_REMOVEDIR`).
    pub(crate) directory: bool,
}

// SAFETY: the entry points to the name's own allocation, and names a descriptor that the `Rc` keeps open.
unsafe impl UnitOperation for Unlink {
    const NAME: &'static str = "unlinkat";

    fn sqes(&mut self) -> Sqes {
        opcode::UnlinkAt::new(types::Fd(self.dir.as_raw_fd()), self.name.as_ptr())
            .flags(if self.directory { libc::AT_REMOVEDIR } else { 0 })
            .build()
            .into()
    }
}
