//! Opening what a path names, and telling "not there" from "cannot be read".

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use annulus::fs::{Dir, File, FileKind, OpenOptions, Stat};
use annulus::waits;
use rustix::io::Errno;

use super::cache::{self, Mark, Stored};
use super::entry::Entry;
use super::site::Site;
use super::wanted::Wanted;
use super::{clock, local};
use crate::metrics::{self, CacheEvent};
use crate::slow;

/// How long a request waits for a descriptor, and how long between two tries.
const PATIENCE: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_millis(5);

/// How long a request waits for a file that somebody holds a lease on: the kernel takes the lease away after
/// /proc/sys/fs/lease-break-time, which is 45 s unless changed (fcntl(2)).
const LEASE_PATIENCE: Duration = Duration::from_secs(60);
const LEASE_REST: Duration = Duration::from_millis(10);

/// The most that is read of a file that the kernel makes up, in bytes, and how long that may take.
const MADE_UP: usize = 1024 * 1024;
const MADE_UP_PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no file to send.
#[derive(Debug)]
pub(super) enum Unavailable {
    /// There is no such name below ROOT, or it stands for what is never sent: 404.
    NotFound,
    /// It is a directory.
    Directory,
    /// It may not be read: 403.
    Forbidden,
    /// It cannot be read: 500.
    Unreadable(annulus::Error),
}

/// How often a file is read again that changes while it is read.
const TRIES: u32 = 4;

/// Opens a file below ROOT, or finds what is known of it.
///
/// A FIFO, a device or a socket is "not found"; opening one with O_NONBLOCK cannot hang (fifo(7)).
pub(super) async fn open(site: &Site, wanted: &Wanted<'_>) -> Result<Entry, Unavailable> {
    if wanted.coding.is_none()
        && let Some(entry) = site.cache.find(wanted.path.as_os_str().as_bytes(), clock::now())
    {
        return Ok(entry);
    }
    let root = site.root();
    let mark = site.cache.mark(wanted.path);
    if mark.is_some()
        && let Some(entry) = site.cache.confirm(&root, wanted, clock::now())
    {
        metrics::cache(CacheEvent::Hit);
        return Ok(entry);
    }
    let mut tries = 0;
    loop {
        let file = open_file(site, &root, wanted.path).await?;
        // A plain fstat(2): what the open has just looked up is in memory, also on a network file system. An
        // SQE costs more than the call.
        let stat = file.stat_now().map_err(Unavailable::Unreadable)?;
        match stat.kind {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Unavailable::Directory),
            _ => return Err(Unavailable::NotFound),
        }
        let now = clock::now();
        if let Some(stored) = site.cache.known(wanted, &stat, now) {
            stored.was_unchanged();
            metrics::cache(CacheEvent::Hit);
            if let Some(entry) = site.cache.held(wanted, &stored, now) {
                if mark.is_none() {
                    site.cache.watch(&root, wanted.path).await;
                }
                return Ok(entry);
            }
            let from = stored.content.is_none().then(|| file.clone());
            let entry = Entry { stored, file: from };
            return Ok(kept(site, &root, wanted, (entry, &file), mark, now).await);
        }
        metrics::cache(CacheEvent::Miss);
        tries += 1;
        match read(site, wanted, &file, stat, now).await? {
            Some(entry) => return Ok(kept(site, &root, wanted, (entry, &file), mark, now).await),
            // It is being written to.
            None if tries < TRIES => {}
            None => {
                let busy = std::io::Error::from(std::io::ErrorKind::ResourceBusy);
                return Err(Unavailable::Unreadable(annulus::Error::io(
                    "the file changes while it is read",
                    busy,
                )));
            }
        }
    }
}

/// Holds what was found, and watches its directory.
async fn kept(
    site: &Site,
    root: &Dir,
    wanted: &Wanted<'_>,
    (entry, file): (Entry, &File),
    mark: Option<Mark>,
    now: u64,
) -> Entry {
    site.cache.keep(wanted, (&entry, file), mark, now);
    if mark.is_none() {
        site.cache.watch(root, wanted.path).await;
    }
    entry
}

/// Makes a version of a file that was just opened: `None` if it changed meanwhile.
async fn read(
    site: &Site,
    wanted: &Wanted<'_>,
    file: &File,
    stat: Stat,
    now: u64,
) -> Result<Option<Entry>, Unavailable> {
    let facts = |stat: &Stat| site.facts(wanted.original, wanted.coding, stat);
    if let Some(content) = made_up(site, file, &stat).await? {
        let stored = Stored::new(content.len() as u64, facts(&stat), Some(content), stat, now);
        return Ok(Some(Entry { stored: Arc::new(stored), file: None }));
    }
    if stat.size > cache::CONTENT {
        let stored = Stored::new(stat.size, facts(&stat), None, stat, now);
        return Ok(Some(Entry { stored: Arc::new(stored), file: Some(file.clone()) }));
    }
    // One byte more shows whether it has grown. Pages in memory are read by a call, those behind them by the
    // ring.
    let len = stat.size as usize;
    let mut content = Vec::with_capacity(len + 1);
    file.read_now(&mut content, 0).map_err(Unavailable::Unreadable)?;
    if content.len() < len {
        while content.len() <= len {
            let at = content.len() as u64;
            let (read, back) =
                file.read_at(content, at).await.map_err(|failed| Unavailable::Unreadable(failed.error))?;
            content = back;
            if read == 0 {
                break;
            }
        }
    }
    let after = file.stat_now().map_err(Unavailable::Unreadable)?;
    if content.len() != len || !after.is_unchanged(&stat) {
        return Ok(None);
    }
    let stored = Stored::new(stat.size, facts(&stat), Some(Arc::from(content)), stat, now);
    Ok(Some(Entry { stored: Arc::new(stored), file: None }))
}

/// Opens a name. Waits for a descriptor where none is left, and for the end of a lease. Both waits are timers
/// of the ring.
async fn open_file(site: &Site, root: &Dir, path: &Path) -> Result<File, Unavailable> {
    let options = OpenOptions::new().nonblock(true);
    let (mut waited, mut leased) = (Duration::ZERO, Duration::ZERO);
    loop {
        let opening = root.open_beneath(path, options);
        let opened = if leased.is_zero() { opening.await } else { waits::during(slow::LEASE, opening).await };
        match opened {
            Ok(file) => return Ok(file),
            // The listener leaves some descriptors to files, so one comes back soon.
            Err(error) if is_lack(&error) && waited < PATIENCE => {
                site.cache.clear();
                waits::during(slow::DESCRIPTORS, annulus::time::sleep(REST)).await;
                waited += REST;
            }
            // The first try has asked for the lease to be given back (open(2), O_NONBLOCK, EWOULDBLOCK).
            Err(error) if errno(&error) == Some(Errno::AGAIN) && leased < LEASE_PATIENCE => {
                waits::during(slow::LEASE, annulus::time::sleep(LEASE_REST)).await;
                leased += LEASE_REST;
            }
            Err(error) => return Err(judge(error)),
        }
    }
}

/// The content of a file whose size says nothing, because the kernel makes it up when it is read (proc(5),
/// sysfs(5)). `None` for any other.
async fn made_up(site: &Site, file: &File, stat: &Stat) -> Result<Option<Arc<[u8]>>, Unavailable> {
    if site.cache.is_of_device(stat.device) || !(stat.size == 0 || local::is_made_up(file)) {
        return Ok(None);
    }
    let reading = async {
        let mut content = Vec::with_capacity(4096);
        loop {
            content.reserve(4096);
            let at = content.len() as u64;
            let (read, back) = file.read_at(content, at).await.map_err(|failed| failed.error)?;
            content = back;
            if read == 0 || content.len() > MADE_UP {
                return Ok::<_, annulus::Error>(content);
            }
        }
    };
    let failed = |kind: std::io::ErrorKind| {
        Unavailable::Unreadable(annulus::Error::io("cannot read a file", kind.into()))
    };
    match annulus::time::timeout(MADE_UP_PATIENCE, reading).await {
        Ok(Ok(content)) if content.len() > MADE_UP => Err(failed(std::io::ErrorKind::FileTooLarge)),
        Ok(Ok(content)) => Ok(Some(Arc::from(content))),
        Ok(Err(error)) => Err(Unavailable::Unreadable(error)),
        Err(_elapsed) => Err(failed(std::io::ErrorKind::TimedOut)),
    }
}

fn errno(error: &annulus::Error) -> Option<Errno> {
    error.io_error().and_then(std::io::Error::raw_os_error).map(Errno::from_raw_os_error)
}

/// Whether no descriptor is left, of this process or of the machine.
fn is_lack(error: &annulus::Error) -> bool {
    matches!(errno(error), Some(Errno::MFILE | Errno::NFILE))
}

/// What an error of openat2(2) says about the path.
fn judge(error: annulus::Error) -> Unavailable {
    match errno(&error) {
        Some(Errno::ACCESS | Errno::PERM) => Unavailable::Forbidden,
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
        for errno in [Errno::ACCESS, Errno::PERM] {
            assert!(matches!(judged(errno), Unavailable::Forbidden), "{errno}");
        }
        for errno in [Errno::IO, Errno::MFILE, Errno::NFILE] {
            assert!(matches!(judged(errno), Unavailable::Unreadable(_)), "{errno}");
        }
    }
}
