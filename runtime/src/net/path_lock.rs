//! The lock on a directory in which a Unix socket's file is checked and replaced.
//!
//! It is `flock(2)`, which does not affect readers and writers of the directory. Any process that may read
//! the directory may hold the lock for any time. So a timer waits for it, which does not block a core, and
//! gives up after a while.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;

/// How often the lock is tried. It is held only for a few system calls.
const TRIES: u32 = 1000;
/// How long it waits between two tries.
const REST: Duration = Duration::from_millis(1);

/// Locks the directory of a path, until the descriptor is dropped. `None` where it may not be read or cannot
/// be locked, or where another process holds the lock for long. Then check and replacement are not one step.
pub(super) async fn lock_directory(path: &Path) -> Option<OwnedFd> {
    let directory = directory(path)?;
    for _ in 0..TRIES {
        if let Some(locked) = try_lock(&directory, path) {
            return locked.then_some(directory);
        }
        crate::time::sleep(REST).await;
    }
    held_by_another(path)
}

/// The same, on a thread that may wait.
pub(super) fn lock_directory_blocking(path: &Path) -> Option<OwnedFd> {
    let directory = directory(path)?;
    for _ in 0..TRIES {
        if let Some(locked) = try_lock(&directory, path) {
            return locked.then_some(directory);
        }
        std::thread::sleep(REST);
    }
    held_by_another(path)
}

fn directory(path: &Path) -> Option<OwnedFd> {
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, directory, flags, Mode::empty()).ok()
}

/// Whether the lock is held now; `None` to try again.
fn try_lock(directory: &OwnedFd, path: &Path) -> Option<bool> {
    match flock(directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Some(true),
        Err(Errno::WOULDBLOCK | Errno::INTR) => None,
        Err(e) => {
            tracing::info!("{} is bound without a lock on its directory: {e}", path.display());
            Some(false)
        }
    }
}

fn held_by_another(path: &Path) -> Option<OwnedFd> {
    tracing::warn!("{} is bound without a lock on its directory, which another holds", path.display());
    None
}
