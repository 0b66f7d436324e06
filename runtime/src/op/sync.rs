//! Writes a file's bytes to the disk. Linux 5.1; `fsync(2)`. The kernel always runs it on an io-wq worker.

use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, types};

use super::{Sqes, UnitOperation};

/// One `fsync(2)`, or `fdatasync(2)`.
pub(crate) struct Sync {
    pub(crate) file: Rc<OwnedFd>,
    /// Leaves out metadata that is not needed to read the bytes again.
    pub(crate) data_only: bool,
}

// SAFETY: the entry points to nothing and names a descriptor that the `Rc` keeps open.
unsafe impl UnitOperation for Sync {
    const NAME: &'static str = "fsync";

    fn sqes(&mut self) -> Sqes {
        let flags = if self.data_only { types::FsyncFlags::DATASYNC } else { types::FsyncFlags::empty() };
        opcode::Fsync::new(types::Fd(self.file.as_raw_fd())).flags(flags).build().into()
    }
}
