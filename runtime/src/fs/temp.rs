//! Temporary files and directories.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::File;
use crate::contained::told;
use crate::core::Core;
use crate::{Error, Result, spawn_blocking};

/// How many names are tried before all count as taken.
const TRIES: u32 = 100;

/// A file without a name in the directory for temporary ones (`TMPDIR`, `/tmp`), for reading and writing. The
/// kernel frees it with its descriptor, however the process ends (`O_TMPFILE`, Linux 3.11; where the file
/// system lacks that, it has a name that is removed at once).
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason, naming the directory.
///
/// # Cancellation
/// Safe.
pub async fn temp_file() -> Result<File> {
    let dir = std::env::temp_dir();
    let (made, dir) = spawn_blocking(move || (unnamed(&dir), dir)).await?;
    let failed = |e| Error::io(format!("cannot make a temporary file in {}", dir.display()), e);
    made.map(File::from_fd).map_err(failed)
}

fn unnamed(dir: &Path) -> io::Result<std::os::fd::OwnedFd> {
    let (flags, mode) = (OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    match rustix::fs::open(dir, flags | OFlags::TMPFILE, mode) {
        // EISDIR comes from a kernel or a file system that does not know the flag (open(2)).
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {}
        made => return Ok(made?),
    }
    fresh(dir, |path| {
        let file = rustix::fs::open(path, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
        rustix::fs::unlink(path)?;
        Ok(file)
    })
    .map(|(_, file)| file)
}

/// Calls `make` with names in `dir` until one was not taken.
fn fresh<T>(dir: &Path, make: impl Fn(&Path) -> io::Result<T>) -> io::Result<(PathBuf, T)> {
    for attempt in 0..TRIES {
        // The standard library's keys are random and new for each state that is made.
        let name = format!(".annulus-{:016x}", RandomState::new().hash_one(attempt));
        let path = dir.join(name);
        match make(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|made| (path, made)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// A new directory that only this user may read. Dropping it removes it with its content, on a [blocking
/// thread](crate::spawn_blocking) if it is dropped on a core. A failure of that is logged.
///
/// At the end of the runtime it has been removed when [`Running::wait`](crate::Running::wait) returns, unless
/// that takes longer than blocking work may. It stays if the process is killed.
///
/// ```
/// # annulus::Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?.run(|| async {
/// use annulus::fs::{self, TempDir};
///
/// let dir = TempDir::new().await?;
/// fs::write(dir.path().join("file"), "content").await?;
/// let path = dir.path().to_owned();
/// dir.remove().await?;
/// assert!(!fs::exists(path).await?);
/// # annulus::Ok(())
/// # })?;
/// # annulus::Ok(())
/// ```
#[derive(Debug)]
pub struct TempDir {
    /// Empty once somebody else is to remove it.
    path: PathBuf,
}

impl TempDir {
    /// Makes one in the directory for temporary files (`TMPDIR`, `/tmp`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason, naming that directory.
    ///
    /// # Cancellation
    /// If it is being made, it is removed.
    pub async fn new() -> Result<Self> {
        Self::new_in(std::env::temp_dir()).await
    }

    /// Makes one in `dir`.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    ///
    /// # Cancellation
    /// As for [`new`](Self::new).
    pub async fn new_in(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref().to_path_buf();
        let make = move || {
            let made = fresh(&dir, |path| Ok(rustix::fs::mkdir(path, Mode::RWXU)?));
            // If nobody takes the value any more, dropping it removes the directory, on that thread.
            made.map(|(path, ())| Self { path })
                .map_err(|e| Error::io(format!("cannot make a temporary directory in {}", dir.display()), e))
        };
        spawn_blocking(make).await?
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps it, and returns its path.
    pub fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.path)
    }

    /// Removes it with its content.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason, naming it.
    ///
    /// # Cancellation
    /// It is removed nevertheless.
    pub async fn remove(mut self) -> Result<()> {
        let doomed = Doomed(std::mem::take(&mut self.path));
        let removed = spawn_blocking(move || doomed.remove()).await?;
        removed.map_err(|(path, e)| Error::io(format!("cannot remove directory {}", path.display()), e))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        if path.as_os_str().is_empty() {
            return;
        }
        let doomed = Doomed(path);
        if Core::is_here() { spawn_blocking(move || drop(doomed)).detach() } else { drop(doomed) }
    }
}

/// A directory that goes when this is dropped, on whatever thread. So it goes as well when the runtime ends
/// before a blocking thread has begun the closure that has this: then the closure is dropped.
struct Doomed(
    /// Empty once it was removed.
    PathBuf,
);

impl Doomed {
    fn remove(mut self) -> Result<(), (PathBuf, io::Error)> {
        let path = std::mem::take(&mut self.0);
        std::fs::remove_dir_all(&path).map_err(|e| (path, e))
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        if !path.as_os_str().is_empty()
            && let Err(e) = std::fs::remove_dir_all(&path)
        {
            told(|| tracing::warn!("cannot remove the temporary directory {}: {e}", path.display()));
        }
    }
}
