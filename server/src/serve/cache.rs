//! Files that were asked for a moment ago, kept open.
//!
//! To open a file beneath ROOT and close it again costs more than to send a small one, and to see that its name still
//! stands for it a fraction of that. So a file that is asked for again stays open for a second, and each time that it is
//! asked for its name is looked up (`fstatat(2)`): device, inode, size, times, owner and permissions must be those of the
//! file that was opened. A file that was replaced, written to, made unreadable or removed is opened anew by the very next
//! request, and its bytes are read anew for every request. Requests that are handled in one tick of the core share a look:
//! all of them had come before it. What a look at the name cannot tell, that a directory on the way
//! was replaced by a symbolic link to itself out of ROOT, ends with the second.
//!
//! The look is a call on the core. On a network file system it may ask a server, and one that does not answer would hold up
//! all connections of the core; and what the client there believes for some seconds would hide a change. So only files in the
//! file system of ROOT are kept, and only if that is a local one ([`super::local`]); all others are entry for each request,
//! which the ring does.
//!
//! The table is small and each path has one place in it: a look is a sum over the path and one comparison, nothing is
//! allocated, and what is not asked for again costs a number.

use std::cell::{Cell, RefCell};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use annulus::fs::{Dir, Stat};
use rustix::process::{Resource, getrlimit};

use super::entry::Entry;
use super::open::Wanted;

/// How long a file may stay open after it was entry.
const KEEP: Duration = Duration::from_secs(1);
/// Files that one core keeps, at most.
const PLACES: u64 = 256;

/// The files that a core keeps open.
pub(super) struct Cache {
    places: RefCell<Box<[Place]>>,
    /// Somebody sees to it that files are closed in time.
    swept: Cell<bool>,
    /// The device of the file system whose files may be kept.
    device: Cell<Option<u64>>,
}

/// Where some paths have their place, one at a time.
#[derive(Default)]
struct Place {
    /// The sum of the path that was asked for last: one that is asked for twice is kept.
    sum: u64,
    kept: Option<Kept>,
}

struct Kept {
    path: Box<[u8]>,
    entry: Entry,
    stat: Stat,
    /// The tick of the core in which its name was looked at last; 0 for none.
    looked: u64,
    until: Instant,
}

impl Cache {
    /// An empty table, for files of the file system `device`, if of any.
    pub(super) fn new(device: Option<u64>) -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let count = places(limit, annulus::cores::count() as u64);
        Self {
            places: RefCell::new((0..count).map(|_| Place::default()).collect()),
            swept: Cell::new(false),
            device: Cell::new(device),
        }
    }

    /// Whether the device is that whose files are kept.
    pub(super) fn is_of_device(&self, device: u64) -> bool {
        self.device.get() == Some(device)
    }

    /// Forgets everything; from now on files of the file system `device` may be kept.
    pub(super) fn start_over(&self, device: Option<u64>) {
        self.clear();
        self.device.set(device);
    }

    /// The file that `path` stands for, if it was kept open and is still the same.
    pub(super) fn find(&self, root: &Dir, wanted: &Wanted<'_>) -> Option<Entry> {
        let (path, coding) = (wanted.path.as_os_str().as_bytes(), wanted.coding);
        let mut places = self.places.borrow_mut();
        let place = place(&mut places, sum(path));
        let is_it = |kept: &&mut Kept| *kept.path == *path && kept.entry.facts.coding == coding;
        let kept = place.kept.as_mut().filter(is_it)?;
        let tick = annulus::cores::tick();
        if kept.looked == tick || root.stat_now(wanted.path).is_ok_and(|now| now.is_unchanged(&kept.stat)) {
            kept.looked = tick;
            return Some(kept.entry.clone());
        }
        // What there is now is for an open to find out.
        place.kept = None;
        None
    }

    /// Keeps a file that was just entry, if its path was the last that was asked for in its place and a look at its name
    /// waits for nobody.
    pub(super) fn keep(self: &Rc<Self>, wanted: &Wanted<'_>, entry: &Entry, stat: Stat) {
        if !self.is_of_device(stat.device) {
            return;
        }
        let bytes = wanted.path.as_os_str().as_bytes();
        let sum = sum(bytes);
        let mut places = self.places.borrow_mut();
        let place = place(&mut places, sum);
        if std::mem::replace(&mut place.sum, sum) != sum {
            return;
        }
        let until = Instant::now() + KEEP;
        // The ring may have found its name before this tick.
        place.kept = Some(Kept { path: bytes.into(), entry: entry.clone(), stat, looked: 0, until });
        drop(places);
        if !self.swept.replace(true) {
            annulus::spawn(sweep(Rc::clone(self))).detach();
        }
    }

    /// Closes all that is kept: somebody needs the descriptors.
    pub(super) fn clear(&self) {
        self.places.borrow_mut().iter_mut().for_each(|place| place.kept = None);
    }

    /// Closes what has been kept long enough. Returns when the next one has.
    fn close_until(&self, now: Instant) -> Option<Instant> {
        let mut next = None;
        for place in self.places.borrow_mut().iter_mut() {
            match &place.kept {
                Some(kept) if kept.until <= now => place.kept = None,
                Some(kept) => next = Some(next.map_or(kept.until, |next: Instant| next.min(kept.until))),
                None => {}
            }
        }
        next
    }
}

/// Closes files when their time is over, while there are any.
async fn sweep(cache: Rc<Cache>) {
    while let Some(next) = cache.close_until(Instant::now()) {
        annulus::time::sleep_until(next).await;
    }
    cache.swept.set(false);
}

/// How many places each of `cores` has, a power of two. Where descriptors are few a connection is worth more than an open file:
/// all cores together keep at most a thirty-second of the `limit`, or one each.
fn places(limit: u64, cores: u64) -> u64 {
    1 << PLACES.min(limit / 32 / cores).max(1).ilog2()
}

fn place(places: &mut [Place], sum: u64) -> &mut Place {
    // Multiplied, a sum has its best bits at the top.
    let at = (sum >> 32) as usize & (places.len() - 1);
    &mut places[at]
}

/// A sum over a path, eight bytes at a time. Whoever makes up paths with the same sum takes each other's place, no more.
fn sum(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |sum: u64, word: u64| (sum.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(bytes.len() as u64, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(sum, u64::from_le_bytes(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail: rounded up, at the first.
    #[test]
    fn all_cores_together_keep_a_thirty_second_of_the_descriptors_at_most() {
        assert_eq!(places(1024, 3), 8);
        assert_eq!(places(1024, 2), 16);
        assert_eq!(places(64, 64), 1);
        assert_eq!(places(u64::MAX, 1), PLACES);
    }
}
