//! The stage of the program, for load balancers that ask whether to send it clients.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Where a program is between its start and its end. It only ever goes on to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Not every core accepts yet.
    Starting,
    /// Every core accepts from every listener.
    Ready,
    /// It has been asked to end, and is to get no new clients; those that come nevertheless are served for
    /// `--drain-wait`.
    Leaving,
    /// Nothing is accepted any more; what runs may finish for `--grace`.
    Draining,
}

static STAGE: AtomicU8 = AtomicU8::new(Stage::Starting as u8);

/// The stage of this process. Where a process serves for each node, that of the first one stands for all.
pub(crate) fn stage() -> Stage {
    match STAGE.load(Ordering::Acquire) {
        0 => Stage::Starting,
        1 => Stage::Ready,
        2 => Stage::Leaving,
        _ => Stage::Draining,
    }
}

/// Goes on to `stage`; an earlier one than it has come to is ignored.
pub(crate) fn reach(stage: Stage) {
    STAGE.fetch_max(stage as u8, Ordering::AcqRel);
}

/// Whether another program has taken this one's place.
static IS_REPLACED: AtomicBool = AtomicBool::new(false);

/// Another program serves new clients from now on.
pub(crate) fn replace() {
    IS_REPLACED.store(true, Ordering::Release);
}

/// Whether another program serves new clients.
pub(crate) fn is_replaced() -> bool {
    IS_REPLACED.load(Ordering::Acquire)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_and_never_back() {
        assert!(Stage::Starting < Stage::Ready && Stage::Leaving < Stage::Draining);
        reach(Stage::Ready);
        assert_eq!(stage(), Stage::Ready);
        reach(Stage::Draining);
        reach(Stage::Leaving);
        assert_eq!(stage(), Stage::Draining);
    }
}
