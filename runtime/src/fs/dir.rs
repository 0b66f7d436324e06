//! A directory whose paths do not lead out of it.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::FileType;

use super::open::open_path;
use super::{File, FileKind, OpenOptions, Stat};
use crate::core::ask::ask;
use crate::error::os;
use crate::op::mkdir::Mkdir;
use crate::op::open::Open;
use crate::op::rename::Rename;
use crate::op::unlink::Unlink;
use crate::{Error, Result, spawn_blocking};

/// A directory beneath which files are opened, made, named and removed: no `..`, no absolute path and no
/// symbolic link leads out of it (`RESOLVE_BENEATH`, Linux 5.6, `openat2(2)`).
///
/// Errors are the system's reasons unchanged, because a server opens paths that its clients made up:
/// `ENOENT`, `EXDEV` (it would leave the directory), `ELOOP`, `EACCES`, `ENOTDIR`, `ENAMETOOLONG`, ...
#[derive(Debug, Clone)]
pub struct Dir {
    fd: Rc<OwnedFd>,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirEntry {
    /// The name.
    pub name: OsString,
    /// What it stands for. `None` where the file system does not keep that with the name; [`Dir::stat`] tells
    /// then.
    pub kind: Option<FileKind>,
    /// Inode number.
    pub inode: u64,
}

impl Dir {
    /// Opens a directory by a path of the process. Linux 5.6 (`openat2(2)`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason and the path; `ENOTDIR` when it is no
    /// directory.
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

    /// A directory that was opened elsewhere, also with `O_PATH`.
    ///
    /// # Errors
    /// `ENOTDIR` for what is no directory; what `fstat(2)` says.
    pub fn from_owned_fd(fd: OwnedFd) -> Result<Self> {
        let failed = |e| Error::io("cannot take a directory's descriptor", e);
        let stat = rustix::fs::fstat(&fd).map_err(|e| failed(os(e)))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(failed(io::Error::from_raw_os_error(libc::ENOTDIR)));
        }
        Ok(Self { fd: Rc::new(fd) })
    }

    pub(super) fn shared_fd(&self) -> &Rc<OwnedFd> {
        &self.fd
    }

    /// Opens a file beneath this directory. Linux 5.6 (`openat2(2)`).
    ///
    /// # Errors
    /// The system's reason as it is.
    ///
    /// # Cancellation
    /// Safe: a descriptor that comes late is closed. The file may have been made, if it was to be made.
    pub async fn open_beneath(&self, path: impl AsRef<Path>, options: OpenOptions) -> Result<File> {
        File::open_in(Some(&self.fd), path.as_ref(), options).await.map_err(Into::into)
    }

    /// Opens a directory beneath this one. Linux 5.6 (`openat2(2)`).
    ///
    /// # Errors
    /// The system's reason as it is; `ENOTDIR` when it is no directory.
    ///
    /// # Cancellation
    /// Safe: a descriptor that comes late is closed.
    pub async fn open_dir(&self, path: impl AsRef<Path>) -> Result<Self> {
        let fd = open_path(&self.fd, path.as_ref(), libc::O_RDONLY | libc::O_DIRECTORY).await?;
        Ok(Self { fd: Rc::new(fd) })
    }

    /// What a name beneath this directory stands for, symbolic links followed. Linux 5.8 (`openat2(2)` with
    /// `O_PATH`, then `statx(2)`). An io-wq worker does each of the two.
    ///
    /// # Errors
    /// The system's reason as it is.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn stat(&self, path: impl AsRef<Path>) -> Result<Stat> {
        let fd = open_path(&self.fd, path.as_ref(), libc::O_PATH).await?;
        File::from_fd(fd).stat().await
    }

    /// What a path that starts here stands for, symbolic links followed. The core makes the call itself
    /// (`fstatat(2)`): it is the quick way to see that a name still stands for a file that was opened before.
    /// Unlike the other methods it also follows paths that lead out of the directory, so it says nothing
    /// about what may be opened. The core waits while names that are not in memory are looked up.
    ///
    /// # Errors
    /// The system's reason as it is.
    pub fn stat_now(&self, path: impl AsRef<Path>) -> Result<Stat> {
        let stat = rustix::fs::statat(&*self.fd, path.as_ref(), rustix::fs::AtFlags::empty()).map_err(os)?;
        Ok(Stat::from(&stat))
    }

    /// Makes a directory, with `mode` (`0o777` is usual) before the umask. Linux 5.15 (`mkdirat(2)`).
    ///
    /// # Errors
    /// The system's reason as it is, `EEXIST` among them; `EINVAL` for a path that ends in no name (`a/..`,
    /// `a/.`).
    ///
    /// # Cancellation
    /// The directory may have been made.
    pub async fn create_dir(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        let (dir, name) = self.place(path.as_ref()).await?;
        Ok(ask(Mkdir { dir, name, mode }).await?)
    }

    /// Removes a name. The file is freed with its last name and its last descriptor. Of a symbolic link the
    /// link is removed, not its target. Linux 5.11 (`unlinkat(2)`).
    ///
    /// # Errors
    /// The system's reason as it is: `EISDIR` for a directory, `ENOTDIR` for a file whose name ends in a
    /// slash; `EINVAL` for a path that ends in no name.
    ///
    /// # Cancellation
    /// The name may have been removed.
    pub async fn remove_file(&self, path: impl AsRef<Path>) -> Result<()> {
        let (dir, name) = self.place(path.as_ref()).await?;
        Ok(ask(Unlink { dir, name, directory: false }).await?)
    }

    /// Removes an empty directory. Linux 5.11 (`unlinkat(2)`).
    ///
    /// # Errors
    /// The system's reason as it is: `ENOTEMPTY`, `ENOTDIR`; `EINVAL` for a path that ends in no name.
    ///
    /// # Cancellation
    /// The directory may have been removed.
    pub async fn remove_dir(&self, path: impl AsRef<Path>) -> Result<()> {
        let (dir, name) = self.place(path.as_ref()).await?;
        Ok(ask(Unlink { dir, name, directory: true }).await?)
    }

    /// Renames `from` beneath this directory to `to` beneath `target`, which may be this directory too. A
    /// file that had that name is replaced. Linux 5.11 (`renameat2(2)`).
    ///
    /// # Errors
    /// The system's reason as it is: `EXDEV` between two file systems; `EINVAL` for a path that ends in no
    /// name.
    ///
    /// # Cancellation
    /// It may have been renamed, but never in part.
    pub async fn rename(&self, from: impl AsRef<Path>, target: &Dir, to: impl AsRef<Path>) -> Result<()> {
        let from = self.place(from.as_ref()).await?;
        let to = target.place(to.as_ref()).await?;
        Ok(ask(Rename { from, to, flags: 0 }).await?)
    }

    /// The names in a directory beneath this one (`.` for itself), without `.` and `..`, in the file system's
    /// order. No operation of the ring lists a directory, so a [blocking thread](crate::spawn_blocking) does
    /// (`getdents64(2)`). All names are in memory at once.
    ///
    /// # Errors
    /// The system's reason as it is; [`BlockingError`](crate::BlockingError) when no thread could be had.
    ///
    /// # Cancellation
    /// Safe: the thread reads to the end, and the result is dropped.
    pub async fn read_dir(&self, path: impl AsRef<Path>) -> Result<Vec<DirEntry>> {
        let fd = open_path(&self.fd, path.as_ref(), libc::O_RDONLY | libc::O_DIRECTORY).await?;
        Ok(spawn_blocking(move || list(fd)).await??)
    }

    /// Writes the names in this directory to the disk: a file's creation, renaming or removal is durable
    /// after it. Linux 5.1 (`fsync(2)`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason.
    ///
    /// # Cancellation
    /// Safe; it may have been done.
    pub async fn sync(&self) -> Result<()> {
        super::file::sync(&self.fd, false).await
    }

    /// The directory and the last part of a name that is to be made, changed or removed. The directory is
    /// found beneath this one. The calls that change names know no `RESOLVE_BENEATH`; within the very
    /// directory, a single name leads nowhere else.
    ///
    /// The path is cut where the kernel cuts it, and not by [`Path::components`], which takes `a/` and `a/.`
    /// for `a`. A slash at the end stays with the name: it tells the kernel that the name must be a
    /// directory. No call here follows a link because of it.
    async fn place(&self, path: &Path) -> io::Result<(Rc<OwnedFd>, CString)> {
        let path = path.as_os_str().as_bytes();
        let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        let start = path[..end].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        if matches!(&path[start..end], b"" | b"." | b"..") {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let name = CString::new(&path[start..path.len().min(end + 1)])?;
        if start == 0 {
            return Ok((Rc::clone(&self.fd), name));
        }
        let parent = Path::new(OsStr::from_bytes(&path[..start]));
        let fd = open_path(&self.fd, parent, libc::O_PATH | libc::O_DIRECTORY).await?;
        Ok((Rc::new(fd), name))
    }
}

/// Reads a directory to its end.
fn list(fd: OwnedFd) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in rustix::fs::Dir::new(fd)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::RegularFile => Some(FileKind::Regular),
            FileType::Directory => Some(FileKind::Directory),
            FileType::Unknown => None,
            _ => Some(FileKind::Other),
        };
        entries.push(DirEntry {
            name: OsString::from_vec(name.as_bytes().to_vec()),
            kind,
            inode: entry.ino(),
        });
    }
    Ok(entries)
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
