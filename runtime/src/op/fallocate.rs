//! Allocates the disk blocks of a range of a file, or frees them. Linux 5.6; `fallocate(2)`. The kernel
//! always runs it on an io-wq worker.

use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, types};

use super::{Sqes, UnitOperation};

/// One fallocate.
pub(crate) struct Fallocate {
    pub(crate) file: Rc<OwnedFd>,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// `FALLOC_FL_*`.
    pub(crate) mode: i32,
}

// SAFETY: the entry points to nothing and names a descriptor that the `Rc` keeps open.
unsafe impl UnitOperation for Fallocate {
    const NAME: &'static str = "fallocate";

    fn sqes(&mut self) -> Sqes {
        opcode::Fallocate::new(types::Fd(self.file.as_raw_fd()), self.len)
            .offset(self.offset)
            .mode(self.mode)
            .build()
            .into()
    }
}
