//! Write at an offset from several owned buffers at once. Linux 5.1; `pwritev(2)`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, types};

use super::slots::Outcome;
use super::waits_for::WaitsFor;
use super::{Operation, Sqes, check};
use crate::buf::IoBufs;
use crate::buf::owned::vectors_of;

/// Writes everything behind the first `from` bytes of all buffers together.
pub(crate) struct WriteVectored<V> {
    file: Rc<OwnedFd>,
    bufs: V,
    from: usize,
    offset: u64,
    /// The rest of each buffer. It is filled in `sqes` and kept until the end. Its allocation does not move.
    vectors: Vec<libc::iovec>,
}

impl<V: IoBufs> WriteVectored<V> {
    pub(crate) fn new(file: Rc<OwnedFd>, bufs: V, from: usize, offset: u64) -> Self {
        Self { file, bufs, from, offset, vectors: Vec::new() }
    }
}

// SAFETY: the entry points to the vectors' own allocation, and those to the buffers' bytes, which `IoBufs`
// promises not to move. It names a descriptor that the `Rc` keeps open.
unsafe impl<V: IoBufs> Operation for WriteVectored<V> {
    const NAME: &'static str = "writev";
    type Output = (io::Result<usize>, V);

    fn sqes(&mut self) -> Sqes {
        vectors_of(&self.bufs, self.from, &mut self.vectors);
        let (fd, len) = (types::Fd(self.file.as_raw_fd()), self.vectors.len() as u32);
        opcode::Writev::new(fd, self.vectors.as_ptr(), len).offset(self.offset).build().into()
    }

    fn waits_for(&self) -> WaitsFor {
        WaitsFor::Disk
    }

    fn complete(self, outcome: Outcome) -> Self::Output {
        (check(outcome).map(|n| n as usize), self.bufs)
    }
}
