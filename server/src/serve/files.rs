//! Opening what a path names, and telling "not there" from "cannot be read".

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use annulus::fs::{File, FileKind, OpenOptions};
use rustix::io::Errno;

use super::Site;
use crate::http::mime::content_type;
use crate::http::response::{self, FileFacts};

/// How long a request waits for a descriptor, and how long between two tries.
const PATIENCE: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_millis(5);

/// An open regular file.
#[derive(Clone)]
pub(super) struct Opened {
    pub(super) file: File,
    /// In bytes.
    pub(super) size: u64,
    pub(super) modified: SystemTime,
    /// What every head says of it.
    pub(super) fields: Rc<[u8]>,
}

/// Why there is no file to send.
#[derive(Debug)]
pub(super) enum Unavailable {
    /// There is no such regular file below ROOT: 404.
    NotFound,
    /// There is one, and it cannot be read: 500.
    Unreadable(annulus::Error),
}

/// Opens the file `path` below ROOT, or finds it open.
///
/// A FIFO, a device or a socket is "not found"; opening one with O_NONBLOCK cannot hang (fifo(7)).
pub(super) async fn open(site: &Site, path: &Path) -> Result<Opened, Unavailable> {
    if let Some(opened) = site.cache.find(&site.root, path) {
        return Ok(opened);
    }
    let options = OpenOptions::new().nonblock(true);
    let mut waited = Duration::ZERO;
    let file = loop {
        match site.root.open_beneath(path, options).await {
            Ok(file) => break file,
            // The listener leaves some descriptors to files, so one comes back soon.
            Err(error) if is_lack(&error) && waited < PATIENCE => {
                site.cache.clear();
                annulus::time::sleep(REST).await;
                waited += REST;
            }
            Err(error) => return Err(judge(error)),
        }
    };
    // A plain fstat(2): what open has just looked up is at hand, also on a network file system, and a trip through the
    // ring costs more than the call.
    let stat = file.stat_now().map_err(Unavailable::Unreadable)?;
    if stat.kind != FileKind::Regular {
        return Err(Unavailable::NotFound);
    }
    let facts = FileFacts { content_type: &content_type(path), modified: stat.modified };
    let fields =
        site.written(|out| response::file_fields(out, SystemTime::now(), &facts), |fields| Rc::from(fields));
    let opened = Opened { file, size: stat.size, modified: stat.modified, fields };
    site.cache.keep(path, &opened, stat);
    Ok(opened)
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
