//! Write at an offset from several owned buffers at once. Linux 5.1; `pwritev(2)`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, types};

use super::slots::Outcome;
use super::waits_for::WaitsFor;
use super::{Operation, Sqes, check};
use crate::buf::IoBufs;

/// The most buffers that one call may take (`IOV_MAX`, `writev(2)`). The others go with the next call.
const MAX_VECTORS: usize = 1024;

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
        let (mut skip, vectors) = (self.from, &mut self.vectors);
        self.bufs.each(&mut |bytes| {
            let gone = skip.min(bytes.len());
            skip -= gone;
            let rest = &bytes[gone..];
            if !rest.is_empty() && vectors.len() < MAX_VECTORS {
                // The kernel only reads them.
                vectors.push(libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() });
            }
        });
        let (fd, len) = (types::Fd(self.file.as_raw_fd()), vectors.len() as u32);
        opcode::Writev::new(fd, vectors.as_ptr(), len).offset(self.offset).build().into()
    }

    fn waits_for(&self) -> WaitsFor {
        WaitsFor::Disk
    }

    fn complete(self, outcome: Outcome) -> Self::Output {
        (check(outcome).map(|n| n as usize), self.bufs)
    }
}
