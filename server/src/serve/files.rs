//! Opening what a path names, and telling "not there" from "cannot be read".

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use annulus::fs::{File, FileKind, OpenOptions, Stat};
use rustix::io::Errno;

use super::Site;
use crate::http::conditions::Validators;
use crate::http::etag::Version;
use crate::http::mime::content_type;
use crate::http::response::{self, FieldsLayout, FileFacts};
use crate::metrics::{self, CacheEvent};

/// A cache may keep a file and asks each time whether it is still the same.
const CACHE_CONTROL: &str = "no-cache";

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
    /// What heads say of it.
    pub(super) facts: Rc<Facts>,
}

/// What heads say of a file, written once.
pub(super) struct Facts {
    fields: Box<[u8]>,
    layout: FieldsLayout,
    pub(super) tag: String,
    pub(super) content_type: String,
}

impl Facts {
    /// The fields, and what of them goes into which head.
    pub(super) fn fields(&self) -> (&[u8], FieldsLayout) {
        (&self.fields, self.layout)
    }
}

impl Opened {
    /// What conditions are compared with.
    pub(super) fn validators(&self) -> Validators<'_> {
        Validators { tag: self.facts.tag.as_bytes(), modified: self.modified }
    }
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
    let kept = site.cache.find(&site.root, path);
    metrics::cache(if kept.is_some() { CacheEvent::Hit } else { CacheEvent::Miss });
    if let Some(opened) = kept {
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
    let facts = Rc::new(facts(site, path, &stat));
    let opened = Opened { file, size: stat.size, modified: stat.modified, facts };
    site.cache.keep(path, &opened, stat);
    Ok(opened)
}

/// Writes down what heads say of a file.
fn facts(site: &Site, path: &Path, stat: &Stat) -> Facts {
    let now = SystemTime::now();
    let version =
        Version { size: stat.size, modified: stat.modified, changed: stat.changed, inode: stat.inode };
    let tag = version.tag(version.is_settled(now), "");
    let content_type = content_type(path).into_owned();
    let file = FileFacts {
        content_type: &content_type,
        modified: stat.modified,
        tag: &tag,
        cache_control: CACHE_CONTROL,
    };
    let mut layout = None;
    let write = |out: &mut Vec<u8>| layout = Some(response::file_fields(out, now, &file));
    let fields = site.written(write, |fields| Box::from(fields));
    let layout = layout.unwrap_or_default();
    Facts { fields, layout, tag, content_type }
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
