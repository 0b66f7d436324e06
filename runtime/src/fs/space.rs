//! A file's length, which of its bytes have blocks on the disk, and advice about its use.

use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Advice, File};
use crate::core::ask::ask;
use crate::error::os;
use crate::limits::{OFFSET, refuse_above};
use crate::op::advise::Advise;
use crate::op::fallocate::Fallocate;
use crate::op::truncate::Truncate;
use crate::{Error, Result, spawn_blocking};

/// Whether the kernel lacks an operation to truncate.
static NO_TRUNCATE: AtomicBool = AtomicBool::new(false);

impl File {
    /// Cuts the file to `len` bytes, or lengthens it by a hole that reads as zeroes. The ring does it since
    /// Linux 6.9; before that, a [blocking thread](crate::spawn_blocking) does (`ftruncate(2)`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason: `EINVAL` for a file that was not
    /// opened for writing, `EFBIG` for a length that is too large for the file system;
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) for one above 2^63 - 1.
    ///
    /// # Cancellation
    /// It may have been done.
    pub async fn set_len(&self, len: u64) -> Result<()> {
        refuse_above(OFFSET, "a file's length", len)?;
        let failed = |e| Error::io(format!("cannot set a file's length to {len} bytes"), e);
        if !NO_TRUNCATE.load(Ordering::Relaxed) {
            match ask(Truncate { file: Rc::clone(self.shared_fd()), len }).await {
                // The kernel does not know the operation, or the length is wrong. The call on the thread
                // tells which.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
                result => return result.map_err(failed),
            }
        }
        let fd = self.shared_fd().try_clone().map_err(failed)?;
        spawn_blocking(move || rustix::fs::ftruncate(fd, len)).await?.map_err(os).map_err(failed)?;
        if !NO_TRUNCATE.swap(true, Ordering::Relaxed) {
            tracing::debug!("no IORING_OP_FTRUNCATE (Linux < 6.9): files are truncated by blocking threads");
        }
        Ok(())
    }

    /// Allocates blocks on the disk for bytes `range` of the file, and lengthens the file to the range's end
    /// if it is shorter. Later writes there do not fail for lack of space. Linux 5.6 (`fallocate(2)`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason: `ENOSPC`, `EOPNOTSUPP` where the
    /// file system cannot, `EINVAL` for an empty range. [`ErrorKind::Input`](crate::ErrorKind::Input) for a
    /// range that goes beyond 2^63 - 1.
    ///
    /// # Cancellation
    /// All or a part of it may have been done.
    pub async fn allocate(&self, range: Range<u64>) -> Result<()> {
        self.fallocate(range, 0).await
    }

    /// Frees the blocks of bytes `range`, which then read as zeroes. The file's length stays. Linux 5.6
    /// (`fallocate(2)`, FALLOC_FL_PUNCH_HOLE).
    ///
    /// # Errors
    /// As for [`allocate`](Self::allocate).
    ///
    /// # Cancellation
    /// All or a part of it may have been done.
    pub async fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        self.fallocate(range, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE).await
    }

    async fn fallocate(&self, range: Range<u64>, mode: i32) -> Result<()> {
        refuse_above(OFFSET, "a range of a file to an offset", range.start.max(range.end))?;
        let len = range.end.saturating_sub(range.start);
        let fallocate = Fallocate { file: Rc::clone(self.shared_fd()), offset: range.start, len, mode };
        ask(fallocate).await.map_err(|e| Error::io("cannot change the blocks of a file", e))
    }

    /// Tells the kernel how bytes `range` will be read; `0..u64::MAX` is the whole file, however long it
    /// becomes. Linux 5.6 (`posix_fadvise(2)`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason: `ESPIPE` for a pipe.
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) for a range that begins beyond 2^63 - 1.
    ///
    /// # Cancellation
    /// Safe; advice changes no byte.
    pub async fn advise(&self, range: Range<u64>, advice: Advice) -> Result<()> {
        let advice = advice.as_raw();
        // The entry's length has 32 bits, so a longer range is given in steps, and "to the end", wherever
        // that is, as 0.
        let Range { start: mut offset, end } = range;
        refuse_above(OFFSET, "a range of a file from an offset", offset)?;
        while offset < end.min(OFFSET) {
            let len = if end >= OFFSET { 0 } else { (end - offset).min(1 << 30) as u32 };
            ask(Advise { file: Rc::clone(self.shared_fd()), offset, len, advice })
                .await
                .map_err(|e| Error::io("cannot advise on a file", e))?;
            if len == 0 {
                break;
            }
            offset += u64::from(len);
        }
        Ok(())
    }
}
