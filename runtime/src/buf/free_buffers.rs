//! Where the free buffers are: a few in the ring, the others on a stack.
//!
//! The kernel takes buffers from the ring's head, so one that comes back to the tail is written again only
//! after all others. With every buffer in the ring, each receive would write to the memory that was used
//! least recently: a cache and TLB miss for every message (4 % of the CPU time of a small request, with 8 MiB
//! of buffers). So the ring holds a few times what a tick takes, and a buffer that comes back goes there
//! first, because it is warm. The others wait on the stack.
//!
//! The depth of the ring follows the load. It doubles when less than a quarter is left. It becomes all
//! buffers when a receive found none although the stack had some. It halves after many ticks that took less
//! than an eighth; the more often receives found none, the more such ticks it takes.

use std::cell::Cell;

/// The ring's depth never falls below this, if there are that many buffers.
const LEAST: u16 = 64;
/// Calm ticks after which the depth halves: the fewest and the most.
const CALM_TICKS: std::ops::Range<u16> = 512..32_768;

/// How many free buffers are in the ring and on the stack.
pub(super) struct FreeBuffers {
    /// How many are in the ring.
    offered: Cell<u16>,
    /// How many are on the stack.
    stacked: Cell<u16>,
    /// How many are meant to be in the ring.
    depth: Cell<u16>,
    /// The fewest that were in the ring since the last tick ended.
    least: Cell<u16>,
    /// Consecutive ticks that took few buffers.
    calm: Cell<u16>,
    /// Calm ticks after which the depth halves.
    patience: Cell<u16>,
    /// A tick that leaves as many in the ring is calm. Where that is not known yet, none is.
    calm_from: Cell<u16>,
}

impl FreeBuffers {
    /// No buffer yet. All that come go to the ring, because the size of the first burst is not known.
    pub(super) fn new() -> Self {
        Self {
            offered: Cell::new(0),
            stacked: Cell::new(0),
            depth: Cell::new(u16::MAX),
            least: Cell::new(u16::MAX),
            calm: Cell::new(0),
            patience: Cell::new(CALM_TICKS.start),
            calm_from: Cell::new(u16::MAX),
        }
    }

    /// The number of free buffers.
    pub(super) fn len(&self) -> u16 {
        self.offered.get() + self.stacked.get()
    }

    /// The number of buffers in the ring.
    pub(super) fn offered(&self) -> u16 {
        self.offered.get()
    }

    /// Whether a buffer that comes back goes into the ring, and not on the stack.
    #[inline(always)]
    pub(super) fn wants_more(&self) -> bool {
        self.offered.get() < self.depth.get()
    }

    /// Counts one that was put into the ring.
    #[inline(always)]
    pub(super) fn offer(&self) {
        self.offered.set(self.offered.get() + 1);
    }

    /// Counts one that the kernel took out of the ring.
    #[inline(always)]
    pub(super) fn take(&self) {
        let offered = self.offered.get() - 1;
        self.offered.set(offered);
        self.least.set(self.least.get().min(offered));
    }

    /// Counts one that was put on the stack.
    pub(super) fn stack(&self) {
        self.stacked.set(self.stacked.get() + 1);
    }

    /// Counts one that was taken from the stack.
    pub(super) fn unstack(&self) {
        self.stacked.set(self.stacked.get() - 1);
    }

    /// A tick ends. `count` is the number of all buffers, and `short` says that a receive found none. Returns
    /// how many buffers go from the stack to the ring.
    #[inline(always)]
    pub(super) fn tick(&self, count: u16, short: bool) -> u16 {
        let least = self.least.replace(u16::MAX);
        if least == u16::MAX && !short {
            return 0;
        }
        let (calm, full) = (self.calm.get() + 1, self.offered.get() >= self.depth.get());
        // Most ticks are calm and leave the depth as it is.
        if least >= self.calm_from.get()
            && calm < self.patience.get()
            && !short
            && (full || self.stacked.get() == 0)
        {
            self.calm.set(calm);
            return 0;
        }
        self.adapt(least, count, short)
    }

    /// The part of [`tick`](Self::tick) for a tick in which some were taken.
    #[inline(never)]
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
        // A pool that grows may want a deeper ring than one that has so few.
        self.calm_from.set(if depth < LEAST { u16::MAX } else { depth - depth / 8 });
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

    /// A tick takes `take` buffers, and all of them come back before it ends. Returns how many it found.
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
        assert!((80..=320).contains(&offered), "{offered} for 40 a tick");
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
