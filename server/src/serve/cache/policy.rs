//! Which entries stay when not all fit: S3-FIFO (Yang and others, "FIFO queues are all you need for cache
//! eviction", SOSP 2023).
//!
//! New entries wait in a small queue, a tenth of the whole. One that is asked for again while it waits moves
//! to the main queue. Any other is evicted, and only its name is remembered for a while: when it comes back
//! it goes to the main queue at once. So a scan of many files that are asked for once evicts other new ones,
//! and none that is asked for often. A hit changes nothing but a count in what is held, so cores that share a
//! table need no lock for it, which an LRU list does.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};

/// What can be held.
pub(super) trait Held: Clone {
    /// What it costs, in bytes.
    fn weight(&self) -> u64;
    /// How often it was asked for, as far as anybody counts.
    fn hits(&self) -> u8;
    /// One hit is used up.
    fn lower(&self);
    /// It is held no longer: nobody is to use it for anything new.
    fn end(&self);
    /// Whether it was ended, here or elsewhere.
    fn has_ended(&self) -> bool;
    /// Whether both are the very same.
    fn is(&self, other: &Self) -> bool;
}

/// How much is held at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) bytes: u64,
    pub(super) entries: usize,
}

/// What is held, under names.
pub(super) struct Table<K, V> {
    held: HashMap<K, Slot<V>>,
    small: VecDeque<(K, V)>,
    main: VecDeque<(K, V)>,
    /// Sums of the names of what has left, and the same in their order.
    ghosts: HashSet<u64>,
    ghost_order: VecDeque<u64>,
    sums: RandomState,
    bytes: u64,
    small_bytes: u64,
    small_entries: usize,
    limit: Limit,
}

struct Slot<V> {
    value: V,
    weight: u64,
    is_small: bool,
}

impl<K: Clone + Eq + Hash, V: Held> Table<K, V> {
    /// One that holds nothing yet.
    pub(super) fn new(limit: Limit) -> Self {
        Self {
            held: HashMap::new(),
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghosts: HashSet::new(),
            ghost_order: VecDeque::new(),
            sums: RandomState::new(),
            bytes: 0,
            small_bytes: 0,
            small_entries: 0,
            limit,
        }
    }

    /// What is held under a name.
    pub(super) fn get(&self, name: &K) -> Option<&V> {
        self.held.get(name).map(|slot| &slot.value).filter(|value| !value.has_ended())
    }

    /// How much is held.
    #[cfg(test)]
    pub(super) fn size(&self) -> Limit {
        Limit { bytes: self.bytes, entries: self.held.len() }
    }

    /// Holds `value`, in place of what had its name. Returns how many had to leave; `value` itself may be
    /// among them.
    pub(super) fn insert(&mut self, name: K, value: V) -> u64 {
        self.remove(&name);
        let weight = value.weight();
        let is_small = !self.ghosts.remove(&self.sums.hash_one(&name));
        let queue = if is_small { &mut self.small } else { &mut self.main };
        queue.push_back((name.clone(), value.clone()));
        self.bytes += weight;
        if is_small {
            self.small_bytes += weight;
            self.small_entries += 1;
        }
        self.held.insert(name, Slot { value, weight, is_small });
        let mut left = 0;
        while self.bytes > self.limit.bytes || self.held.len() > self.limit.entries {
            if !self.evict() {
                break;
            }
            left += 1;
        }
        self.tidy();
        left
    }

    /// Forgets what is held under a name.
    pub(super) fn remove(&mut self, name: &K) {
        if let Some(slot) = self.held.remove(name) {
            slot.value.end();
            self.bytes -= slot.weight;
            if slot.is_small {
                self.small_bytes -= slot.weight;
                self.small_entries -= 1;
            }
        }
    }

    /// Makes one leave; false if there is none.
    fn evict(&mut self) -> bool {
        loop {
            let small_is_full =
                self.small_bytes * 10 > self.limit.bytes || self.small_entries * 10 > self.limit.entries;
            let from_small = (small_is_full && !self.small.is_empty()) || self.main.is_empty();
            let queue = if from_small { &mut self.small } else { &mut self.main };
            let Some((name, value)) = queue.pop_front() else { return false };
            if !self.is_held(&name, &value) {
                continue;
            }
            if value.has_ended() {
                self.remove(&name);
                return true;
            }
            if from_small && value.hits() > 0 {
                value.lower();
                self.promote(name, value);
            } else if !from_small && value.hits() > 0 {
                value.lower();
                self.main.push_back((name, value));
            } else {
                self.remove(&name);
                if from_small {
                    self.remember(&name);
                }
                return true;
            }
        }
    }

    fn promote(&mut self, name: K, value: V) {
        if let Some(slot) = self.held.get_mut(&name) {
            slot.is_small = false;
            self.small_bytes -= slot.weight;
            self.small_entries -= 1;
        }
        self.main.push_back((name, value));
    }

    /// Whether a place in a queue is that of what is held now.
    fn is_held(&self, name: &K, value: &V) -> bool {
        self.held.get(name).is_some_and(|slot| slot.value.is(value))
    }

    fn remember(&mut self, name: &K) {
        let sum = self.sums.hash_one(name);
        if self.ghosts.insert(sum) {
            self.ghost_order.push_back(sum);
        }
        while self.ghost_order.len() > self.limit.entries {
            if let Some(sum) = self.ghost_order.pop_front() {
                self.ghosts.remove(&sum);
            }
        }
    }

    /// Takes places of what was replaced out of the queues, before they are more than those of what is held.
    fn tidy(&mut self) {
        if self.small.len() + self.main.len() <= 2 * self.held.len() + 64 {
            return;
        }
        let held = &self.held;
        let is_held = |(name, value): &(K, V)| held.get(name).is_some_and(|slot| slot.value.is(value));
        self.small.retain(is_held);
        self.main.retain(is_held);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Default)]
    struct Thing {
        weight: u64,
        hits: Cell<u8>,
        ended: Cell<bool>,
    }

    impl Held for Rc<Thing> {
        fn weight(&self) -> u64 {
            self.weight
        }
        fn hits(&self) -> u8 {
            self.hits.get()
        }
        fn lower(&self) {
            self.hits.set(self.hits.get() - 1);
        }
        fn end(&self) {
            self.ended.set(true);
        }
        fn has_ended(&self) -> bool {
            self.ended.get()
        }
        fn is(&self, other: &Self) -> bool {
            Rc::ptr_eq(self, other)
        }
    }

    fn thing(weight: u64) -> Rc<Thing> {
        Rc::new(Thing { weight, ..Thing::default() })
    }

    /// Asks for a name as the cache does. Returns whether it was there.
    fn ask(table: &mut Table<u64, Rc<Thing>>, name: u64) -> bool {
        match table.get(&name) {
            Some(thing) => {
                thing.hits.set((thing.hits.get() + 1).min(3));
                true
            }
            None => {
                table.insert(name, thing(1));
                false
            }
        }
    }

    /// Seen to fail: with one queue in which everything new goes to the end, as in a FIFO.
    #[test]
    fn a_scan_pushes_nothing_out_that_is_asked_for_all_the_time() {
        let mut table = Table::new(Limit { bytes: 1000, entries: 1000 });
        let hot = 0..500;
        for _ in 0..4 {
            for name in hot.clone() {
                ask(&mut table, name);
            }
        }
        for scanned in 10_000..110_000 {
            ask(&mut table, scanned);
        }
        let kept = hot.clone().filter(|name| table.get(name).is_some()).count();
        assert!(kept >= 450, "{kept} of 500 are left after a scan of 100,000");
    }

    #[test]
    fn what_comes_back_is_known() {
        let mut table = Table::new(Limit { bytes: 100, entries: 100 });
        for name in 0..200 {
            ask(&mut table, name);
        }
        assert!(table.get(&50).is_none(), "each was asked for once");
        ask(&mut table, 50);
        // It is not among the new ones again.
        assert!(!table.held[&50].is_small);
    }

    #[test]
    fn what_is_too_large_for_all_of_it_is_not_held() {
        let mut table = Table::new(Limit { bytes: 100, entries: 10 });
        let large = thing(101);
        table.insert(1, Rc::clone(&large));
        assert!(large.ended.get() && table.get(&1).is_none());
        assert_eq!(table.size(), Limit { bytes: 0, entries: 0 });
    }

    proptest! {
        /// It is never more than the limit, and what it says of its size is true.
        #[test]
        fn sizes_are_kept(steps in prop::collection::vec((0..3u8, 0..40u64, 0..30u64), 0..400)) {
            let limit = Limit { bytes: 200, entries: 12 };
            let mut table = Table::new(limit);
            for (what, name, weight) in steps {
                match what {
                    0 => {
                        table.insert(name, thing(weight));
                    }
                    1 => {
                        ask(&mut table, name);
                    }
                    // Another core has ended it: that is found out later.
                    _ => {
                        if let Some(thing) = table.get(&name) {
                            thing.end();
                        }
                    }
                }
                let size = table.size();
                prop_assert!(size.bytes <= limit.bytes && size.entries <= limit.entries);
                prop_assert_eq!(size.bytes, table.held.values().map(|slot| slot.weight).sum::<u64>());
                prop_assert_eq!(table.small_entries, table.held.values().filter(|slot| slot.is_small).count());
                prop_assert!(table.small.len() + table.main.len() <= 2 * table.held.len() + 65);
                prop_assert!(table.ghosts.len() <= limit.entries);
            }
        }
    }
}
