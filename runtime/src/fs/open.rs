//! Opening files, also beneath a directory that they cannot escape.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::File;
use crate::op::ask;
use crate::op::open::Open;
use crate::{Error, Result};

/// How often an open is tried again that the kernel asks to be tried again, and how long between.
const TRIES: u32 = 8;
const REST: Duration = Duration::from_millis(1);

/// How to open a file. Reading only, at first.
#[derive(Debug, Clone, Copy)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    create: bool,
    truncate: bool,
    nonblock: bool,
    mode: u32,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenOptions {
    /// Reading only.
    pub const fn new() -> Self {
        Self { read: true, write: false, create: false, truncate: false, nonblock: false, mode: 0o666 }
    }

    /// Whether the file can be read.
    pub const fn read(mut self, read: bool) -> Self {
        self.read = read;
        self
    }

    /// Whether the file can be written.
    pub const fn write(mut self, write: bool) -> Self {
        self.write = write;
        self
    }

    /// Whether a missing file is made (`O_CREAT`).
    pub const fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether the file is emptied (`O_TRUNC`).
    pub const fn truncate(mut self, truncate: bool) -> Self {
        self.truncate = truncate;
        self
    }

    /// `O_NONBLOCK`: opening a FIFO that nobody writes to does not wait. It changes nothing for a regular file.
    pub const fn nonblock(mut self, nonblock: bool) -> Self {
        self.nonblock = nonblock;
        self
    }

    /// Permissions of a file that is made, before the umask.
    pub const fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    fn flags(self) -> i32 {
        let access = match (self.read, self.write) {
            (_, false) => libc::O_RDONLY,
            (false, true) => libc::O_WRONLY,
            (true, true) => libc::O_RDWR,
        };
        let flag = |on, flag| if on { flag } else { 0 };
        access
            | flag(self.create, libc::O_CREAT)
            | flag(self.truncate, libc::O_TRUNC)
            | flag(self.nonblock, libc::O_NONBLOCK)
    }

    pub(crate) async fn open(self, dir: Option<Rc<OwnedFd>>, path: &Path) -> io::Result<OwnedFd> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // openat2 refuses a mode where nothing is made.
        let mode = if self.create { self.mode & 0o7777 } else { 0 };
        for _ in 0..TRIES {
            match ask(Open::new(dir.clone(), path.clone(), self.flags(), mode)).await {
                // A name was changed beneath us while it was being resolved (openat2(2), RESOLVE_BENEATH), or a lease
                // on the file is being broken (fcntl(2), F_SETLEASE), which may take longer than anyone should wait.
                Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
                result => return result,
            }
            crate::time::sleep(REST).await;
        }
        ask(Open::new(dir, path, self.flags(), mode)).await
    }
}

/// A directory beneath which files are opened.
#[derive(Debug, Clone)]
pub struct Dir {
    fd: Rc<OwnedFd>,
}

impl Dir {
    /// Opens a directory. Linux 5.6 (`openat2(2)`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason, naming the path; `ENOTDIR` when it is none.
    ///
    /// # Cancellation
    /// Safe: a descriptor that comes late is closed.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |e| Error::io(format!("cannot open directory {}", path.display()), e);
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|e| failed(e.into()))?;
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let fd = ask(Open::new(None, name, flags, 0)).await.map_err(failed)?;
        Ok(Self { fd: Rc::new(fd) })
    }

    /// Opens a file beneath this directory: no `..`, no absolute path and no symbolic link leads out of it
    /// (`RESOLVE_BENEATH`, Linux 5.6, `openat2(2)`).
    ///
    /// # Errors
    /// The system's reason as it is, since a server asks for paths that its clients made up: `ENOENT`, `EXDEV` (it
    /// would leave the directory), `ELOOP`, `EACCES`, `ENOTDIR`, `ENAMETOOLONG`, ...
    ///
    /// # Cancellation
    /// Safe: a descriptor that comes late is closed.
    pub async fn open_beneath(&self, path: impl AsRef<Path>, options: OpenOptions) -> Result<File> {
        let fd = options.open(Some(Rc::clone(&self.fd)), path.as_ref()).await?;
        Ok(File::from_fd(fd))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
