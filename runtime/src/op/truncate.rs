//! Set a file's length. Linux 6.9, `EINVAL` before; `ftruncate(2)`. The kernel always runs it on an io-wq
//! worker.

use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, types};

use super::{Sqes, UnitOperation};

/// One ftruncate.
pub(crate) struct Truncate {
    pub(crate) file: Rc<OwnedFd>,
    pub(crate) len: u64,
}

// SAFETY: the entry points to nothing and names a descriptor that the `Rc` keeps open.
unsafe impl UnitOperation for Truncate {
    const NAME: &'static str = "ftruncate";

    fn sqes(&mut self) -> Sqes {
        opcode::Ftruncate::new(types::Fd(self.file.as_raw_fd()), self.len).build().into()
    }
}
