//! Where buffers are that are at home: a few in the ring, the rest on a stack.
//!
//! The kernel takes buffers from the ring's head, so one that comes home to its tail is written again only after all others.
//! With every buffer in the ring, each receive writes into the memory that was used least recently: a miss in the caches and in the
//! TLB for every message (4 % of the CPU time of a small request, with the 8 MiB that a core has by default). So the ring holds
//! a few times what a turn takes, and what comes home goes back to it first: it is warm. The rest waits on the stack.
//!
//! How many that is follows the load. When less than a quarter is left, twice as many; when a receive found none though
//! the stack has some, all; after many turns that took less than an eighth, half: the more turns the more often
//! receives found none.

use std::cell::Cell;

/// The ring is never meant to hold less than this, if there are so many.
const LEAST: u16 = 64;
/// Turns in which little was taken, after which it holds half: the fewest and the most.
const CALM_TURNS: std::ops::Range<u16> = 512..32_768;

/// How many buffers are where.
pub(super) struct Home {
    /// In the ring.
    offered: Cell<u16>,
    /// On the stack.
    stacked: Cell<u16>,
    /// How many are to be in the ring.
    depth: Cell<u16>,
    /// The fewest that were in the ring since the last turn ended.
    least: Cell<u16>,
    /// Turns in a row that took little.
    calm: Cell<u16>,
    /// After how many of them the ring holds half.
    patience: Cell<u16>,
}

impl Home {
    /// Nothing, and all that comes goes to the ring: what a burst at the beginning takes is not known.
    pub(super) fn new() -> Self {
        Self {
            offered: Cell::new(0),
            stacked: Cell::new(0),
            depth: Cell::new(u16::MAX),
            least: Cell::new(u16::MAX),
            calm: Cell::new(0),
            patience: Cell::new(CALM_TURNS.start),
        }
    }

    /// Buffers at home.
    pub(super) fn len(&self) -> u16 {
        self.offered.get() + self.stacked.get()
    }

    /// Buffers in the ring.
    pub(super) fn offered(&self) -> u16 {
        self.offered.get()
    }

    /// Whether a buffer that comes home belongs into the ring, not on the stack.
    #[inline(always)]
    pub(super) fn wants_more(&self) -> bool {
        self.offered.get() < self.depth.get()
    }

    /// One was put into the ring.
    #[inline(always)]
    pub(super) fn put(&self) {
        self.offered.set(self.offered.get() + 1);
    }

    /// The kernel took one out of the ring.
    #[inline(always)]
    pub(super) fn took(&self) {
        let offered = self.offered.get() - 1;
        self.offered.set(offered);
        self.least.set(self.least.get().min(offered));
    }

    /// One was put on the stack.
    pub(super) fn stacked(&self) {
        self.stacked.set(self.stacked.get() + 1);
    }

    /// One was taken from the stack.
    pub(super) fn unstacked(&self) {
        self.stacked.set(self.stacked.get() - 1);
    }

    /// A turn ends; `count` buffers there are in all, and `short` says that a receive found none. How many of the stack shall
    /// go to the ring.
    #[inline(always)]
    pub(super) fn turn(&self, count: u16, short: bool) -> u16 {
        let least = self.least.replace(u16::MAX);
        if least == u16::MAX && !short {
            return 0;
        }
        self.turned(least, count, short)
    }

    /// As [`turn`](Self::turn), of a turn in which some were taken.
    fn turned(&self, least: u16, count: u16, short: bool) -> u16 {
        let depth = self.depth.get().min(count);
        let more = self.stacked.get() > 0;
        let mut depth = match (short, least < depth / 4) {
            (true, _) if more => count,
            (false, true) if more => depth.saturating_mul(2),
            _ => depth,
        };
        if short || least < depth - depth / 8 {
            self.calm.set(0);
        } else {
            self.calm.set(self.calm.get() + 1);
        }
        if short && more {
            self.patience.set(self.patience.get().saturating_mul(4).min(CALM_TURNS.end));
        } else if self.calm.get() >= self.patience.get() {
            self.calm.set(0);
            self.patience.set((self.patience.get() / 2).max(CALM_TURNS.start));
            depth /= 2;
        }
        let depth = depth.max(LEAST).min(count);
        self.depth.set(depth);
        depth.saturating_sub(self.offered.get()).min(self.stacked.get())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const COUNT: u16 = 1024;

    /// A ring with all its buffers at home, none taken yet.
    fn full() -> Home {
        let home = Home::new();
        for _ in 0..COUNT {
            assert!(home.wants_more());
            home.put();
        }
        home
    }

    /// A turn takes `take` buffers, of which all come home before it ends. How many it found.
    fn turn(home: &Home, take: u16) -> u16 {
        let found = take.min(home.offered());
        for _ in 0..found {
            home.took();
        }
        for _ in 0..found {
            if home.wants_more() { home.put() } else { home.stacked() }
        }
        for _ in 0..home.turn(COUNT, found < take) {
            home.unstacked();
            home.put();
        }
        assert_eq!(home.len(), COUNT, "none is lost");
        found
    }

    fn calm(home: &Home, take: u16) -> u16 {
        for _ in 0..10 * usize::from(home.patience.get()) {
            assert_eq!(turn(home, take), take, "a steady load always finds buffers");
        }
        home.offered()
    }

    #[test]
    fn the_ring_holds_a_few_times_what_a_turn_takes() {
        assert_eq!(calm(&full(), 1), LEAST);
        let offered = calm(&full(), 40);
        assert!((80..=320).contains(&offered), "{offered} for 40 a turn");
        assert_eq!(calm(&full(), COUNT), COUNT);
    }

    #[test]
    fn turns_that_take_nothing_change_nothing() {
        let home = full();
        calm(&home, 0);
        assert_eq!(turn(&home, COUNT), COUNT);
        assert_eq!(home.offered(), COUNT);
    }

    #[test]
    fn a_burst_finds_all_buffers_at_the_second_try() {
        let home = full();
        calm(&home, 1);
        assert_eq!(turn(&home, COUNT), LEAST);
        assert_eq!(turn(&home, COUNT), COUNT);
        for take in (100..COUNT).step_by(100) {
            let home = full();
            calm(&home, 1);
            turn(&home, take);
            for _ in 0..10 {
                assert_eq!(turn(&home, take), take);
            }
        }
    }

    #[test]
    fn a_growing_load_is_followed_before_it_finds_none() {
        let home = full();
        calm(&home, 1);
        for take in (1..COUNT).step_by(7) {
            assert_eq!(turn(&home, take), take);
        }
    }

    #[test]
    fn bursts_that_come_again_and_again_find_all_buffers() {
        let home = full();
        let mut short = 0;
        for _ in 0..100 {
            for _ in 0..2 * CALM_TURNS.start {
                turn(&home, 1);
            }
            short += usize::from(turn(&home, COUNT) < COUNT);
            turn(&home, COUNT);
        }
        assert!(short < 20, "{short} of 100 bursts found too few");
        calm(&home, 1);
        calm(&home, 1);
        assert_eq!(calm(&home, 1), LEAST, "when there are no more of them");
    }

    #[test]
    fn a_ring_that_grows_gets_what_is_new() {
        let home = Home::new();
        for _ in 0..16 {
            home.put();
        }
        for _ in 0..16 {
            home.took();
        }
        assert_eq!(home.turn(16, true), 0);
        for _ in 0..COUNT {
            if home.wants_more() { home.put() } else { home.stacked() }
        }
        assert_eq!(home.turn(COUNT + 16, true) + home.offered(), COUNT);
        assert!(home.depth.get() >= LEAST);
    }
}
