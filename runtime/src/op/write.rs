//! Write at an offset from an owned buffer. Linux 5.6; `pwrite(2)`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, types};

use super::slots::Outcome;
use super::waits_for::WaitsFor;
use super::{Operation, Sqes, check};
use crate::buf::IoBuf;
use crate::buf::owned::registered;

/// Writes `buf[from..]`.
pub(crate) struct Write<B> {
    pub(crate) file: Rc<OwnedFd>,
    pub(crate) buf: B,
    pub(crate) from: usize,
    pub(crate) offset: u64,
}

// SAFETY: the entry points to the buffer's bytes, which `IoBuf` promises not to move, and names a descriptor
// that the `Rc` keeps open.
unsafe impl<B: IoBuf> Operation for Write<B> {
    const NAME: &'static str = "write";
    type Output = (io::Result<usize>, B);

    fn sqes(&mut self) -> Sqes {
        let bytes = &self.buf.bytes()[self.from..];
        let len = bytes.len().min(1 << 30) as u32;
        let fd = types::Fd(self.file.as_raw_fd());
        match registered(&self.buf) {
            None => opcode::Write::new(fd, bytes.as_ptr(), len).offset(self.offset).build().into(),
            // As for a read.
            Some(index) => {
                opcode::WriteFixed::new(fd, bytes.as_ptr(), len, index).offset(self.offset).build().into()
            }
        }
    }

    fn waits_for(&self) -> WaitsFor {
        WaitsFor::Disk
    }

    fn complete(self, outcome: Outcome) -> Self::Output {
        (check(outcome).map(|n| n as usize), self.buf)
    }
}
