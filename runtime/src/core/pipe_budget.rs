//! How many bytes the pipes of a core may hold together.
//!
//! For a user without `CAP_SYS_RESOURCE` and `CAP_SYS_ADMIN` the kernel limits the pipes of all its processes
//! together (`fs.pipe-user-pages-soft`, 64 MiB by default). Beyond that a new pipe has two pages, and
//! splicing through it costs more than copying does (`pipe(7)`). A core takes its share of three quarters of
//! the limit; the rest is left to the user's other processes. Pipes are large while much is left, and smaller
//! as it is used up, so that there are more pipes than the share could hold large ones. When nothing is left,
//! bytes are copied.

use rustix::thread::CapabilitySet;

use crate::privilege::has_any;

/// The largest size that is asked for.
pub(super) const LARGE: usize = 1 << 20;
/// The smallest size. A smaller pipe moves less for each call than copying does.
pub(super) const SMALL: usize = 64 << 10;
/// A pipe has at most one of this many parts of what is left.
const PART: usize = 8;

/// How many bytes the pipes of a core may hold, and how many they hold now. `used` stays between zero and
/// `all`, whatever sizes the kernel gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PipeBudget {
    all: usize,
    used: usize,
}

impl PipeBudget {
    /// The budget of one core of `cores`.
    pub(super) fn of_core(cores: usize) -> Self {
        let soft = std::fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft").ok();
        let soft = soft.and_then(|text| text.trim().parse().ok());
        // The kernel's default is assumed where the limit cannot be read.
        let pages: usize = soft.unwrap_or(16_384);
        let is_bound = !has_any(CapabilitySet::SYS_RESOURCE | CapabilitySet::SYS_ADMIN);
        let bytes = pages.saturating_mul(rustix::param::page_size());
        Self::new((is_bound && pages > 0).then_some(bytes), cores)
    }

    /// A share of `user`, which is the limit for all pipes of the user. Without a limit, descriptors and
    /// memory are the only bounds.
    fn new(user: Option<usize>, cores: usize) -> Self {
        let all = user.map_or(usize::MAX, |user| user / 4 * 3 / cores.max(1));
        Self { all, used: 0 }
    }

    /// The size to ask for, a power of two; `None` when nothing is left.
    pub(super) fn next(self) -> Option<usize> {
        let left = self.all - self.used;
        let size = (left / PART).clamp(SMALL, LARGE);
        (size <= left).then(|| 1 << size.ilog2())
    }

    /// Whether an idle pipe of `size` is better closed, because a larger one can be had.
    pub(super) fn has_better(self, size: usize) -> bool {
        self.next().is_some_and(|next| next > size)
    }

    /// Counts a new pipe.
    pub(super) fn take(&mut self, size: usize) {
        self.used = (self.used + size).min(self.all);
    }

    /// Counts a closed pipe.
    pub(super) fn give_back(&mut self, size: usize) {
        self.used = self.used.saturating_sub(size);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The sizes of all pipes that fit.
    fn sizes(user: usize, cores: usize) -> Vec<usize> {
        let mut budget = PipeBudget::new(Some(user), cores);
        let sizes = std::iter::from_fn(|| budget.next().inspect(|size| budget.take(*size)));
        sizes.collect()
    }

    #[test]
    fn pipes_get_smaller_as_the_budget_goes_and_never_pass_it() {
        for cores in [1, 2, 16, 64] {
            let sizes = sizes(64 << 20, cores);
            let share = (48 << 20) / cores;
            assert!(sizes.iter().sum::<usize>() <= share);
            assert!(share - sizes.iter().sum::<usize>() < SMALL, "{cores} cores");
            assert!(sizes.is_sorted_by(|a, b| a >= b) && sizes.iter().all(|size| *size >= SMALL));
            assert!(sizes[0] * 2 > LARGE.min(share / PART) && sizes[0] <= LARGE, "{cores} cores: {sizes:?}");
            assert!(sizes.len() >= share / LARGE + 8, "{cores} cores: {}", sizes.len());
        }
        assert!(sizes(64 << 10, 1).is_empty(), "too little for one");
    }

    #[test]
    fn who_is_not_bound_gets_large_ones() {
        let mut budget = PipeBudget::new(None, 64);
        for _ in 0..10_000 {
            assert_eq!(budget.next(), Some(LARGE));
            budget.take(LARGE);
        }
    }

    #[test]
    fn a_small_one_is_closed_when_there_is_room_for_large_ones() {
        let mut budget = PipeBudget::new(Some(64 << 20), 1);
        assert!(budget.has_better(SMALL) && !budget.has_better(LARGE));
        while let Some(size) = budget.next() {
            budget.take(size);
        }
        assert!(!budget.has_better(SMALL));
        budget.give_back(SMALL);
        assert_eq!(budget.next(), Some(SMALL));
    }
}
