//! The directories that a core watches for changes of what it holds.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use annulus::fs::{Change, Dir, WatchId, Watcher};

/// The most directories that one core watches. Files in others are looked up each second.
const MOST: usize = 4096;

/// A directory as it was before something in it was read: to be compared with what it is afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    id: WatchId,
    changes: u64,
}

/// What a core watches.
pub(super) struct Directories {
    watcher: Rc<Watcher>,
    known: RefCell<Known>,
}

#[derive(Default)]
struct Known {
    by_path: HashMap<Box<[u8]>, WatchId>,
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
        let id = *known.by_path.get(parent(path).as_os_str().as_bytes())?;
        Some(Mark { id, changes: known.by_id.get(&id)?.changes })
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
        let here = if bytes.is_empty() { Path::new(".") } else { parent(path) };
        let watched = self.watcher.watch(root, here).await;
        let mut known = self.known.borrow_mut();
        match watched {
            Ok(id) => {
                if known.by_path.insert(bytes.into(), id) != Some(id) {
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
                let Some(watched) = known.by_id.get_mut(&id) else { return };
                watched.changes += 1;
                paths.extend(watched.paths.iter().map(|path| Some((path.to_vec(), true))));
            }
            Change::Ended(id) => {
                let Some(watched) = known.by_id.remove(&id) else { return };
                for path in &watched.paths {
                    known.by_path.remove(path);
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
