//! A directory that nothing asked of it leads out of.

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
/// Errors are the system's reasons as they are, since a server asks for paths that its clients made up:
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
    /// What it stands for; `None` where the file system does not keep that with the name: ask [`Dir::stat`].
    pub kind: Option<FileKind>,
    /// Inode number.
    pub inode: u64,
}

impl Dir {
    /// Opens a directory as the process sees its path. Linux 5.6 (`openat2(2)`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason, naming the path; `ENOTDIR` when it
    /// is none.
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

    pub(super) fn shared_fd(&self) -> &Rc<OwnedFd> {
        &self.fd
    }

    /// Opens a file beneath this directory. Linux 5.6 (`openat2(2)`).
    ///
    /// # Errors
    /// The system's reason as it is.
    ///
    /// # Cancellation
    /// Safe: a descriptor that comes late is closed. A file that was to be made may have been.
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
    /// `O_PATH`, then `statx(2)`): two trips to an io-wq worker.
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

    /// What a path that starts here stands for, symbolic links followed, asked on the core (`fstatat(2)`):
    /// the quick way to see that a name still stands for a file that was opened before. Unlike everything
    /// else here it also follows what leads out of the directory, so it says nothing about what may be
    /// opened. Names that are not in memory are looked up while the core waits.
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

    /// Removes a name; the file goes with its last name and its last descriptor. A symbolic link itself is
    /// removed, not what it leads to. Linux 5.11 (`unlinkat(2)`).
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

    /// Gives what is called `from` beneath this directory the name `to` beneath `target`, which may be this
    /// directory too, in place of what had that name. Linux 5.11 (`renameat2(2)`).
    ///
    /// # Errors
    /// The system's reason as it is: `EXDEV` between two file systems; `EINVAL` for a path that ends in no
    /// name.
    ///
    /// # Cancellation
    /// It may have been renamed; never half.
    pub async fn rename(&self, from: impl AsRef<Path>, target: &Dir, to: impl AsRef<Path>) -> Result<()> {
        let from = self.place(from.as_ref()).await?;
        let to = target.place(to.as_ref()).await?;
        Ok(ask(Rename { from, to, flags: 0 }).await?)
    }

    /// The names in a directory beneath this one (`.` for itself), without `.` and `..`, in the file system's
    /// order. No operation of the ring lists a directory, so a [blocking thread](crate::spawn_blocking) does
    /// (`getdents64(2)`); all names are in memory at once.
    ///
    /// # Errors
    /// The system's reason as it is; [`BlockingError`](crate::BlockingError) when no thread could be had.
    ///
    /// # Cancellation
    /// Safe: the thread reads on and what it read is forgotten.
    pub async fn read_dir(&self, path: impl AsRef<Path>) -> Result<Vec<DirEntry>> {
        let fd = open_path(&self.fd, path.as_ref(), libc::O_RDONLY | libc::O_DIRECTORY).await?;
        Ok(spawn_blocking(move || list(fd)).await??)
    }

    /// Brings the names in this directory to the disk: after a file was made, renamed or removed, this is
    /// what makes it last. Linux 5.1 (`fsync(2)`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason.
    ///
    /// # Cancellation
    /// Safe; it may have been done.
    pub async fn sync(&self) -> Result<()> {
        super::file::sync(&self.fd, false).await
    }

    /// Where a name that is to be made, changed or removed stands: its directory, found beneath this one, and
    /// its last part. The calls that change names know no `RESOLVE_BENEATH`; in the very directory, a single
    /// name leads nowhere.
    ///
    /// Cut where the kernel cuts it, and not by [`Path::components`], which takes `a/` and `a/.` for `a`. A
    /// slash at the end stays with the name, as the kernel's word that it must be a directory; no call here
    /// follows a link for it.
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
