//! Changes in directories, as the kernel reports them.

use std::ffi::OsStr;
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::Dir;
use super::open::open_path;
use crate::core::ask::ask;
use crate::error::os;
use crate::op::poll::{PollOnce, Ready};
use crate::{Error, Result};

/// The events that a directory is watched for: everything that makes a name stand for something else, or for
/// a file with other content or permissions.
const EVENTS: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ONLYDIR);

/// Watches directories for changes of the names in them (`inotify(7)`, Linux 2.6.13).
///
/// It sees what this machine's processes do by system calls on these names: writing, truncating, renaming,
/// removing, changing permissions. It does not see writes through a mapping, changes by another name of the
/// same file in another directory, or changes on the server of a network file system.
#[derive(Debug)]
pub struct Watcher {
    fd: Rc<OwnedFd>,
}

/// The number of a watched directory, within one watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WatchId(i32);

/// A change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change<'a> {
    /// Something about this name in a directory.
    Name(WatchId, &'a OsStr),
    /// The directory itself was moved or removed, or its permissions were changed.
    Directory(WatchId),
    /// The watch has ended: the directory was removed and nobody has it open, or its file system is not
    /// mounted any more.
    Ended(WatchId),
    /// More has changed than the kernel keeps (`/proc/sys/fs/inotify/max_queued_events`), so anything may
    /// have changed.
    Lost,
}

impl Watcher {
    /// A watcher without directories.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io): `EMFILE` where the user has as many as
    /// `/proc/sys/fs/inotify/max_user_instances` says.
    pub fn new() -> Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(os)
            .map_err(|e| Error::io("cannot watch directories", e))?;
        Ok(Self { fd: Rc::new(fd) })
    }

    /// Watches the directory `path` beneath `dir` (`.` for itself). A directory that is watched already keeps
    /// its number. Linux 5.6 (`openat2(2)`); needs `/proc`.
    ///
    /// # Errors
    /// The system's reason as it is: `ENOSPC` where the user has as many watches as
    /// `/proc/sys/fs/inotify/max_user_watches` says.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn watch(&self, dir: &Dir, path: impl AsRef<Path>) -> Result<WatchId> {
        // inotify takes a path only. This one leads to the very directory that was found.
        let found = open_path(dir.shared_fd(), path.as_ref(), libc::O_PATH | libc::O_DIRECTORY).await?;
        let name = format!("/proc/self/fd/{}", found.as_fd().as_raw_fd());
        let id = inotify::add_watch(&*self.fd, name.as_str(), EVENTS).map_err(os)?;
        Ok(WatchId(id))
    }

    /// Waits until something has happened. Linux 5.1 (`poll(2)`).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason.
    ///
    /// # Cancellation
    /// Safe: the changes stay for the next call.
    pub async fn changed(&self) -> Result<()> {
        let wait = PollOnce { fd: Rc::clone(&self.fd), ready: Ready::Read };
        ask(wait).await.map_err(|e| Error::io("cannot wait for changes", e))
    }

    /// Calls `see` with every change until now. It reads on the core, because the kernel has the changes in
    /// memory.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason.
    pub fn take(&self, mut see: impl FnMut(Change<'_>)) -> Result<()> {
        let mut memory = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&*self.fd, &mut memory);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(e) => return Err(Error::io("cannot read changes", os(e))),
            };
            let (id, what) = (WatchId(event.wd()), event.events());
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                see(Change::Lost);
            } else if what.contains(ReadFlags::IGNORED) {
                see(Change::Ended(id));
            } else if let Some(name) = event.file_name() {
                see(Change::Name(id, OsStr::from_bytes(name.to_bytes())));
            } else {
                see(Change::Directory(id));
            }
        }
    }
}

impl fmt::Display for WatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::testing::{on_a_core, small};

    /// Seen to fail: without MODIFY among the events, at the second.
    #[test]
    fn names_that_change_are_told() {
        on_a_core(small(32), async || {
            let path = std::env::temp_dir().join(format!("annulus-watch-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            let dir = Dir::open(&path).await.unwrap();
            let watcher = Watcher::new().unwrap();
            let id = watcher.watch(&dir, ".").await.unwrap();
            assert_eq!(watcher.watch(&dir, ".").await.unwrap(), id);
            let told = async || {
                watcher.changed().await.unwrap();
                let mut told = Vec::new();
                watcher.take(|change| told.push(format!("{change:?}"))).unwrap();
                told.join(" ")
            };
            std::fs::write(path.join("a"), "1").unwrap();
            assert!(told().await.contains("\"a\""));
            std::fs::OpenOptions::new().write(true).open(path.join("a")).unwrap().set_len(0).unwrap();
            assert!(told().await.contains("\"a\""));
            std::fs::remove_file(path.join("a")).unwrap();
            assert!(told().await.contains("\"a\""));
            // It exists for as long as it is open.
            drop(dir);
            std::fs::remove_dir(&path).unwrap();
            assert!(told().await.contains("Ended"));
            watcher.take(|change| panic!("{change:?}")).unwrap();
        });
    }
}
