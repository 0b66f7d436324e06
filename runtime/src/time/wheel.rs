//! A hierarchical timer wheel: pure bookkeeping, without a clock. Time is a number that the caller passes in.
//!
//! Servers arm a timer for nearly everything they wait for, and disarm nearly all of them before they fire.
//! So inserting and cancelling must cost the same few steps for ten timers and for a million. Only the few
//! that fire may cost more.
//!
//! # Where a timer lies
//!
//! Take the wheel's time `now` and a deadline as numbers in base 64: eleven digits hold every `u64`. The
//! *level* of a timer is the place of the highest digit in which its deadline differs from `now`. Its *slot*
//! is the deadline's digit there. A deadline that is not after `now` belongs to the list of due timers. Each
//! slot is a list, linked in both directions through the entries, which lie in one array and are linked by
//! number.
//!
//! This place is a function of `now` and the deadline alone, and is true at all times. `now` moves only to
//! the beginning of the first occupied slot, or to a time before that. In the first case the slot's timers
//! are placed again, all of them in lower levels or as due. In the second case no place changes: the digits
//! at and above each timer's level stay different or equal as they were. It follows that
//! - every timer of a level is due before every timer of any higher level, and the slots of a level are due
//!   in order, all in the future: nothing wraps, and no deadline is too far away;
//! - a slot of level 0 is one tick, so timers fire in the order of their deadlines, and never early;
//! - timers of equal deadline are always in the same list, in the order of their insertion, and fire in that
//!   order. A timer that was past when it was inserted counts as due at the time of its insertion.
//!
//! A timer is placed again at most ten times in its life, and most are cancelled before the first time.
//!
//! # When to wake
//!
//! Each slot knows a lower bound of its deadlines: the least one that was inserted since the slot was empty.
//! The caller sleeps until the bound of the first occupied slot. It is exact unless the timer that set it was
//! cancelled. In that case the wake is for nothing, but it comes in the slot's time, so its timers move to
//! lower levels with new bounds. A timer can cause at most one wake for nothing for each level.
//!
//! # Keys
//!
//! An entry's number is used again, with the next generation. A key names both, so a key whose timer has
//! fired or was cancelled matches nothing. An entry that has used up its 2^32 generations is retired instead
//! of starting again.

/// Each level has 64 slots: one word says which are occupied.
const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
/// Digits of a `u64`.
const LEVELS: usize = u64::BITS.div_ceil(DIGIT_BITS) as usize;
/// The list of timers that are due. It comes after the lists of the slots.
const DUE: usize = LEVELS * SLOTS;
/// How many timers of a slot are inspected for the last one that is due in time.
const INSPECTED: usize = 16;
/// No entry.
const NIL: u32 = u32::MAX;

/// Names a timer of the wheel that made the key. It is valid for that timer only, and has no effect after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

#[derive(Debug)]
struct Entry<T> {
    deadline: u64,
    /// Present while the timer is pending.
    value: Option<T>,
    /// The generation of the pending timer, or of the next one.
    generation: u32,
    /// The list that it is in; meaningless for a free entry.
    list: u16,
    /// The next entry in its list, or the next free entry.
    next: u32,
    previous: u32,
}

#[derive(Clone, Debug)]
struct List {
    first: u32,
    last: u32,
    /// A lower bound of the deadlines in the list.
    bound: u64,
}

impl List {
    const EMPTY: List = List { first: NIL, last: NIL, bound: u64::MAX };
}

/// Pending timers, each with a value that is returned when it is due. See the [module](self).
///
/// The caller chooses the unit of time. Time never goes back.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    /// Every timer up to this time has fired or is in the list of due ones.
    now: u64,
    entries: Vec<Entry<T>>,
    free: u32,
    pending: usize,
    lists: Box<[List]>,
    /// Which slots of each level have timers.
    occupied: [u64; LEVELS],
    /// Which levels have timers.
    levels: u16,
}

impl<T> Wheel<T> {
    /// A wheel without timers, at time `now`.
    pub(crate) fn new(now: u64) -> Wheel<T> {
        Wheel {
            now,
            entries: Vec::new(),
            free: NIL,
            pending: 0,
            lists: vec![List::EMPTY; DUE + 1].into(),
            occupied: [0; LEVELS],
            levels: 0,
        }
    }

    /// How many timers are pending.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn len(&self) -> usize {
        self.pending
    }

    /// Whether no timer is pending.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending == 0
    }

    /// Adds a timer. One whose deadline has passed is due at once.
    ///
    /// Allocates only when more timers are pending than ever before.
    ///
    /// # Panics
    ///
    /// At 2^32 - 1 timers pending at once, which need more memory than machines have.
    pub(crate) fn insert(&mut self, deadline: u64, value: T) -> Key {
        let index = self.free;
        let index = if index == NIL {
            let index = u32::try_from(self.entries.len()).unwrap_or(NIL);
            assert!(index != NIL, "too many timers");
            self.entries.push(Entry {
                deadline,
                value: Some(value),
                generation: 0,
                list: 0,
                next: NIL,
                previous: NIL,
            });
            index
        } else {
            let entry = &mut self.entries[index as usize];
            self.free = entry.next;
            entry.deadline = deadline;
            entry.value = Some(value);
            index
        };
        self.pending += 1;
        self.place(index);
        Key { index, generation: self.entries[index as usize].generation }
    }

    /// Removes a timer and returns its value; `None` if it fired or was cancelled before.
    pub(crate) fn cancel(&mut self, key: Key) -> Option<T> {
        self.get_mut(key)?;
        self.unlink(key.index);
        self.release(key.index)
    }

    /// The value of a pending timer.
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        // A retired entry keeps its last generation, but has no value.
        if entry.generation == key.generation { entry.value.as_mut() } else { None }
    }

    /// Until when the caller may sleep, or `None` without timers. No timer is due before that time, and
    /// calling [`expire`](Wheel::expire) at that time makes progress. A time in the past says that a timer is
    /// due now.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        if self.lists[DUE].first != NIL {
            return Some(self.now);
        }
        self.first_slot().map(|slot| self.lists[slot.list].bound)
    }

    /// The last time up to `limit` at which a timer is due, as far as an inspection of a few timers shows; at
    /// least [`next_expiry`](Wheel::next_expiry).
    pub(crate) fn last_expiry(&self, limit: u64) -> Option<u64> {
        let mut last = self.next_expiry()?;
        let mut levels = self.levels;
        while levels != 0 {
            let level = levels.trailing_zeros();
            levels &= levels - 1;
            let shift = level * DIGIT_BITS;
            let mut slots = self.occupied[level as usize];
            if (limit ^ self.now) >> shift < SLOTS as u64 {
                // The slots behind that of the limit are later.
                slots &= u64::MAX >> (SLOTS as u64 - 1 - (limit >> shift) % SLOTS as u64);
            }
            while slots != 0 {
                let digit = slots.ilog2();
                slots &= !(1 << digit);
                let list = &self.lists[level as usize * SLOTS + digit as usize];
                if list.bound <= limit {
                    // Backwards, because sleeps of one length were inserted in the order in which they are
                    // due.
                    let mut index = list.last;
                    for _ in 0..INSPECTED {
                        let Some(entry) = self.entries.get(index as usize) else { break };
                        if entry.deadline <= limit {
                            last = last.max(entry.deadline);
                        }
                        index = entry.previous;
                    }
                    break;
                }
            }
        }
        Some(last)
    }

    /// Moves the time on to `now`. Each call returns the value of one due timer, until there is none.
    ///
    /// The caller goes on until `None`: only then is the wheel at `now`. It may insert and cancel timers
    /// between calls. Time does not go back: a `now` before an earlier one counts as the earlier one.
    pub(crate) fn expire(&mut self, now: u64) -> Option<T> {
        let now = now.max(self.now);
        loop {
            let due = self.lists[DUE].first;
            if due != NIL {
                self.unlink(due);
                return self.release(due);
            }
            match self.first_slot() {
                Some(slot) if slot.begin <= now => {
                    self.now = slot.begin;
                    self.place_anew(slot);
                }
                _ => {
                    self.now = now;
                    return None;
                }
            }
        }
    }

    /// The slot whose timers are due first, not counting those that are due now.
    fn first_slot(&self) -> Option<Slot> {
        if self.levels == 0 {
            return None;
        }
        let level = self.levels.trailing_zeros();
        let digit = self.occupied[level as usize].trailing_zeros();
        // The digits of `now` above the level, then the slot's own, then zeros.
        let shift = level * DIGIT_BITS;
        let above = (self.now >> shift) & !(SLOTS as u64 - 1);
        let begin = (above | u64::from(digit)) << shift;
        Some(Slot { list: level as usize * SLOTS + digit as usize, begin })
    }

    /// Empties a slot whose time has begun (`now` is its beginning) into lower levels, in order.
    fn place_anew(&mut self, slot: Slot) {
        let mut index = self.lists[slot.list].first;
        self.clear(slot.list);
        while index != NIL {
            let next = self.entries[index as usize].next;
            self.place(index);
            index = next;
        }
    }

    /// Appends an entry, which is in no list, to the list where it belongs at the present time.
    fn place(&mut self, index: u32) {
        let deadline = self.entries[index as usize].deadline;
        let list = if deadline <= self.now {
            DUE
        } else {
            let level = (deadline ^ self.now).ilog2() / DIGIT_BITS;
            let digit = (deadline >> (level * DIGIT_BITS)) as usize % SLOTS;
            self.occupied[level as usize] |= 1 << digit;
            self.levels |= 1 << level;
            level as usize * SLOTS + digit
        };
        let ends = &mut self.lists[list];
        let last = ends.last;
        ends.last = index;
        ends.bound = ends.bound.min(deadline);
        if last == NIL {
            ends.first = index;
        } else {
            self.entries[last as usize].next = index;
        }
        let entry = &mut self.entries[index as usize];
        entry.list = list as u16;
        entry.previous = last;
        entry.next = NIL;
    }

    /// Removes an entry from its list.
    fn unlink(&mut self, index: u32) {
        let Entry { list, next, previous, .. } = self.entries[index as usize];
        let list = list as usize;
        if next == NIL {
            self.lists[list].last = previous;
        } else {
            self.entries[next as usize].previous = previous;
        }
        if previous == NIL {
            self.lists[list].first = next;
        } else {
            self.entries[previous as usize].next = next;
        }
        if self.lists[list].first == NIL {
            self.clear(list);
        }
    }

    /// Marks a list as empty.
    fn clear(&mut self, list: usize) {
        self.lists[list] = List::EMPTY;
        if list != DUE {
            let level = list / SLOTS;
            self.occupied[level] &= !(1 << (list % SLOTS));
            if self.occupied[level] == 0 {
                self.levels &= !(1 << level);
            }
        }
    }

    /// Ends an entry that is in no list: its keys match nothing from here on.
    fn release(&mut self, index: u32) -> Option<T> {
        self.pending -= 1;
        let entry = &mut self.entries[index as usize];
        if let Some(generation) = entry.generation.checked_add(1) {
            entry.generation = generation;
            entry.next = self.free;
            self.free = index;
        }
        entry.value.take()
    }
}

/// A slot that has timers.
#[derive(Clone, Copy)]
struct Slot {
    list: usize,
    /// The first time of the slot: no deadline in it is earlier.
    begin: u64,
}

#[cfg(all(test, not(loom)))]
mod tests;
