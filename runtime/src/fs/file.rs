//! Open files.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use super::residency::{cached, read_now};
use super::{Alignment, OpenOptions, Stat};
use crate::buf::owned::AtMost;
use crate::buf::{BufError, IoBuf, IoBufMut, IoBufs};
use crate::core::Core;
use crate::core::ask::ask;
use crate::error::os;
use crate::limits::{OFFSET, refuse_above};
use crate::op::read::Read;
use crate::op::statx::Statx;
use crate::op::sync::Sync;
use crate::op::write::Write;
use crate::op::write_vectored::WriteVectored;
use crate::{Error, ErrorKind, Result};

/// An open file. Cloning is cheap and shares the descriptor, which is closed with the last clone and the last
/// operation on it.
#[derive(Debug, Clone)]
pub struct File {
    fd: Rc<OwnedFd>,
    /// Set if it was opened for direct I/O.
    direct: Option<Alignment>,
}

impl File {
    /// Opens `path` beneath `dir`, or as a path of the process.
    pub(super) async fn open_in(
        dir: Option<&Rc<OwnedFd>>,
        path: &Path,
        options: OpenOptions,
    ) -> io::Result<Self> {
        let (fd, direct) = options.open(dir, path).await?;
        Ok(Self { fd, direct })
    }

    /// Takes over an open descriptor.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd: Rc::new(fd), direct: None }
    }

    /// Opens a file by a path of the process. Linux 5.6 (`openat2(2)`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason and the path.
    ///
    /// # Cancellation
    /// Safe: a descriptor that comes late is closed.
    pub async fn open(path: impl AsRef<Path>, options: OpenOptions) -> Result<Self> {
        let path = path.as_ref();
        let file = Self::open_in(None, path, options).await;
        file.map_err(|e| Error::io(format!("cannot open {}", path.display()), e))
    }

    /// Opens a file for reading and writing by a path of the process. A missing file is made, and an existing
    /// one is emptied. Linux 5.6 (`openat2(2)`).
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    ///
    /// # Cancellation
    /// As for [`open`](Self::open), and the file may have been made or emptied.
    pub async fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::open(path, OpenOptions::new().write(true).create(true).truncate(true)).await
    }

    /// The alignment of reads and writes, if the file was opened for direct I/O ([`OpenOptions::direct`]).
    pub fn alignment(&self) -> Option<Alignment> {
        self.direct
    }

    pub(crate) fn shared_fd(&self) -> &Rc<OwnedFd> {
        &self.fd
    }

    /// The file's metadata, by the ring. The kernel runs this on an io-wq worker (two context switches), so
    /// it never holds the core up, whatever the file system. Linux 5.6 (`statx(2)`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn stat(&self) -> Result<Stat> {
        let s = ask(Statx::new(Rc::clone(&self.fd))).await.map_err(|e| Error::io("cannot stat a file", e))?;
        Ok(Stat::from(&*s))
    }

    /// The file's metadata, by a call on the core (`fstat(2)`). The inode of an open file is in memory, so on
    /// a local file system this takes well under a microsecond, where [`stat`](Self::stat) goes to a worker.
    /// A network file system may ask its server and hold the core up.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason.
    pub fn stat_now(&self) -> Result<Stat> {
        let s = rustix::fs::fstat(&*self.fd).map_err(os).map_err(|e| Error::io("cannot stat a file", e))?;
        Ok(Stat::from(&s))
    }

    /// Reads at `offset` (bytes) into the free part of `buf`. Returns how many bytes came, 0 at the end of
    /// the file, and the buffer. Linux 5.6 (`pread(2)`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason,
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) for a direct read that is not aligned and for an offset
    /// above 2^63 - 1; the buffer comes back with it.
    ///
    /// # Cancellation
    /// Safe: the kernel keeps the buffer until the read has ended; then it is dropped.
    pub async fn read_at<B: IoBufMut>(&self, mut buf: B, offset: u64) -> Result<(usize, B), BufError<B>> {
        buf = may_be_at(offset, "a read at an offset", buf)?;
        if let Some(direct) = self.direct {
            let spare = buf.spare_capacity();
            if let Err(e) = direct.check("read", spare.as_ptr().addr(), offset, spare.len()) {
                return Err(BufError::new(e, buf));
            }
        }
        loop {
            let (result, back) = ask(Read { file: Rc::clone(&self.fd), buf, offset }).await;
            buf = back;
            match result {
                Ok(n) => return Ok((n, buf)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(BufError::io("read failed", e, buf)),
            }
        }
    }

    /// Reads as [`read_at`](Self::read_at) does, but on the core, if that is possible without waiting for a
    /// disk. `None` where it is not, where nobody can tell (some network and user-space file systems), or
    /// where the file was opened for direct I/O. For a file in memory this costs less than an operation of
    /// the ring. Linux 4.14 (`preadv2(2)`, `RWF_NOWAIT`).
    ///
    /// It may read less than there is, because it stops at the first page that is not in memory.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason;
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) for an offset above 2^63 - 1.
    pub fn read_now<B: IoBufMut>(&self, buf: &mut B, offset: u64) -> Result<Option<usize>> {
        refuse_above(OFFSET, "a read at an offset", offset)?;
        if self.direct.is_some() {
            return Ok(None);
        }
        let (file, spare) = (self.as_fd(), buf.spare_capacity());
        #[cfg(all(any(test, feature = "played"), not(loom)))]
        let read = crate::net::played::ask(|played| played.read_now(file, offset, spare))
            .unwrap_or_else(|| read_now(file, offset, spare));
        #[cfg(not(all(any(test, feature = "played"), not(loom))))]
        let read = read_now(file, offset, spare);
        let read = read.map_err(|e| Error::io("read failed", e))?;
        if let Some(n) = read {
            // SAFETY: preadv2(2) has written them.
            unsafe { buf.filled(n) };
        }
        Ok(read)
    }

    /// Whether `len` bytes from `offset` on are in memory, as far as the kernel tells (`cachestat(2)`, Linux
    /// 6.5; where that is missing or refused `preadv2(2)` is asked about the first byte, and its answer is
    /// taken for all). It is also true where the file system has no disk. No file has bytes from offset 2^63
    /// - 1 on.
    pub fn is_cached(&self, offset: u64, len: u64) -> bool {
        cached(self.as_fd(), offset, len, len) == len
    }

    /// Reads `len` bytes at `offset` (bytes) into the free part of `buf`. Linux 5.6 (`pread(2)`).
    ///
    /// # Errors
    /// As for [`read_at`](Self::read_at); `UnexpectedEof` when the file ends earlier;
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) when the free part is smaller than `len`. The buffer
    /// comes back with the error, and has the bytes that came.
    ///
    /// # Cancellation
    /// As for [`read_at`](Self::read_at).
    pub async fn read_exact_at<B: IoBufMut>(
        &self,
        mut buf: B,
        len: usize,
        offset: u64,
    ) -> Result<B, BufError<B>> {
        buf = may_be_at(offset, "a read at an offset", buf)?;
        let spare = buf.spare_capacity().len();
        if spare < len {
            let what = format!("{len} bytes are to be read into {spare} spare bytes");
            return Err(BufError::new(Error::new(ErrorKind::Input, what), buf));
        }
        let mut buf = AtMost { buf, len };
        while buf.len > 0 {
            let at = offset.saturating_add((len - buf.len) as u64);
            match self.read_at(buf, at).await {
                Ok((0, AtMost { buf, .. })) => {
                    return Err(BufError::io("read failed", io::ErrorKind::UnexpectedEof.into(), buf));
                }
                Ok((_, back)) => buf = back,
                Err(BufError { error, buf: AtMost { buf, .. } }) => return Err(BufError::new(error, buf)),
            }
        }
        Ok(buf.buf)
    }

    /// Writes from the beginning of `buf` at `offset` (bytes), once. Returns how many bytes were written,
    /// which may be fewer than there are, and the buffer. Linux 5.6 (`pwrite(2)`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason,
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) for a direct write that is not aligned and for an offset
    /// above 2^63 - 1; the buffer comes back with it.
    ///
    /// # Cancellation
    /// An unknown prefix may have been written.
    pub async fn write_at<B: IoBuf>(&self, buf: B, offset: u64) -> Result<(usize, B), BufError<B>> {
        self.write_from(buf, 0, offset).await
    }

    /// Writes all of `buf` at `offset` (bytes) and gives it back. Linux 5.6 (`pwrite(2)`).
    ///
    /// # Errors
    /// As for [`write_at`](Self::write_at), and a prefix may have been written.
    ///
    /// # Cancellation
    /// An unknown prefix may have been written.
    pub async fn write_all_at<B: IoBuf>(&self, mut buf: B, offset: u64) -> Result<B, BufError<B>> {
        buf = may_be_at(offset, "a write at an offset", buf)?;
        let mut from = 0;
        while from < buf.bytes().len() {
            let (n, back) = self.write_from(buf, from, offset.saturating_add(from as u64)).await?;
            buf = back;
            if n == 0 {
                return Err(BufError::io("write failed", io::ErrorKind::WriteZero.into(), buf));
            }
            from += n;
        }
        Ok(buf)
    }

    /// One write of `buf[from..]`.
    async fn write_from<B: IoBuf>(
        &self,
        mut buf: B,
        from: usize,
        offset: u64,
    ) -> Result<(usize, B), BufError<B>> {
        buf = may_be_at(offset, "a write at an offset", buf)?;
        if let Some(direct) = self.direct {
            let bytes = &buf.bytes()[from..];
            if let Err(e) = direct.check("write", bytes.as_ptr().addr(), offset, bytes.len()) {
                return Err(BufError::new(e, buf));
            }
        }
        loop {
            let (result, back) = ask(Write { file: Rc::clone(&self.fd), buf, from, offset }).await;
            buf = back;
            match result {
                Ok(n) => return Ok((n, buf)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(BufError::io("write failed", e, buf)),
            }
        }
    }

    /// Writes all of several buffers at `offset` (bytes), one after the other, and gives them back. Linux 5.1
    /// (`pwritev(2)`).
    ///
    /// # Errors
    /// As for [`write_all_at`](Self::write_all_at); [`ErrorKind::Input`](crate::ErrorKind::Input) also for a
    /// file that was opened for direct I/O, whose buffers would each have to be aligned.
    ///
    /// # Cancellation
    /// An unknown prefix may have been written.
    pub async fn write_all_vectored_at<V: IoBufs>(&self, mut bufs: V, offset: u64) -> Result<V, BufError<V>> {
        bufs = may_be_at(offset, "a write at an offset", bufs)?;
        if self.direct.is_some() {
            let what = "direct I/O takes one buffer at a time: write them one by one";
            return Err(BufError::new(Error::new(ErrorKind::Input, what), bufs));
        }
        let (total, mut from) = (bufs.total(), 0);
        while from < total {
            let at = offset.saturating_add(from as u64);
            let (result, back) = ask(WriteVectored::new(Rc::clone(&self.fd), bufs, from, at)).await;
            bufs = back;
            match result {
                Ok(0) => return Err(BufError::io("write failed", io::ErrorKind::WriteZero.into(), bufs)),
                Ok(n) => from += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(BufError::io("write failed", e, bufs)),
            }
        }
        Ok(bufs)
    }

    /// Writes the file's content and metadata to the disk. Linux 5.1 (`fsync(2)`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason. An `EIO` is reported once. After it
    /// nobody knows which writes are lost.
    ///
    /// # Cancellation
    /// Safe; it may have been done.
    pub async fn sync_all(&self) -> Result<()> {
        sync(&self.fd, false).await
    }

    /// Writes the file's content to the disk as [`sync_all`](Self::sync_all) does, but not metadata that
    /// reading does not need, such as times (`fdatasync(2)`).
    ///
    /// # Errors
    /// As for [`sync_all`](Self::sync_all).
    ///
    /// # Cancellation
    /// Safe; it may have been done.
    pub async fn sync_data(&self) -> Result<()> {
        sync(&self.fd, true).await
    }

    /// Closes the descriptor through the ring if this is its last user. Dropping a file closes it on the
    /// core, which for a file that was only read costs no more.
    pub fn close(self) {
        if let Ok(fd) = Rc::try_unwrap(self.fd) {
            Core::with(|core| core.close(fd));
        }
    }
}

/// Refuses an offset that has another meaning to the kernel. The buffer comes back either way.
fn may_be_at<B>(offset: u64, what: &'static str, buf: B) -> Result<B, BufError<B>> {
    match refuse_above(OFFSET, what, offset) {
        Ok(()) => Ok(buf),
        Err(e) => Err(BufError::new(e, buf)),
    }
}

/// `fsync(2)` or `fdatasync(2)`.
pub(super) async fn sync(file: &Rc<OwnedFd>, data_only: bool) -> Result<()> {
    ask(Sync { file: Rc::clone(file), data_only })
        .await
        .map_err(|e| Error::io("cannot bring a file to the disk", e))
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
