//! Wakers for crates that do not bear one that panics.

use std::sync::Arc;
use std::task::{Wake, Waker};

use super::is_ours;
use crate::contained::{Kept, contained};

/// A foreign waker, whose panics are contained.
struct Foreign(Kept<Waker>);

impl Foreign {
    fn is(&self, waker: &Waker) -> bool {
        self.0.get().is_some_and(|kept| kept.will_wake(waker))
    }
}

impl Wake for Foreign {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        contained("a waker", || self.0.get().into_iter().for_each(Waker::wake_by_ref));
    }
}

/// The waker to give to other crates in place of the one that a future is polled with. It never panics, when
/// it is cloned, called or dropped. It is the waker itself where that belongs to one of our tasks, because it
/// calls this library only. Each other waker that a future waits with costs an allocation.
#[derive(Default)]
pub(crate) struct Shield(Option<(Arc<Foreign>, Waker)>);

impl Shield {
    #[inline(always)]
    pub(crate) fn of<'a>(&'a mut self, waker: &'a Waker) -> &'a Waker {
        if is_ours(waker) { waker } else { self.around(waker) }
    }

    #[cold]
    fn around(&mut self, waker: &Waker) -> &Waker {
        if !self.0.as_ref().is_some_and(|(foreign, _)| foreign.is(waker)) {
            self.0 = None;
        }
        let (_, shielded) = self.0.get_or_insert_with(|| {
            let foreign = Arc::new(Foreign(Kept::new(waker.clone())));
            (Arc::clone(&foreign), Waker::from(foreign))
        });
        shielded
    }
}
