//! Read at an offset into an owned buffer. Linux 5.6; `pread(2)`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, types};

use super::slots::Outcome;
use super::waits_for::WaitsFor;
use super::{Operation, Sqes, check};
use crate::buf::IoBufMut;
use crate::buf::owned::registered;

/// Reads into the spare capacity of `buf`.
pub(crate) struct Read<B> {
    pub(crate) file: Rc<OwnedFd>,
    pub(crate) buf: B,
    pub(crate) offset: u64,
}

// SAFETY: the entry points to the buffer's spare capacity, which `IoBufMut` promises not to move, and names a
// descriptor that the `Rc` keeps open.
unsafe impl<B: IoBufMut> Operation for Read<B> {
    const NAME: &'static str = "read";
    type Output = (io::Result<usize>, B);

    fn sqes(&mut self) -> Sqes {
        let spare = self.buf.spare_capacity();
        let len = spare.len().min(1 << 30) as u32;
        let (fd, to) = (types::Fd(self.file.as_raw_fd()), spare.as_mut_ptr().cast());
        match registered(&self.buf) {
            None => opcode::Read::new(fd, to, len).offset(self.offset).build().into(),
            // Its pages are pinned already. The kernel refuses (EFAULT) memory outside that buffer.
            Some(index) => opcode::ReadFixed::new(fd, to, len, index).offset(self.offset).build().into(),
        }
    }

    fn waits_for(&self) -> WaitsFor {
        WaitsFor::Disk
    }

    fn complete(mut self, outcome: Outcome) -> Self::Output {
        let result = check(outcome).map(|n| n as usize);
        if let Ok(n) = result {
            // SAFETY: the kernel has filled the first `n` bytes of the spare capacity.
            unsafe { self.buf.filled(n) };
        }
        (result, self.buf)
    }
}
