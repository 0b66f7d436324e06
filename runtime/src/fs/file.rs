//! Open files.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::OpenOptions;
use crate::buf::{BufError, IoBuf, IoBufMut};
use crate::core::Core;
use crate::error::os;
use crate::op::ask;
use crate::op::read::Read;
use crate::op::statx::Statx;
use crate::op::write::Write;
use crate::{Error, Result};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A FIFO, a device, a socket.
    Other,
}

/// What is known of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stat {
    /// What it is.
    pub kind: FileKind,
    /// Bytes.
    pub size: u64,
    /// When its content was last changed.
    pub modified: SystemTime,
    /// Permission bits.
    pub mode: u32,
    /// Inode number; with the device it names the file.
    pub inode: u64,
}

impl Stat {
    fn new(mode: u32, size: u64, inode: u64, seconds: i64, nanoseconds: u32) -> Self {
        let kind = match mode & libc::S_IFMT {
            libc::S_IFREG => FileKind::Regular,
            libc::S_IFDIR => FileKind::Directory,
            _ => FileKind::Other,
        };
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let base = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
        let modified = base.unwrap_or(UNIX_EPOCH) + Duration::from_nanos(u64::from(nanoseconds));
        Self { kind, size, modified, mode: mode & 0o7777, inode }
    }
}

/// An open file. Cloning is cheap and shares the descriptor, which is closed with the last clone and the last
/// operation on it.
#[derive(Debug, Clone)]
pub struct File {
    fd: Rc<OwnedFd>,
}

impl File {
    /// Takes over an open descriptor.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd: Rc::new(fd) }
    }

    /// Opens a file as the process sees its path. Linux 5.6 (`openat2(2)`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason, naming the path.
    ///
    /// # Cancellation
    /// Safe: a descriptor that comes late is closed.
    pub async fn open(path: impl AsRef<Path>, options: OpenOptions) -> Result<Self> {
        let path = path.as_ref();
        let fd = options
            .open(None, path)
            .await
            .map_err(|e| Error::io(format!("cannot open {}", path.display()), e))?;
        Ok(Self::from_fd(fd))
    }

    pub(crate) fn shared_fd(&self) -> &Rc<OwnedFd> {
        &self.fd
    }

    /// What the file is, asked through the ring. The kernel runs this on an io-wq worker (two context switches), so it
    /// never holds the core up, whatever the file system. Linux 5.6 (`statx(2)`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn stat(&self) -> Result<Stat> {
        let s = ask(Statx::new(Rc::clone(&self.fd))).await.map_err(|e| Error::io("cannot stat a file", e))?;
        let mode = u32::from(s.stx_mode);
        Ok(Stat::new(mode, s.stx_size, s.stx_ino, s.stx_mtime.tv_sec, s.stx_mtime.tv_nsec))
    }

    /// What the file is, asked on the core (`fstat(2)`). The inode of an open file is in memory, so on a local file
    /// system this takes well under a microsecond where [`stat`](Self::stat) takes a trip to a worker; a network file
    /// system may ask its server and hold the core up.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason.
    pub fn stat_now(&self) -> Result<Stat> {
        let s = rustix::fs::fstat(&*self.fd).map_err(os).map_err(|e| Error::io("cannot stat a file", e))?;
        Ok(Stat::new(s.st_mode, s.st_size as u64, s.st_ino, s.st_mtime, s.st_mtime_nsec as u32))
    }

    /// Reads at `offset` (bytes) into the room of `buf`. Returns how many bytes came, 0 at the end of the file, and the
    /// buffer. Linux 5.6 (`pread(2)`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason; the buffer comes back with it.
    ///
    /// # Cancellation
    /// Safe: the buffer stays the kernel's until the read has ended, and is dropped then.
    pub async fn read_at<B: IoBufMut>(&self, mut buf: B, offset: u64) -> Result<(usize, B), BufError<B>> {
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

    /// Writes all of `buf` at `offset` (bytes) and gives it back. Linux 5.6 (`pwrite(2)`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason; the buffer comes back with it, and a prefix may have been written.
    ///
    /// # Cancellation
    /// An unknown prefix may have been written.
    pub async fn write_all_at<B: IoBuf>(&self, mut buf: B, offset: u64) -> Result<B, BufError<B>> {
        let mut from = 0;
        while from < buf.bytes().len() {
            let write = Write { file: Rc::clone(&self.fd), buf, from, offset: offset + from as u64 };
            let (result, back) = ask(write).await;
            buf = back;
            match result {
                Ok(0) => return Err(BufError::io("write failed", io::ErrorKind::WriteZero.into(), buf)),
                Ok(n) => from += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(BufError::io("write failed", e, buf)),
            }
        }
        Ok(buf)
    }

    /// Closes the descriptor through the ring if this is its last user. Dropping a file does the same on the core,
    /// which for a file that was only read costs no more.
    pub fn close(self) {
        if let Ok(fd) = Rc::try_unwrap(self.fd) {
            Core::with(|core| core.close(fd));
        }
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
