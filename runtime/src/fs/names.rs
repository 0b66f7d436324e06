//! Files and directories by a path of the process, from the current directory on.
//!
//! The kernel runs each of these on a thread that may wait, whether the ring asks for it or not, so they are
//! plain calls on [blocking threads](crate::spawn_blocking). A [`Dir`](super::Dir) does the same beneath a
//! directory, and no path leads out of it.

use std::io;
use std::path::{Path, PathBuf};

use super::{Dir, DirEntry, Stat};
use crate::{Error, Result, spawn_blocking};

/// Runs `f` with `path` on a thread that may wait. `what` begins the error, before the path.
async fn by_name<T: Send + 'static>(
    what: &'static str,
    path: impl AsRef<Path>,
    f: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let path = path.as_ref().to_path_buf();
    let done = spawn_blocking(move || f(&path).map_err(|e| (e, path))).await?;
    done.map_err(|(e, path)| Error::io(format!("cannot {what} {}", path.display()), e))
}

macro_rules! by_name {
    ($($(#[$doc:meta])* $name:ident, $what:literal, $f:expr => $output:ty;)+) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason, naming the path.
        ///
        /// # Cancellation
        /// It may have been done.
        pub async fn $name(path: impl AsRef<Path>) -> Result<$output> {
            by_name($what, path, $f).await
        }
    )+};
}

by_name! {
    /// Makes a directory (`mkdir(2)`).
    create_dir, "make directory", |path| std::fs::create_dir(path) => ();
    /// Makes a directory and its missing parents.
    create_dir_all, "make directory", |path| std::fs::create_dir_all(path) => ();
    /// Removes a file's name, or a symbolic link itself (`unlink(2)`).
    remove_file, "remove", |path| std::fs::remove_file(path) => ();
    /// Removes an empty directory (`rmdir(2)`).
    remove_dir, "remove directory", |path| std::fs::remove_dir(path) => ();
    /// Removes a directory with its content. Symbolic links are removed, not their targets, also where one
    /// replaces a directory meanwhile.
    remove_dir_all, "remove directory", |path| std::fs::remove_dir_all(path) => ();
    /// The target of a symbolic link (`readlink(2)`).
    read_link, "read symbolic link", |path| std::fs::read_link(path) => PathBuf;
    /// The absolute path without `.`, `..` and symbolic links (`realpath(3)`).
    canonicalize, "resolve", |path| std::fs::canonicalize(path) => PathBuf;
    /// What a name stands for, symbolic links followed (`stat(2)`).
    stat, "stat", |path| Ok(Stat::from(&rustix::fs::stat(path)?)) => Stat;
    /// What a name itself stands for: a symbolic link is not followed (`lstat(2)`).
    stat_link, "stat", |path| Ok(Stat::from(&rustix::fs::lstat(path)?)) => Stat;
    /// Whether a name stands for anything, symbolic links followed. A name that cannot be looked up is an
    /// error.
    exists, "look for", |path| path.try_exists() => bool;
}

/// Renames `from` to `to`, and replaces a file of that name (`rename(2)`).
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason, naming `from`; `EXDEV` between two file
/// systems.
///
/// # Cancellation
/// It may have been renamed, but never in part.
pub async fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    let to = to.as_ref().to_path_buf();
    by_name("rename", from, move |from| std::fs::rename(from, to)).await
}

/// Makes `link` another name of the file `original` (`link(2)`).
///
/// # Errors
/// As for [`rename`], naming `original`.
///
/// # Cancellation
/// It may have been done.
pub async fn hard_link(original: impl AsRef<Path>, link: impl AsRef<Path>) -> Result<()> {
    let link = link.as_ref().to_path_buf();
    by_name("link", original, move |original| std::fs::hard_link(original, link)).await
}

/// Makes the symbolic link `link` to `target` (`symlink(2)`). The target need not exist.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason, naming `link`.
///
/// # Cancellation
/// It may have been done.
pub async fn symlink(target: impl AsRef<Path>, link: impl AsRef<Path>) -> Result<()> {
    let target = target.as_ref().to_path_buf();
    by_name("make symbolic link", link, move |link| std::os::unix::fs::symlink(target, link)).await
}

/// Gives a file the permission bits `mode`, such as `0o644` (`chmod(2)`).
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason, naming the path.
///
/// # Cancellation
/// It may have been done.
pub async fn set_mode(path: impl AsRef<Path>, mode: u32) -> Result<()> {
    let mode = rustix::fs::Mode::from_raw_mode(mode);
    by_name("change the mode of", path, move |path| Ok(rustix::fs::chmod(path, mode)?)).await
}

/// Copies a file's content and its permission bits to `to`, which is made or replaced. Returns how many bytes
/// were copied. The bytes stay in the kernel where the file systems support it (`copy_file_range(2)`), and
/// both files share blocks where the file system can do that.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason, naming `from`. A part may have been
/// copied.
///
/// # Cancellation
/// The thread copies to the end.
pub async fn copy(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<u64> {
    let to = to.as_ref().to_path_buf();
    by_name("copy", from, move |from| std::fs::copy(from, to)).await
}

/// The names in a directory: [`Dir::read_dir`].
///
/// # Errors
/// As for [`Dir::open`] and [`Dir::read_dir`].
///
/// # Cancellation
/// Safe.
pub async fn read_dir(path: impl AsRef<Path>) -> Result<Vec<DirEntry>> {
    Dir::open(path).await?.read_dir(".").await
}
