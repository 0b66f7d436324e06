//! Where buffers are that are at free: a few in the ring, the rest on a stack.
//!
//! The kernel takes buffers from the ring's head, so one that comes back to its tail is written again only
//! after all others. With every buffer in the ring, each receive writes into the memory that was used least
//! recently: a miss in the caches and in the TLB for every message (4 % of the CPU time of a small request,
//! with the 8 MiB that a core has by default). So the ring holds a few times what a tick takes, and what
//! comes back goes to it first: it is warm. The rest waits on the stack.
//!
//! How many that is follows the load. When less than a quarter is left, twice as many; when a receive found
//! none though the stack has some, all; after many ticks that took less than an eighth, half: the more ticks
//! the more often receives found none.

use std::cell::Cell;

/// The ring is never meant to hold less than this, if there are so many.
const LEAST: u16 = 64;
/// Ticks in which little was taken, after which it holds half: the fewest and the most.
const CALM_TICKS: std::ops::Range<u16> = 512..32_768;

/// How many buffers are where.
pub(super) struct FreeBuffers {
    /// In the ring.
    offered: Cell<u16>,
    /// On the stack.
    stacked: Cell<u16>,
    /// How many are to be in the ring.
    depth: Cell<u16>,
    /// The fewest that were in the ring since the last tick ended.
    least: Cell<u16>,
    /// Ticks in a row that took little.
    calm: Cell<u16>,
    /// After how many of them the ring holds half.
    patience: Cell<u16>,
}

impl FreeBuffers {
    /// Nothing, and all that comes goes to the ring: what a burst at the beginning takes is not known.
    pub(super) fn new() -> Self {
        Self {
            offered: Cell::new(0),
            stacked: Cell::new(0),
            depth: Cell::new(u16::MAX),
            least: Cell::new(u16::MAX),
            calm: Cell::new(0),
            patience: Cell::new(CALM_TICKS.start),
        }
    }

    /// Buffers at free.
    pub(super) fn len(&self) -> u16 {
        self.offered.get() + self.stacked.get()
    }

    /// Buffers in the ring.
    pub(super) fn offered(&self) -> u16 {
        self.offered.get()
    }

    /// Whether a buffer that comes back belongs into the ring, not on the stack.
    #[inline(always)]
    pub(super) fn wants_more(&self) -> bool {
        self.offered.get() < self.depth.get()
    }

    /// One was put into the ring.
    #[inline(always)]
    pub(super) fn offer(&self) {
        self.offered.set(self.offered.get() + 1);
    }

    /// The kernel took one out of the ring.
    #[inline(always)]
    pub(super) fn take(&self) {
        let offered = self.offered.get() - 1;
        self.offered.set(offered);
        self.least.set(self.least.get().min(offered));
    }

    /// One was put on the stack.
    pub(super) fn stack(&self) {
        self.stacked.set(self.stacked.get() + 1);
    }

    /// One was taken from the stack.
    pub(super) fn unstack(&self) {
        self.stacked.set(self.stacked.get() - 1);
    }

    /// A tick ends; `count` buffers there are in all, and `short` says that a receive found none. How many of
    /// the stack shall go to the ring.
    #[inline(always)]
    pub(super) fn tick(&self, count: u16, short: bool) -> u16 {
        let least = self.least.replace(u16::MAX);
        if least == u16::MAX && !short {
            return 0;
        }
        self.adapt(least, count, short)
    }

    /// As [`tick`](Self::tick), of a tick in which some were taken.
    fn adapt(&self, least: u16, count: u16, short: bool) -> u16 {
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
            self.patience.set(self.patience.get().saturating_mul(4).min(CALM_TICKS.end));
        } else if self.calm.get() >= self.patience.get() {
            self.calm.set(0);
            self.patience.set((self.patience.get() / 2).max(CALM_TICKS.start));
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

    /// A ring with all its buffers free, none taken yet.
    fn full() -> FreeBuffers {
        let free = FreeBuffers::new();
        for _ in 0..COUNT {
            assert!(free.wants_more());
            free.offer();
        }
        free
    }

    /// A tick takes `take` buffers, of which all come back before it ends. How many it found.
    fn tick(free: &FreeBuffers, take: u16) -> u16 {
        let found = take.min(free.offered());
        for _ in 0..found {
            free.take();
        }
        for _ in 0..found {
            if free.wants_more() { free.offer() } else { free.stack() }
        }
        for _ in 0..free.tick(COUNT, found < take) {
            free.unstack();
            free.offer();
        }
        assert_eq!(free.len(), COUNT, "none is lost");
        found
    }

    fn calm(free: &FreeBuffers, take: u16) -> u16 {
        for _ in 0..10 * usize::from(free.patience.get()) {
            assert_eq!(tick(free, take), take, "a steady load always finds buffers");
        }
        free.offered()
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
        let free = full();
        calm(&free, 0);
        assert_eq!(tick(&free, COUNT), COUNT);
        assert_eq!(free.offered(), COUNT);
    }

    #[test]
    fn a_burst_finds_all_buffers_at_the_second_try() {
        let free = full();
        calm(&free, 1);
        assert_eq!(tick(&free, COUNT), LEAST);
        assert_eq!(tick(&free, COUNT), COUNT);
        for take in (100..COUNT).step_by(100) {
            let free = full();
            calm(&free, 1);
            tick(&free, take);
            for _ in 0..10 {
                assert_eq!(tick(&free, take), take);
            }
        }
    }

    #[test]
    fn a_growing_load_is_followed_before_it_finds_none() {
        let free = full();
        calm(&free, 1);
        for take in (1..COUNT).step_by(7) {
            assert_eq!(tick(&free, take), take);
        }
    }

    #[test]
    fn bursts_that_come_again_and_again_find_all_buffers() {
        let free = full();
        let mut short = 0;
        for _ in 0..100 {
            for _ in 0..2 * CALM_TICKS.start {
                tick(&free, 1);
            }
            short += usize::from(tick(&free, COUNT) < COUNT);
            tick(&free, COUNT);
        }
        assert!(short < 20, "{short} of 100 bursts found too few");
        calm(&free, 1);
        calm(&free, 1);
        assert_eq!(calm(&free, 1), LEAST, "when there are no more of them");
    }

    #[test]
    fn a_ring_that_grows_gets_what_is_new() {
        let free = FreeBuffers::new();
        for _ in 0..16 {
            free.offer();
        }
        for _ in 0..16 {
            free.take();
        }
        assert_eq!(free.tick(16, true), 0);
        for _ in 0..COUNT {
            if free.wants_more() { free.offer() } else { free.stack() }
        }
        assert_eq!(free.tick(COUNT + 16, true) + free.offered(), COUNT);
        assert!(free.depth.get() >= LEAST);
    }
}
