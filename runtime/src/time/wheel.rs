//! A hierarchical timer wheel: pure bookkeeping, without a clock. Time is a number that the caller passes in.
//!
//! Servers arm a timer for nearly everything they wait for and disarm nearly all of them before they fire. So
//! inserting and cancelling must cost the same few steps whether there are ten timers or a million, and only
//! the few that fire may cost more.
//!
//! # Where a timer lies
//!
//! Read the wheel's time `now` and a deadline as numbers in base 64: eleven digits hold every `u64`. The
//! *level* of a timer is the place of the highest digit in which its deadline differs from `now`, its *slot*
//! is the deadline's digit there. A deadline that is not after `now` belongs to the list of those that are
//! due. Each slot is a list, linked in both directions through the entries, which lie in one array and are
//! linked by number.
//!
//! This place is a function of `now` and the deadline alone, and it is kept true all the time: `now` moves
//! only to the beginning of the first occupied slot (then the slot's timers are placed anew, all of them in
//! lower levels or due), or to a time before that (which changes no place: the digits at and above each
//! timer's level stay different or equal as they were). It follows that
//! - every timer of a level is due before every timer of any higher level, and in a level the slots are due
//!   in order, all in the future: nothing goes round, and no deadline is too far away;
//! - a slot of level 0 is one tick, so timers fire in the order of their deadlines, and never early;
//! - timers of equal deadline always lie in the same list, in the order of their insertion, and fire in that
//!   order. Those that were past already when they were inserted count as due at the time of their insertion.
//!
//! A timer is placed anew at most ten times in its life, and most are cancelled before the first.
//!
//! # When to wake
//!
//! Each slot knows a lower bound of its deadlines: the least one inserted since the slot was empty. The bound
//! of the first occupied slot is what the caller sleeps until. It is exact unless the timer that set it was
//! cancelled; then the wake is for nothing, but it comes in the slot's time, so its timers move to lower
//! levels with new bounds. A wake for nothing can happen to a timer at most once a level.
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
/// The list of timers that are due, behind the lists of the slots.
const DUE: usize = LEVELS * SLOTS;
/// Timers of a slot that are looked at for the last that is due in time.
const LOOKS: usize = 16;
/// No entry.
const NIL: u32 = u32::MAX;

/// Names a timer of the wheel that gave it out. Works for that timer only, and does nothing after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

#[derive(Debug)]
struct Entry<T> {
    deadline: u64,
    /// There while the timer is pending.
    value: Option<T>,
    /// Of the pending timer, or of the next one.
    generation: u32,
    /// Which list it is in; means nothing for a free entry.
    list: u16,
    /// In its list, or the next free entry.
    next: u32,
    previous: u32,
}

#[derive(Clone, Debug)]
struct List {
    first: u32,
    last: u32,
    /// No deadline in the list is before this.
    bound: u64,
}

impl List {
    const EMPTY: List = List { first: NIL, last: NIL, bound: u64::MAX };
}

/// Pending timers, each with a value that comes back when it is due. See the [module](self).
///
/// The unit of time is the caller's, as long as it is one and never goes back.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    /// Everything up to here has fired or is in the list of those due.
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
    /// At 2^32 - 1 timers pending at once, for which the memory hardly suffices.
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

    /// Takes a timer out and returns its value, or `None` if it fired or was cancelled before.
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

    /// Until when the caller may sleep, or `None` without timers: no timer is due before, and calling
    /// [`expire`](Wheel::expire) at that time makes progress. A time that has passed says that a timer is due
    /// now.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        if self.lists[DUE].first != NIL {
            return Some(self.now);
        }
        self.first_slot().map(|slot| self.lists[slot.list].bound)
    }

    /// The last time up to `limit` at which a timer is due, as far as a look at a few of them tells; at least
    /// [`next_expiry`](Wheel::next_expiry).
    pub(crate) fn last_expiry(&self, limit: u64) -> Option<u64> {
        let mut last = self.next_expiry()?;
        let mut levels = self.levels;
        while levels != 0 {
            let level = levels.trailing_zeros();
            levels &= levels - 1;
            let shift = level * DIGIT_BITS;
            let mut slots = self.occupied[level as usize];
            if (limit ^ self.now) >> shift < SLOTS as u64 {
                // The slots behind the limit's own are later.
                slots &= u64::MAX >> (SLOTS as u64 - 1 - (limit >> shift) % SLOTS as u64);
            }
            while slots != 0 {
                let digit = slots.ilog2();
                slots &= !(1 << digit);
                let list = &self.lists[level as usize * SLOTS + digit as usize];
                if list.bound <= limit {
                    // Backwards: sleeps of one length come in the order in which they are due.
                    let mut index = list.last;
                    for _ in 0..LOOKS {
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

    /// Moves the time on to `now` and returns the value of a timer that is due, until there is none.
    ///
    /// The caller goes on until `None`: only then is the wheel at `now`. It may insert and cancel timers in
    /// between. Time does not go back: a `now` before an earlier one counts as the earlier one.
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
        // The digits of `now` above the level, the slot's own, and zeros below.
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

    /// Appends an entry, which is in no list, to the list where it belongs at this time.
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

    /// Takes an entry out of its list.
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

    /// Ends an entry that is in no list any more: its keys match nothing from here on.
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

/// A slot with timers in it.
#[derive(Clone, Copy)]
struct Slot {
    list: usize,
    /// The first time of the slot: none of its deadlines is before.
    begin: u64,
}

#[cfg(all(test, not(loom)))]
mod tests;
