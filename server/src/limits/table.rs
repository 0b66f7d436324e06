//! Counts by key, which threads and processes share without a lock.
//!
//! It is a table of 64-bit slots: the upper 40 bits identify the key, the lower 24 are the count. One
//! compare-and-swap changes both, so a slot whose count comes to 0 is free at once. A key can be in one of
//! two buckets of eight slots, each of them a cache line. Keys are placed by a hash with a secret of the
//! program, so nobody outside can find two that collide. Two of 100,000 keys collide by chance with a
//! probability below 10^-7.

use std::hash::{Hash, Hasher};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use siphasher::sip::SipHasher13;

use super::memory;

/// Slots of a bucket.
const BUCKET: usize = 8;
/// Buckets of the program's table. Its million slots are as many as the descriptors that a process has by
/// default at most.
const BUCKETS: usize = 1 << 17;
/// The bits of a slot that are the count.
const COUNT_BITS: u32 = 24;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
/// Counters before the slots: the two halves of the secret, and the rest of a cache line.
const HEAD: usize = BUCKET;

/// Counts by key.
#[derive(Debug)]
pub(super) struct Table {
    secret: (u64, u64),
    slots: &'static [AtomicU64],
}

/// The key that something is counted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key(u64, u64);

/// One counted thing. Dropping it gives the count back.
#[derive(Debug)]
#[must_use = "dropped, it is not counted any more"]
pub(crate) struct Counted(Option<&'static AtomicU64>);

impl Table {
    /// A table for this process alone.
    pub(super) fn own() -> io::Result<Self> {
        Self::new(BUCKETS, None)
    }

    /// A table in what [`memory`] has made for several processes: see [`counters`](Self::counters).
    pub(super) fn shared(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Self::new(BUCKETS, Some(fd))
    }

    /// How many counters the table needs.
    pub(super) fn counters() -> usize {
        HEAD + BUCKETS * BUCKET
    }

    fn new(buckets: usize, shared: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        let all = memory::map(HEAD + buckets * BUCKET, shared)?;
        // The first process decides.
        let half = |at: usize| {
            let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), at) | 1;
            all[at].compare_exchange(0, random, SeqCst, SeqCst).map_or_else(|decided| decided, |_| random)
        };
        Ok(Table { secret: (half(0), half(1)), slots: &all[HEAD..] })
    }

    /// The key of `what`: the same in every process of the program.
    pub(super) fn key(&self, what: impl Hash) -> Key {
        let mut hasher = SipHasher13::new_with_keys(self.secret.0, self.secret.1);
        what.hash(&mut hasher);
        let place = hasher.finish();
        hasher.write_u8(0);
        Key(place, (hasher.finish() >> COUNT_BITS).max(1) << COUNT_BITS)
    }

    /// The slots that may hold `key`.
    fn slots(&self, key: Key) -> impl Iterator<Item = &'static AtomicU64> {
        let buckets = self.slots.len() / BUCKET;
        let first = key.0 as usize % buckets;
        let second = (key.0 >> 32) as usize % buckets;
        // The bucket is searched once if both are the same.
        let second = if first == second { &[] } else { &self.slots[second * BUCKET..][..BUCKET] };
        self.slots[first * BUCKET..][..BUCKET].iter().chain(second)
    }

    /// The count under `key`.
    pub(super) fn count(&self, key: Key) -> usize {
        let count = |slot: &AtomicU64| match slot.load(SeqCst) {
            value if value & !COUNT == key.1 => value & COUNT,
            _ => 0,
        };
        self.slots(key).map(count).sum::<u64>() as usize
    }

    /// Counts one more under `key`, if the count is then at most `most`.
    pub(super) fn enter(&self, key: Key, most: usize) -> Option<Counted> {
        // A slot counts no more than this, so its count never runs over into its key.
        let most = most.min(COUNT as usize);
        loop {
            let (mut count, mut known, mut free) = (0, None, None);
            for slot in self.slots(key) {
                let value = slot.load(SeqCst);
                if value == 0 {
                    free = free.or(Some((slot, 0)));
                } else if value & !COUNT == key.1 {
                    count += value & COUNT;
                    known = known.or(Some((slot, value)));
                }
            }
            if count as usize >= most {
                return None;
            }
            let Some((slot, value)) = known.or(free) else {
                tracing::warn!("more clients than can be counted: a connection is in no limit");
                return Some(Counted(None));
            };
            let one_more = if value == 0 { key.1 | 1 } else { value + 1 };
            if slot.compare_exchange(value, one_more, SeqCst, SeqCst).is_err() {
                continue;
            }
            let counted = Counted(Some(slot));
            // Two that come at once may take a slot each. If the total is over the limit, both try again.
            if self.count(key) <= most {
                return Some(counted);
            }
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // This one is counted, so the count is 1 at least.
        let one_less = |value| Some(if value & COUNT == 1 { 0 } else { value - 1 });
        if let Some(slot) = self.0 {
            // The update always has a value to change.
            let _ = slot.fetch_update(SeqCst, SeqCst, one_less);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::os::fd::AsFd;
    use std::sync::atomic::AtomicUsize;

    use proptest::prelude::*;

    use super::*;

    fn is_empty(table: &Table) -> bool {
        table.slots.iter().all(|slot| slot.load(SeqCst) == 0)
    }

    /// Two tables of the same memory stand for two processes.
    #[test]
    fn all_who_map_it_count_together() {
        let fd = memory::create(Table::counters()).unwrap();
        let [a, b] = [(); 2].map(|()| Table::shared(fd.as_fd()).unwrap());
        assert_eq!((a.key("x"), a.key(5)), (b.key("x"), b.key(5)));
        assert_ne!(a.key("x"), a.key("y"));
        let held = [a.enter(a.key("x"), 2).unwrap(), b.enter(b.key("x"), 2).unwrap()];
        assert!(a.enter(a.key("x"), 2).is_none() && b.enter(b.key("x"), 2).is_none());
        assert_eq!((a.count(a.key("x")), b.count(b.key("x")), b.count(b.key("y"))), (2, 2, 0));
        drop(held);
        assert!(is_empty(&a) && is_empty(&b), "nothing is kept");
        let other = memory::create(Table::counters() - 1).unwrap();
        assert_eq!(Table::shared(other.as_fd()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    /// Threads enter and leave under two keys, in a table of one bucket, where the keys share all slots.
    ///
    /// Seen to fail: with a count that is stored instead of exchanged.
    #[test]
    fn no_more_get_in_than_may_and_none_is_forgotten() {
        const MOST: usize = 3;
        let table = Table::new(1, None).unwrap();
        let keys = [table.key(0), table.key(1)];
        let inside = [AtomicUsize::new(0), AtomicUsize::new(0)];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..20_000 {
                        let which = round % 2;
                        let held: Vec<_> = (0..2).filter_map(|_| table.enter(keys[which], MOST)).collect();
                        let now = inside[which].fetch_add(held.len(), SeqCst) + held.len();
                        assert!(now <= MOST, "{now} are in");
                        inside[which].fetch_sub(held.len(), SeqCst);
                        drop(held);
                    }
                });
            }
        });
        assert!(is_empty(&table));
    }

    #[test]
    fn where_no_slot_is_left_nobody_is_turned_away() {
        let table = Table::new(1, None).unwrap();
        let held: Vec<_> = (0..20).map(|n| table.enter(table.key(n), 1).unwrap()).collect();
        assert_eq!(held.iter().filter(|counted| counted.0.is_some()).count(), BUCKET);
        drop(held);
        assert!(is_empty(&table));
    }

    proptest! {
        /// It counts as a map does.
        #[test]
        fn it_counts_as_a_map_does(steps in proptest::collection::vec((0u8..6, 0usize..4, any::<bool>()), 0..200)) {
            let table = Table::new(2, None).unwrap();
            let mut held: HashMap<u8, Vec<Counted>> = HashMap::new();
            for (name, most, comes) in steps {
                let of_name = held.entry(name).or_default();
                if comes {
                    let counted = table.enter(table.key(name), most);
                    prop_assert_eq!(counted.is_some(), of_name.len() < most);
                    of_name.extend(counted);
                } else {
                    of_name.pop();
                }
                prop_assert_eq!(table.count(table.key(name)), of_name.len());
            }
            held.clear();
            prop_assert!(is_empty(&table));
        }
    }
}
