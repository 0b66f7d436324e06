//! The lock on a directory in which a Unix socket's file is looked at and replaced.
//!
//! `flock(2)`, from which readers and writers of the directory do not suffer. Whoever may read the directory may hold that
//! lock for as long as he likes: so it is waited for with a timer, which holds no core up, and not for ever.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;

/// How often the directory's lock is tried for: it is held for a few system calls.
const TRIES: u32 = 1000;
/// How long between two tries.
const REST: Duration = Duration::from_millis(1);

/// Locks the directory of a path, until the descriptor is dropped. `None` where it may not be read or cannot be locked,
/// or where another holds the lock for long: then the look and the replacement are not one step.
pub(super) async fn lock_directory(path: &Path) -> Option<OwnedFd> {
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, directory, flags, Mode::empty()).ok()?;
    for _ in 0..TRIES {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(directory),
            Err(Errno::WOULDBLOCK | Errno::INTR) => crate::time::sleep(REST).await,
            Err(e) => {
                tracing::info!("{} is bound without a lock on its directory: {e}", path.display());
                return None;
            }
        }
    }
    tracing::warn!("{} is bound without a lock on its directory, which another holds", path.display());
    None
}
