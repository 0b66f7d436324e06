//! What is known of a file, and what is in it: made once, read by all cores of a node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::SystemTime;

use annulus::fs::Stat;
use annulus::transfer::Residency;

use super::policy::Held;
use crate::serve::facts::Facts;

/// How long what is known of a file is believed without a check of its name, in milliseconds.
pub(super) const BELIEVED: u64 = 1000;
/// The same where the kernel tells of changes, for what it does not tell of: a file that another one was
/// mounted over.
const BELIEVED_WATCHED: u64 = 120_000;
/// How long it is believed that the page cache has what was sent of a file.
const RESIDENT: u64 = 5000;
/// More hits than this say nothing more.
const MOST_HITS: u8 = 3;
/// What an entry costs beyond its content and its path, in bytes: its facts, and places in tables.
const OVERHEAD: u64 = 1024;

/// A version of a file.
pub(crate) struct Stored {
    /// Bytes of what is sent.
    pub(crate) size: u64,
    pub(crate) modified: SystemTime,
    /// What heads say of it.
    pub(crate) facts: Facts,
    /// All that is in it, if it is small, or is no file of a disk.
    pub(crate) content: Option<Arc<[u8]>>,
    /// What the file was like when it was read.
    pub(crate) stat: Stat,
    /// When its name was last checked, by [`now`](super::super::clock::now).
    checked: AtomicU64,
    /// When content in memory was last compared with the open file.
    seen: AtomicU64,
    /// When the page cache was last seen to have all of it.
    resident: AtomicU64,
    /// The [tick](this_tick) in which the file was last seen unchanged.
    unchanged: AtomicU64,
    /// It is not to be sent to anybody new.
    ended: AtomicBool,
    hits: AtomicU8,
}

impl Stored {
    /// A version that was found at `now`.
    pub(crate) fn new(size: u64, facts: Facts, content: Option<Arc<[u8]>>, stat: Stat, now: u64) -> Self {
        Self {
            size,
            modified: stat.modified,
            facts,
            content,
            stat,
            checked: AtomicU64::new(now),
            seen: AtomicU64::new(now),
            resident: AtomicU64::new(0),
            unchanged: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            hits: AtomicU8::new(0),
        }
    }

    /// Whether it may be sent at `now` without a check of its name.
    pub(super) fn is_current(&self, now: u64) -> bool {
        !self.ended.load(Ordering::Acquire)
            && now.saturating_sub(self.checked.load(Ordering::Relaxed)) < BELIEVED
            && !self.facts.has_settled(now)
    }

    /// The same, where the kernel tells what happens to its name.
    pub(super) fn is_current_if_watched(&self, now: u64) -> bool {
        !self.ended.load(Ordering::Acquire)
            && !self.facts.has_settled(now)
            && now.saturating_sub(self.checked.load(Ordering::Relaxed)) < BELIEVED_WATCHED
    }

    /// The name was checked at `now`, and still stands for this file.
    pub(super) fn was_checked(&self, now: u64) {
        self.checked.fetch_max(now, Ordering::Relaxed);
    }

    /// Whether content in memory was compared with the open file a moment ago.
    pub(super) fn was_seen(&self, now: u64) -> bool {
        now.saturating_sub(self.seen.load(Ordering::Relaxed)) < BELIEVED
    }

    /// The open file was like this at `now`.
    pub(super) fn saw(&self, now: u64) {
        self.seen.store(now, Ordering::Relaxed);
    }

    /// What is known of its pages. What was sent a moment ago is in use, and the system drops what is not
    /// first.
    pub(crate) fn residency(&self, now: u64) -> Residency {
        let seen = self.resident.load(Ordering::Relaxed);
        if now.saturating_sub(seen) < RESIDENT { Residency::Seen } else { Residency::Unknown }
    }

    /// The page cache had all of it at `now`.
    pub(crate) fn was_resident(&self, now: u64) {
        self.resident.store(now, Ordering::Relaxed);
    }

    /// Whether the file was seen unchanged in this tick of the core. Whoever changed it and asked then is
    /// heard in a later one. A change that is younger is not seen either way: bytes under way are the page
    /// cache's own.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.unchanged.load(Ordering::Relaxed) == this_tick()
    }

    /// The file was seen unchanged just now.
    pub(crate) fn was_unchanged(&self) {
        self.unchanged.store(this_tick(), Ordering::Relaxed);
    }

    /// Whether a file with `stat` is this version, of which all is said that can be.
    pub(super) fn is_of(&self, stat: &Stat, now: u64) -> bool {
        !self.has_ended() && !self.facts.has_settled(now) && self.stat.is_unchanged(stat)
    }

    /// Counts a hit. Cores may count at the same time and lose one: the count goes to 3 at most.
    pub(super) fn hit(&self) {
        let hits = self.hits.load(Ordering::Relaxed);
        if hits < MOST_HITS {
            self.hits.store(hits + 1, Ordering::Relaxed);
        }
    }

    /// From now on it is sent to nobody new.
    pub(crate) fn finish(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

/// The tick that the core is in, and which core that is: never 0.
fn this_tick() -> u64 {
    const TICKS: u32 = 48;
    (annulus::cores::index() as u64 + 1) << TICKS | annulus::cores::tick() & ((1 << TICKS) - 1)
}

impl Held for Arc<Stored> {
    fn weight(&self) -> u64 {
        OVERHEAD + self.content.as_ref().map_or(0, |content| content.len() as u64)
    }

    fn hits(&self) -> u8 {
        self.hits.load(Ordering::Relaxed)
    }

    fn lower(&self) {
        self.hits.store(Held::hits(self).saturating_sub(1), Ordering::Relaxed);
    }

    fn end(&self) {
        self.finish();
    }

    fn has_ended(&self) -> bool {
        Stored::has_ended(self)
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(self, other)
    }
}
