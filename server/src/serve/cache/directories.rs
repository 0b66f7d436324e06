//! The directories that a core watches for changes of what it holds.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use annulus::fs::{Change, Dir, WatchId, Watcher};
use rustix::fs::{AtFlags, FileType, fstat, statat};

use super::stored::BELIEVED;

/// The most directories that one core watches. Files in others are looked up each second.
const MOST: usize = 4096;

/// A directory as it was before something in it was read: to be compared with what it is afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    id: WatchId,
    changes: u64,
}

/// A path of a watched directory. As long as it leads there, the kernel tells what happens to names in it.
pub(super) struct Place {
    id: WatchId,
    /// Device and inode of what is watched.
    identity: (u64, u64),
    /// When the path was last seen to lead there.
    verified: Cell<u64>,
    /// It is not watched any more.
    is_over: Cell<bool>,
}

impl Place {
    /// Whether the path led there a moment ago.
    pub(super) fn is_verified(&self, now: u64) -> bool {
        !self.is_over.get() && now.saturating_sub(self.verified.get()) < BELIEVED
    }

    /// Looks up whether the directory of `path` is still the one that is watched: one call for all files in
    /// it. It is open, so it is in memory, and the call waits for no disk.
    pub(super) fn verify(&self, root: &Dir, path: &Path, now: u64) -> bool {
        if self.is_over.get() {
            return false;
        }
        let found = root.stat_now(here(path)).is_ok_and(|stat| (stat.device, stat.inode) == self.identity);
        if found {
            self.verified.set(now);
        }
        found
    }
}

/// Whether the last name of `path` stands for a file itself: what happens to the target of a link is told in
/// another directory. The name was just looked up, so the call waits for no disk.
pub(super) fn is_plain(root: &Dir, path: &Path) -> bool {
    let stat = statat(root, path, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

/// What a core watches.
pub(super) struct Directories {
    watcher: Rc<Watcher>,
    known: RefCell<Known>,
}

#[derive(Default)]
struct Known {
    by_path: HashMap<Box<[u8]>, Rc<Place>>,
    /// By links, a directory may have several paths.
    by_id: HashMap<WatchId, Watched>,
    /// No more can be watched.
    is_full: bool,
}

#[derive(Default)]
struct Watched {
    paths: Vec<Box<[u8]>>,
    changes: u64,
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// The parent, for a system call.
fn here(path: &Path) -> &Path {
    let parent = parent(path);
    if parent.as_os_str().is_empty() { Path::new(".") } else { parent }
}

/// What may have changed.
pub(super) enum Affected<'a> {
    /// What has this path.
    Path(&'a [u8]),
    /// What lies below this one, which is empty for the root.
    Below(&'a [u8]),
    /// Anything.
    All,
}

impl Directories {
    /// Watches nothing yet. `None` where the kernel gives no more of these.
    pub(super) fn new() -> Option<Self> {
        match Watcher::new() {
            Ok(watcher) => Some(Self { watcher: Rc::new(watcher), known: RefCell::default() }),
            Err(error) => {
                tracing::debug!(%error, "files are checked each second");
                None
            }
        }
    }

    /// What changes are waited for by.
    pub(super) fn watcher(&self) -> Rc<Watcher> {
        Rc::clone(&self.watcher)
    }

    /// Marks how the directory of `path` is now. `None` if it is not watched.
    pub(super) fn mark(&self, path: &Path) -> Option<Mark> {
        let known = self.known.borrow();
        let id = known.by_path.get(parent(path).as_os_str().as_bytes())?.id;
        Some(Mark { id, changes: known.by_id.get(&id)?.changes })
    }

    /// The directory of `path`, if it is watched.
    pub(super) fn place(&self, path: &Path) -> Option<Rc<Place>> {
        self.known.borrow().by_path.get(parent(path).as_os_str().as_bytes()).cloned()
    }

    /// Watches the directory of `path` from now on, if it can be.
    pub(super) async fn watch(&self, root: &Dir, path: &Path) {
        let bytes = parent(path).as_os_str().as_bytes();
        {
            let known = self.known.borrow();
            if known.is_full || known.by_path.contains_key(bytes) {
                return;
            }
        }
        let watched = self.begin(root, here(path)).await;
        let mut known = self.known.borrow_mut();
        match watched {
            Ok((id, identity)) => {
                let place = Place { id, identity, verified: Cell::new(0), is_over: Cell::new(false) };
                let before = known.by_path.insert(bytes.into(), Rc::new(place));
                if before.is_none_or(|before| before.id != id) {
                    known.by_id.entry(id).or_default().paths.push(bytes.into());
                }
                known.is_full = known.by_path.len() >= MOST;
            }
            Err(error) => {
                tracing::debug!(?path, %error, "a directory cannot be watched: its files are checked each second");
                let errno = error.io_error().and_then(std::io::Error::raw_os_error);
                known.is_full = errno == Some(libc::ENOSPC);
            }
        }
    }

    /// Watches what a path leads to. Returns its device and inode too.
    async fn begin(&self, root: &Dir, here: &Path) -> annulus::Result<(WatchId, (u64, u64))> {
        let dir = root.open_dir(here).await?;
        let stat = fstat(&dir).map_err(|e| annulus::Error::io("cannot look at a directory", e.into()))?;
        Ok((self.watcher.watch(&dir, ".").await?, (stat.st_dev, stat.st_ino)))
    }

    /// Whether nothing in the directory has changed since `mark`; what has happened until now must have been
    /// taken.
    pub(super) fn is_unchanged(&self, mark: Mark) -> bool {
        self.known.borrow().by_id.get(&mark.id).is_some_and(|watched| watched.changes == mark.changes)
    }

    /// Takes what has happened until now and says what it may have changed.
    pub(super) fn take(&self, mut affected: impl FnMut(Affected<'_>)) {
        let mut paths = Vec::new();
        let taken = self.watcher.take(|change| self.understand(change, &mut paths));
        if let Err(error) = taken {
            tracing::warn!(%error, "changes of files are seen after a second");
            paths.push(None);
        }
        for path in &paths {
            affected(match path {
                None => Affected::All,
                Some((path, true)) => Affected::Below(path),
                Some((path, false)) => Affected::Path(path),
            });
        }
    }

    /// Turns a change into paths: the path, and whether what lies below it is meant.
    fn understand(&self, change: Change<'_>, paths: &mut Vec<Option<(Vec<u8>, bool)>>) {
        let mut known = self.known.borrow_mut();
        match change {
            Change::Name(id, name) => {
                let Some(watched) = known.by_id.get_mut(&id) else { return };
                watched.changes += 1;
                let join = |parent: &[u8]| match parent {
                    b"" => name.as_bytes().to_vec(),
                    parent => [parent, b"/", name.as_bytes()].concat(),
                };
                paths.extend(watched.paths.iter().map(|parent| Some((join(parent), false))));
            }
            Change::Directory(id) => {
                let Known { by_path, by_id, .. } = &mut *known;
                let Some(watched) = by_id.get_mut(&id) else { return };
                watched.changes += 1;
                // It may have been moved: then the path leads elsewhere.
                for place in watched.paths.iter().filter_map(|path| by_path.get(path)) {
                    place.verified.set(0);
                }
                paths.extend(watched.paths.iter().map(|path| Some((path.to_vec(), true))));
            }
            Change::Ended(id) => {
                let Some(watched) = known.by_id.remove(&id) else { return };
                for path in &watched.paths {
                    if let Some(place) = known.by_path.remove(path) {
                        place.is_over.set(true);
                    }
                }
                paths.extend(watched.paths.into_iter().map(|path| Some((path.into_vec(), true))));
            }
            // Kinds of events that are not known yet.
            _ => {
                known.by_id.values_mut().for_each(|watched| watched.changes += 1);
                paths.push(None);
            }
        }
    }
}
