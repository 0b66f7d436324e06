//! What a core has met: entries in a table of its own.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use annulus::fs::File;

use super::directories::Place;
use super::node::{KEPT_FILES, most_files};
use crate::serve::entry::Entry;

/// In milliseconds: how long an open file is kept that nobody asks for, and so long its name stays in memory;
/// the same where nobody tells that it was removed, so that its blocks are given back.
const IDLE: u64 = 60_000;
const IDLE_UNWATCHED: u64 = 5000;

/// What a core has met.
pub(super) struct Local {
    pub(super) entry: Entry,
    pub(super) kept: Option<KeptFile>,
    pub(super) used: Cell<u64>,
    /// The directory in which the kernel tells of all that happens to it.
    pub(super) place: OnceCell<Rc<Place>>,
    /// For each coding, when there was no such file beside it.
    pub(super) absent: Cell<[u64; 3]>,
}

impl Local {
    /// An entry that is met at `now`.
    pub(super) fn new(entry: Entry, kept: Option<KeptFile>, now: u64) -> Self {
        Self { entry, kept, used: Cell::new(now), place: OnceCell::new(), absent: Cell::default() }
    }

    /// Whether its file is to be closed at `now`. `is_watched` tells of its directory.
    pub(super) fn is_idle(&self, now: u64, is_watched: impl FnOnce() -> bool) -> bool {
        let unused = if self.kept.is_some() { now.saturating_sub(self.used.get()) } else { 0 };
        unused > IDLE || (unused > IDLE_UNWATCHED && !is_watched())
    }

    /// Whether it may be sent at `now` without a look at its name.
    pub(super) fn is_current(&self, now: u64) -> bool {
        let stored = &self.entry.stored;
        let is_watched = || self.place.get().is_some_and(|place| place.is_verified(now));
        stored.is_current(now)
            || (is_watched() && stored.is_current_if_watched(now) && self.is_as_it_was(now))
    }

    /// Whether content in memory is still what is in the file, once a second by a look at the open file. A
    /// file that is sent from its descriptor is looked at then.
    pub(super) fn is_as_it_was(&self, now: u64) -> bool {
        let stored = &self.entry.stored;
        if stored.content.is_none() || stored.was_seen(now) {
            return true;
        }
        let stat = self.kept.as_ref().and_then(|kept| kept.file.stat_now().ok());
        let is_same = stat.is_some_and(|stat| stored.stat.is_unchanged(&stat));
        if is_same {
            stored.saw(now);
        }
        is_same
    }

    /// Whether its name is in the system's memory, as far as can be known.
    pub(super) fn is_at_hand(&self, now: u64) -> bool {
        self.kept.is_some() || now.saturating_sub(self.used.get()) < IDLE
    }

    /// Whether its file is open, so that it can be looked at without its name.
    pub(super) fn is_open(&self) -> bool {
        self.kept.is_some()
    }
}

/// One of the open files that all caches may keep.
pub(super) struct KeptFile {
    file: File,
}

impl KeptFile {
    /// Keeps a file open that is sent from its descriptor.
    pub(super) fn take(file: &File) -> Option<Self> {
        Self::below(most_files(), file)
    }

    /// Keeps a file open whose content is in memory: the others have half of the descriptors for themselves.
    pub(super) fn take_beside_content(file: &File) -> Option<Self> {
        Self::below(most_files() / 2, file)
    }

    fn below(most: u64, file: &File) -> Option<Self> {
        if KEPT_FILES.fetch_add(1, Ordering::Relaxed) < most {
            return Some(Self { file: file.clone() });
        }
        KEPT_FILES.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for KeptFile {
    fn drop(&mut self) {
        KEPT_FILES.fetch_sub(1, Ordering::Relaxed);
    }
}
