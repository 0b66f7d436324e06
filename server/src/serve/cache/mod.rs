//! Files that were asked for: what heads say of them, what is in them if they are small, and open descriptors
//! of large ones.
//!
//! An entry is a version of a file. All cores of a node share it, read-only ([`node`]), and each core has its
//! own table of those that it has met. So a hit takes a lookup in the core's own memory, a comparison of
//! times and a count. Whoever sends a version has a share in it: after its eviction it lives until the last
//! has sent it. Descriptors are a core's own, since operations of its ring hold them.
//!
//! **Fresh.** A version is believed for a second after its name was checked: then the file is opened again,
//! beneath ROOT as for the first time, and if device, inode, size, times, owner and rights are the same, so
//! is the version. What was asked for a moment ago has its name in memory, and a call that looks it up does.
//! Changes that the kernel tells of ([`directories`]) end a version at once, before the requests that came
//! after them are read. So a file whose directory is watched is believed as long as the path leads to that
//! directory, which is looked up once a second for all files in it. That holds for a file that is kept open
//! and whose name is no link: what the kernel does not tell of (writes through a mapping or by another name)
//! is seen by an fstat, before bytes are sent from the file, and once a second where its content is in
//! memory. That costs a third of a look at the name, which each request of 10,000 files would be if there are
//! fewer than 10,000 requests a second. A file that cannot be watched and was changed within the last two
//! seconds is not held, since another change in the same tick of the file system's clock would not show.
//!
//! **One version under one strong tag.** An open file is looked at before it is sent, once for all requests
//! of a [tick](annulus::cores::tick), and again afterwards where sending took longer than that. When it
//! became another meanwhile the connection is cut.
//!
//! Only files in ROOT's file system are held, and only if that is local ([`super::local`]): a check of a name
//! on a network file system asks a server, and what the client there believes for some seconds would hide a
//! change.

mod directories;
mod met;
mod node;
mod path_hash;
mod policy;
pub(super) mod stored;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use annulus::fs::{Dir, File, Stat};
pub(crate) use directories::Mark;
use directories::{Affected, Directories, is_plain};
use met::{KeptFile, Local};
use node::{Name, NodeCache};
use path_hash::PathHash;
pub(crate) use stored::Stored;

use super::clock;
use super::entry::Entry;
use super::options::ServeArgs;
use super::wanted::Wanted;
use crate::http::encoding::Coding;
use crate::metrics::{self, CacheEvent};

/// Files up to this size, in bytes, are held with what is in them.
pub(super) const CONTENT: u64 = 16 * 1024;

/// How long it is believed that no compressed file lies beside another, in milliseconds.
const ABSENT: u64 = 1000;

/// The files that a core holds.
pub(super) struct Cache {
    local: RefCell<HashMap<Box<[u8]>, Local, PathHash>>,
    node: Arc<NodeCache>,
    /// Nothing is held at all.
    off: bool,
    /// The sum of the directory that is served.
    root: Cell<u64>,
    /// The device of the file system whose files may be held.
    device: Cell<Option<u64>>,
    directories: RefCell<Option<Rc<Directories>>>,
    /// Takes what happens in them as long as the cache is there.
    listening: RefCell<Option<annulus::JoinHandle<()>>>,
    /// A task closes files in time.
    swept: Cell<bool>,
    /// How many had left the node's table when this one was looked through last.
    left: Cell<u64>,
}

impl Cache {
    /// An empty one on the current core, for the directory with this `identity`, in the file system `device`,
    /// if of any.
    pub(super) fn new(args: &ServeArgs, identity: (u64, u64), device: Option<u64>) -> Rc<Self> {
        let node = node::of_cpu(annulus::cores::cpu());
        let cache = Rc::new(Self {
            local: RefCell::default(),
            node: NodeCache::of(args, node),
            off: args.cache.bytes == 0 || args.cache.entries == 0,
            root: Cell::new(0),
            device: Cell::new(None),
            directories: RefCell::default(),
            listening: RefCell::default(),
            swept: Cell::new(false),
            left: Cell::new(0),
        });
        cache.start_over(identity, device);
        cache
    }

    /// Whether the device is that whose files are held.
    pub(super) fn is_of_device(&self, device: u64) -> bool {
        self.device.get() == Some(device)
    }

    /// Forgets everything; from now on it is for another directory.
    pub(super) fn start_over(self: &Rc<Self>, identity: (u64, u64), device: Option<u64>) {
        self.local.borrow_mut().clear();
        self.root.set(identity.0.rotate_left(32) ^ identity.1);
        self.device.set(device);
        let directories = if self.off || device.is_none() { None } else { Directories::new().map(Rc::new) };
        let listening = directories
            .as_ref()
            .map(|directories| annulus::spawn(listen(Rc::downgrade(self), Rc::clone(directories))));
        *self.directories.borrow_mut() = directories;
        // What was listened with before is dropped after the borrow.
        let before = self.listening.replace(listening);
        drop(before);
    }

    /// The version that a path stands for, if it is held and need not be looked at.
    pub(super) fn find(&self, path: &[u8], now: u64) -> Option<Entry> {
        let local = self.local.borrow();
        let local = local.get(path).filter(|local| local.is_current(now) && !local.entry.has_ended())?;
        local.entry.stored.hit();
        local.used.set(now);
        metrics::cache(CacheEvent::Hit);
        Some(local.entry.clone())
    }

    /// The version that is held under a name, here or on the node, if a file that was just found with `stat`
    /// is the same.
    pub(super) fn known(&self, wanted: &Wanted<'_>, stat: &Stat, now: u64) -> Option<Arc<Stored>> {
        if !self.is_of_device(stat.device) {
            return None;
        }
        let key = key(wanted);
        let here = self.local.borrow().get(&*key).map(|local| Arc::clone(&local.entry.stored));
        let stored = here.filter(|stored| stored.is_of(stat, now));
        let stored =
            stored.or_else(|| self.node.get(&self.name(&key)).filter(|stored| stored.is_of(stat, now)))?;
        stored.was_checked(now);
        stored.hit();
        Some(stored)
    }

    /// What this core holds under a name in a watched directory, if the name still stands for it: one call in
    /// place of an open, a stat and a close, and for open files one for the whole directory. An open file
    /// keeps its name in memory (dcache), and so does the system for a while after a lookup, so the call
    /// waits for no disk. It follows links out of ROOT, but what is sent is the file that was found beneath
    /// it.
    pub(super) fn confirm(&self, root: &Dir, wanted: &Wanted<'_>, now: u64) -> Option<Entry> {
        let local = self.local.borrow();
        let local = local.get(&*key(wanted)).filter(|local| local.is_at_hand(now))?;
        let (stored, place) = (&local.entry.stored, local.place.get());
        let is_watched = stored.is_current_if_watched(now)
            && place.is_some_and(|place| place.verify(root, wanted.path, now))
            && local.is_as_it_was(now)
            && !local.entry.has_ended();
        if !is_watched {
            let stat = root.stat_now(wanted.path).ok()?;
            if !self.is_of_device(stat.device) || !stored.is_of(&stat, now) {
                return None;
            }
            stored.was_checked(now);
            stored.was_unchanged();
            if place.is_none() && local.is_open() && is_plain(root, wanted.path) {
                let directories = self.directories.borrow();
                let place = directories.as_ref().and_then(|directories| directories.place(wanted.path));
                // It is not set: that was just seen.
                place.map(|place| local.place.set(place));
            }
        }
        stored.hit();
        local.used.set(now);
        Some(local.entry.clone())
    }

    /// What this core holds under a name, if it is this version: its name was just checked.
    pub(super) fn held(&self, wanted: &Wanted<'_>, stored: &Arc<Stored>, now: u64) -> Option<Entry> {
        let local = self.local.borrow();
        let local = local.get(&*key(wanted)).filter(|local| Arc::ptr_eq(&local.entry.stored, stored))?;
        local.used.set(now);
        Some(local.entry.clone())
    }

    /// Marks the directory of what is about to be read. `None` if nobody tells what happens in it.
    pub(super) fn mark(&self, path: &Path) -> Option<Mark> {
        self.directories.borrow().as_ref()?.mark(path)
    }

    /// From now on changes in the directory of `path` are told, if they can be.
    pub(super) async fn watch(&self, root: &Dir, path: &Path) {
        let directories = self.directories.borrow().clone();
        if let Some(directories) = directories {
            directories.watch(root, path).await;
        }
    }

    /// Holds what was just read of `file`, if nothing has happened to it since `mark` and a lookup of its
    /// name waits for no server.
    pub(super) fn keep(
        self: &Rc<Self>,
        wanted: &Wanted<'_>,
        (entry, file): (&Entry, &File),
        mark: Option<Mark>,
        now: u64,
    ) {
        if self.off || !self.is_of_device(entry.stored.stat.device) {
            return;
        }
        self.take_changes();
        let unchanged = match (mark, &*self.directories.borrow()) {
            (Some(mark), Some(directories)) => directories.is_unchanged(mark),
            // Nobody tells of a second change in the same tick.
            _ => entry.stored.content.is_none() || entry.stored.facts.is_strong(),
        };
        if !unchanged {
            return;
        }
        let kept = match &entry.file {
            None => KeptFile::take_beside_content(file),
            Some(file) => match KeptFile::take(file) {
                None => return,
                kept => kept,
            },
        };
        let key = key(wanted);
        let name = self.name(&key);
        let is_there = self.node.get(&name).is_some_and(|there| Arc::ptr_eq(&there, &entry.stored));
        if !is_there && !self.node.insert(name, &entry.stored) {
            return;
        }
        self.let_go();
        let has_file = kept.is_some();
        let local = Local::new(entry.clone(), kept, now);
        let before = self.local.borrow_mut().insert(key, local);
        drop(before);
        if has_file && !self.swept.replace(true) {
            annulus::spawn(sweep(Rc::downgrade(self))).detach();
        }
    }

    /// Whether there was no file of this coding beside `path` a moment ago.
    pub(super) fn is_absent(&self, path: &[u8], coding: Coding, now: u64) -> bool {
        let local = self.local.borrow();
        local.get(path).is_some_and(|local| now - local.absent.get()[coding as usize].min(now) < ABSENT)
    }

    /// There is no file of this coding beside `path`.
    pub(super) fn note_absent(&self, path: &[u8], coding: Coding, now: u64) {
        if let Some(local) = self.local.borrow().get(path) {
            let mut absent = local.absent.get();
            absent[coding as usize] = now;
            local.absent.set(absent);
        }
    }

    /// Closes all files that it keeps open: somebody needs the descriptors.
    pub(super) fn clear(&self) {
        self.local.borrow_mut().retain(|_, local| local.kept.take().is_none() || local.entry.file.is_none());
    }

    fn name(&self, key: &[u8]) -> Name {
        (self.root.get(), Arc::from(key))
    }

    /// Ends what has changed.
    fn take_changes(&self) {
        let Some(directories) = self.directories.borrow().clone() else { return };
        directories.take(|affected| match affected {
            Affected::Path(path) => self.end(path),
            Affected::Below(path) => self.end_where(|key| is_below(key, path)),
            Affected::All => self.end_where(|_| true),
        });
    }

    /// Ends the versions that a path stands for.
    fn end(&self, path: &[u8]) {
        let mut local = self.local.borrow_mut();
        let mut ended = Vec::new();
        for key in [path, &[path, CODED].concat()] {
            if let Some((key, local)) = local.remove_entry(key) {
                local.entry.stored.finish();
                ended.push((key, local));
            }
        }
        for coding in Coding::ALL {
            let original = path.strip_suffix(coding.extension().as_bytes());
            if let Some(original) = original.and_then(|original| local.get(original)) {
                original.absent.set([0; 3]);
            }
        }
        drop(local);
        ended.iter().for_each(|(key, _)| self.node.remove(&self.name(key)));
    }

    fn end_where(&self, is_affected: impl Fn(&[u8]) -> bool) {
        let ended: Vec<_> = self.local.borrow_mut().extract_if(|key, _| is_affected(key)).collect();
        for (key, local) in &ended {
            local.entry.stored.finish();
            self.node.remove(&self.name(key));
        }
    }

    /// Drops versions that have left the node's table, once there are enough of them.
    fn let_go(&self) {
        let left = self.node.left();
        if left - self.left.get() > 16.max(self.local.borrow().len() as u64 / 4) {
            self.left.set(left);
            self.local.borrow_mut().retain(|_, local| !local.entry.stored.has_ended());
        }
    }

    /// Closes files that nobody has asked for. Returns whether any is left.
    fn close_idle(&self) -> bool {
        let now = clock::now();
        let mut left = false;
        let directories = self.directories.borrow();
        let is_watched = |key: &[u8]| {
            let path = Path::new(OsStr::from_bytes(key));
            directories.as_ref().is_some_and(|directories| directories.mark(path).is_some())
        };
        self.local.borrow_mut().retain(|key, local| {
            let stays = !local.is_idle(now, || is_watched(key)) && !local.entry.stored.has_ended();
            left |= stays && local.kept.is_some();
            stays
        });
        left
    }
}

/// Stands behind the path in the key of a coded file that is sent in place of another. No path has such a
/// byte.
pub(super) const CODED: &[u8] = b"\0";

/// What an entry is held under.
fn key(wanted: &Wanted<'_>) -> Box<[u8]> {
    let path = wanted.path.as_os_str().as_bytes();
    if wanted.coding.is_some() { [path, CODED].concat().into() } else { path.into() }
}

fn is_below(key: &[u8], path: &[u8]) -> bool {
    let rest = key.strip_prefix(path);
    path.is_empty() || rest.is_some_and(|rest| matches!(rest, [] | [b'/' | 0, ..]))
}

/// Takes what happens to directories, before the requests that come after it.
async fn listen(cache: Weak<Cache>, directories: Rc<Directories>) {
    let watcher = directories.watcher();
    drop(directories);
    while watcher.changed().await.is_ok() {
        let Some(cache) = cache.upgrade() else { return };
        cache.take_changes();
    }
    // Nobody tells any more.
    if let Some(cache) = cache.upgrade() {
        let before = cache.directories.take();
        drop(before);
        cache.end_where(|_| true);
    }
}

/// Closes files when their time is over, while there are any.
async fn sweep(cache: Weak<Cache>) {
    loop {
        annulus::time::sleep(Duration::from_secs(1)).await;
        let Some(cache) = cache.upgrade() else { return };
        if !cache.close_idle() {
            cache.swept.set(false);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below() {
        for (key, path) in [("a", ""), ("a/b", "a"), ("a", "a"), ("a\0", "a"), ("a/b/c", "a/b")] {
            assert!(is_below(key.as_bytes(), path.as_bytes()), "{key} {path}");
        }
        for (key, path) in [("ab", "a"), ("b/a", "a"), ("a", "a/b")] {
            assert!(!is_below(key.as_bytes(), path.as_bytes()), "{key} {path}");
        }
    }
}
