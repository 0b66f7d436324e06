//! Whether a descriptor is left to accept with.
//!
//! A multishot accept takes all waiting connections, up to the process's limit, and then nothing can be
//! opened for those that were accepted. So near the limit connections are accepted one by one, and a part of
//! the descriptors is left to files and pipes: an accepted client can be served, and others wait in the
//! backlog.
//!
//! Descriptors are not counted. The kernel gives out the lowest free number (`open(2)`), so the number of the
//! last accepted one says about how many are open.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, getrlimit};

use super::listen_options::BACKLOG;

/// How many more connections this process can accept before its limit on descriptors (`RLIMIT_NOFILE`,
/// `getrlimit(2)`) is near. Near the limit listeners accept no more, and leave the last quarter of the
/// descriptors, at most 256, to files and pipes. Zero where a listener would accept nobody.
pub fn connections_left() -> u64 {
    let budget = FdBudget::of(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX));
    // The lowest free number.
    match rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC) {
        Ok(lowest) => budget.top().saturating_sub(lowest.as_raw_fd() as u64),
        Err(_) => 0,
    }
}

/// What a listener knows of the process's descriptors.
pub(super) struct FdBudget {
    /// `RLIMIT_NOFILE` when it began to listen.
    limit: u64,
    /// About how many are open.
    open: Cell<u64>,
}

impl FdBudget {
    /// `listener` has just been opened, so its number is a first measure.
    pub(super) fn new(listener: BorrowedFd<'_>) -> Self {
        let budget = Self::of(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX));
        budget.accepted(listener);
        budget
    }

    fn of(limit: u64) -> Self {
        Self { limit, open: Cell::new(0) }
    }

    /// A connection was accepted.
    pub(super) fn accepted(&self, fd: BorrowedFd<'_>) {
        self.open.set(fd.as_raw_fd() as u64 + 1);
    }

    /// Descriptors that are left to files and pipes.
    fn reserve(&self) -> u64 {
        (self.limit / 4).min(256)
    }

    /// Connections have lower numbers than this.
    fn top(&self) -> u64 {
        self.limit - self.reserve()
    }

    /// Whether a whole backlog may be accepted on every core without coming near the limit.
    pub(super) fn for_many(&self) -> bool {
        self.open.get() + 4 * u64::from(BACKLOG) <= self.limit
    }

    /// Whether one more may be accepted. If the last number was high, it checks what the next one would be.
    pub(super) fn for_one(&self, any: BorrowedFd<'_>) -> bool {
        let top = self.top();
        if self.open.get() < top {
            return true;
        }
        match fcntl_dupfd_cloexec(any, 0) {
            Ok(lowest) => self.accepted(lowest.as_fd()),
            Err(_) => return false,
        }
        self.open.get() <= top
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_few_descriptors_is_left_to_files() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let budget = FdBudget::of(64);
        assert!(budget.for_one(null.as_fd()) && !budget.for_many());
        budget.open.set(48);
        // In fact fewer than 48 are open, and it counts them; unless the tests beside this one have opened
        // many.
        let lowest = fcntl_dupfd_cloexec(&null, 0).unwrap().as_raw_fd();
        assert_eq!(budget.for_one(null.as_fd()), lowest < 48);
        let budget = FdBudget::of(1 << 20);
        assert!(budget.for_many());
    }
}
