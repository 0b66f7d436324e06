//! Several futures that run at the same time.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use crate::contained::Kept;

/// A future and its output are kept apart from the others, so that a panicking destructor does not keep those
/// from being dropped.
enum Slot<F: Future> {
    Running(Kept<Pin<Box<F>>>),
    Done(Kept<F::Output>),
}

/// The outputs of all futures, in their order. Each wake polls every one that is not done, which is right for
/// as few as there are cores.
pub(crate) async fn all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<Kept<F::Output>> {
    let mut slots: Vec<_> = futures.map(|future| Slot::Running(Kept::new(Box::pin(future)))).collect();
    poll_fn(|cx| {
        let mut pending = false;
        for slot in &mut slots {
            let Slot::Running(future) = slot else { continue };
            let Some(future) = future.get_mut() else { continue };
            match future.as_mut().poll(cx) {
                Poll::Ready(output) => *slot = Slot::Done(Kept::new(output)),
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    let outputs = slots.into_iter().filter_map(|slot| match slot {
        Slot::Done(output) => Some(output),
        Slot::Running(_) => None,
    });
    outputs.collect()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    struct Bad<'a>(&'a Cell<usize>);

    impl Drop for Bad<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
            panic!("on purpose");
        }
    }

    /// Seen to fail: with futures or outputs that are not kept apart, by an abort.
    #[test]
    fn futures_and_outputs_that_panic_when_they_are_dropped_are_dropped_one_by_one() {
        let dropped = Cell::new(0);
        let waits = async |i: usize| {
            let held = Bad(&dropped);
            if i > 1 {
                pending::<()>().await;
            }
            held
        };
        {
            let mut all = pin!(all((0..4).map(waits)));
            assert!(all.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        assert_eq!(dropped.get(), 4);
        let all = pin!(all((0..2).map(|_| ready(Bad(&dropped)))));
        assert!(all.poll(&mut Context::from_waker(Waker::noop())).is_ready());
        assert_eq!(dropped.get(), 6);
    }
}
