//! Make a directory. Linux 5.15; `mkdirat(2)`. The kernel always runs it on an io-wq worker.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, types};

use super::{Sqes, UnitOperation};

/// One mkdir of `name` in `dir`. The name stays here until the kernel has read it.
pub(crate) struct Mkdir {
    pub(crate) dir: Rc<OwnedFd>,
    pub(crate) name: CString,
    pub(crate) mode: u32,
}

// SAFETY: the entry points to the name's own allocation, and names a descriptor that the `Rc` keeps open.
unsafe impl UnitOperation for Mkdir {
    const NAME: &'static str = "mkdirat";

    fn sqes(&mut self) -> Sqes {
        opcode::MkDirAt::new(types::Fd(self.dir.as_raw_fd()), self.name.as_ptr())
            .mode(self.mode)
            .build()
            .into()
    }
}
