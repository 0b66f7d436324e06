//! Opening files.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, ResolveFlags, fcntl_setfl, openat2};
use rustix::io::Errno;

use super::Alignment;
use crate::core::ask::ask;
use crate::error::os;
use crate::op::open::Open;

/// How often an open is tried again when the kernel asks for that, and how long it waits between.
const TRIES: u32 = 8;
const REST: Duration = Duration::from_millis(1);

/// How to open a file. The default is reading only.
#[derive(Debug, Clone, Copy)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    create: bool,
    create_new: bool,
    truncate: bool,
    direct: bool,
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
        Self {
            read: true,
            write: false,
            append: false,
            create: false,
            create_new: false,
            truncate: false,
            direct: false,
            nonblock: false,
            mode: 0o666,
        }
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

    /// Whether every write goes to the file's end, whatever offset it names (`O_APPEND`). It needs
    /// `write(true)` too.
    pub const fn append(mut self, append: bool) -> Self {
        self.append = append;
        self
    }

    /// Whether a missing file is made (`O_CREAT`).
    pub const fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether the file must be new (`O_CREAT | O_EXCL`). No symbolic link is followed, and of several
    /// callers that try it one succeeds.
    pub const fn create_new(mut self, create_new: bool) -> Self {
        self.create_new = create_new;
        self
    }

    /// Whether bytes bypass the page cache (`O_DIRECT`, `open(2)`). Buffers, offsets and lengths must then be
    /// [aligned](super::Alignment); an unaligned read or write is refused with an error that names the fault.
    /// `EINVAL` on file systems that cannot (tmpfs before Linux 6.6).
    pub const fn direct(mut self, direct: bool) -> Self {
        self.direct = direct;
        self
    }

    /// Whether the file is emptied (`O_TRUNC`).
    pub const fn truncate(mut self, truncate: bool) -> Self {
        self.truncate = truncate;
        self
    }

    /// `O_NONBLOCK`: opening a FIFO that nobody writes to does not wait. It changes nothing for a regular
    /// file.
    pub const fn nonblock(mut self, nonblock: bool) -> Self {
        self.nonblock = nonblock;
        self
    }

    /// Permissions of a new file, before the umask.
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
            | flag(self.append, libc::O_APPEND)
            | flag(self.create, libc::O_CREAT)
            | flag(self.create_new, libc::O_CREAT | libc::O_EXCL)
            | flag(self.direct, libc::O_DIRECT)
            | flag(self.truncate, libc::O_TRUNC)
            | flag(self.nonblock, libc::O_NONBLOCK)
    }

    /// Opens `path` beneath `dir`, or as a path of the process. The alignment is that of direct I/O, if that
    /// was asked for.
    pub(super) async fn open(
        self,
        dir: Option<&Rc<OwnedFd>>,
        path: &Path,
    ) -> io::Result<(Rc<OwnedFd>, Option<Alignment>)> {
        // openat2 refuses a mode where no file is made.
        let mode = if self.create || self.create_new { self.mode & 0o7777 } else { 0 };
        let fd = Rc::new(open(dir, path, self.flags(), mode).await?);
        let direct = if self.direct { Some(Alignment::of(&fd).await?) } else { None };
        Ok((fd, direct))
    }
}

/// Opens an existing file beneath `dir`.
pub(super) async fn open_path(dir: &Rc<OwnedFd>, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    open(Some(dir), path, flags, 0).await
}

async fn open(dir: Option<&Rc<OwnedFd>>, path: &Path, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    if let Some(opened) = dir.and_then(|dir| open_now(dir, path, flags)) {
        return opened;
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    for _ in 0..TRIES {
        match ask(Open::new(dir.cloned(), path.clone(), flags, mode)).await {
            // A name was changed beneath us while it was being resolved (openat2(2), RESOLVE_BENEATH), or a
            // lease on the file is being broken (fcntl(2), F_SETLEASE), which may take too long to wait for.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
            result => return result,
        }
        crate::time::sleep(REST).await;
    }
    ask(Open::new(dir.cloned(), path, flags, mode)).await
}

/// Opens a file on the core if the kernel has all names of its path in memory (`RESOLVE_CACHED`, Linux 5.12).
/// The ring would open it at once, too, but a call costs less than the entry, its completion and a tick
/// (BENCHMARKS.md, "What a request costs"). `None` where the ring must be asked: a name has to be looked up,
/// something is made, a lease is to be broken, or the call is missing.
///
/// Like the ring's first try (linux/io_uring/openclose.c, `io_openat2`) it opens with `O_NONBLOCK` and clears
/// that afterwards. Without it a FIFO that has no writer, or a file under a lease, would hold the core up.
fn open_now(dir: &OwnedFd, path: &Path, flags: i32) -> Option<io::Result<OwnedFd>> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::CACHED;
    let flags = OFlags::from_bits_retain(flags as u32) | OFlags::CLOEXEC;
    if flags.intersects(OFlags::CREATE | OFlags::TRUNC) {
        return None;
    }
    let opened = match openat2(dir, path, flags | OFlags::NONBLOCK, Mode::empty(), how) {
        // A filter answers with the last two. Filters do not see what the ring does.
        Err(Errno::AGAIN | Errno::INTR | Errno::INVAL | Errno::NOSYS | Errno::PERM) => return None,
        opened => opened,
    };
    // A descriptor that was opened for its name only, or a directory's, never waits.
    if let Ok(fd) = &opened
        && !flags.intersects(OFlags::NONBLOCK | OFlags::PATH | OFlags::DIRECTORY)
        && fcntl_setfl(fd, flags).is_err()
    {
        return None;
    }
    Some(opened.map_err(os))
}
