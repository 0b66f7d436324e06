//! Opening what a path names, and telling "not there" from "cannot be read".

use std::path::Path;
use std::time::{Duration, SystemTime};

use annulus::fs::{Dir, File, FileKind, OpenOptions};
use rustix::io::Errno;

/// How long a request waits for a descriptor, and how long between two tries.
const PATIENCE: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_millis(5);

/// An open regular file.
pub(super) struct Opened {
    pub(super) file: File,
    /// In bytes.
    pub(super) size: u64,
    pub(super) modified: SystemTime,
}

/// Why there is no file to send.
#[derive(Debug)]
pub(super) enum Unavailable {
    /// There is no such regular file below ROOT: 404.
    NotFound,
    /// There is one, and it cannot be read: 500.
    Unreadable(annulus::Error),
}

/// Opens the file `path` below `root`.
///
/// A FIFO, a device or a socket is "not found"; opening one with O_NONBLOCK cannot hang (fifo(7)).
pub(super) async fn open(root: &Dir, path: &Path) -> Result<Opened, Unavailable> {
    let options = OpenOptions::new().nonblock(true);
    let mut waited = Duration::ZERO;
    let file = loop {
        match root.open_beneath(path, options).await {
            Ok(file) => break file,
            // The listener leaves some descriptors to files, so one comes back soon.
            Err(error) if is_lack(&error) && waited < PATIENCE => {
                annulus::time::sleep(REST).await;
                waited += REST;
            }
            Err(error) => return Err(judge(error)),
        }
    };
    // A plain fstat(2): what open has just looked up is at hand, also on a network file system, and a trip through the
    // ring costs more than the call.
    let stat = file.stat_now().map_err(Unavailable::Unreadable)?;
    match stat.kind {
        FileKind::Regular => Ok(Opened { file, size: stat.size, modified: stat.modified }),
        _ => Err(Unavailable::NotFound),
    }
}

/// Whether no descriptor is left, of this process or of the machine.
fn is_lack(error: &annulus::Error) -> bool {
    let errno = error.io_error().and_then(std::io::Error::raw_os_error).map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

/// What an error of openat2(2) says about the path.
fn judge(error: annulus::Error) -> Unavailable {
    let errno = error.io_error().and_then(std::io::Error::raw_os_error).map(Errno::from_raw_os_error);
    match errno {
        Some(
            // No such name, or a file where the path wants a directory.
            Errno::NOENT | Errno::NOTDIR | Errno::ISDIR
            // Symbolic links in a circle, or out of ROOT (openat2: RESOLVE_BENEATH gives EXDEV).
            | Errno::LOOP | Errno::XDEV
            // No file can have a name that long.
            | Errno::NAMETOOLONG
            // A socket, or a device without a driver.
            | Errno::NXIO | Errno::NODEV,
        ) => Unavailable::NotFound,
        _ => Unavailable::Unreadable(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_told_from_what_cannot_be_read() {
        let judged = |errno: Errno| judge(annulus::Error::io("opening", errno.into()));
        for errno in [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::XDEV, Errno::NAMETOOLONG, Errno::NXIO]
        {
            assert!(matches!(judged(errno), Unavailable::NotFound), "{errno}");
        }
        for errno in [Errno::ACCESS, Errno::IO, Errno::MFILE, Errno::NFILE, Errno::PERM] {
            assert!(matches!(judged(errno), Unavailable::Unreadable(_)), "{errno}");
        }
    }
}
