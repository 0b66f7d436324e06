//! Time: sleeping and deadlines.

pub(crate) mod timers;
mod wheel;

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::core::Core;
use timers::TimerKey;

/// Completes once `duration` has passed, never earlier. Resolution: one microsecond, plus what a wake costs.
///
/// # Cancellation
/// Safe; dropping it takes the timer away at once.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(Instant::now().checked_add(duration).unwrap_or_else(far_future))
}

/// Completes at `deadline`, never earlier.
///
/// # Cancellation
/// As for [`sleep`].
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, timer: None, _this_core: PhantomData }
}

/// A deadline that no program lives to see.
fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(86_400 * 365 * 30)
}

/// The future of [`sleep`].
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    deadline: Instant,
    timer: Option<TimerKey>,
    _this_core: PhantomData<*const ()>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Core::with(|core| {
            if core.budget.poll(cx).is_pending() {
                return Poll::Pending;
            }
            let waits = match self.timer {
                // The clock is not asked again: a deadline that has passed since it was is found by the wheel, at the end
                // of this turn.
                None if core.timers.has_passed(self.deadline) => false,
                None => {
                    self.timer = Some(core.timers.insert(self.deadline, cx.waker()));
                    true
                }
                Some(timer) => core.timers.rewake(timer, cx.waker()),
            };
            if waits {
                return Poll::Pending;
            }
            self.timer = None;
            core.budget.spend();
            Poll::Ready(())
        })
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            Core::try_with(|core| core.timers.cancel(timer));
        }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// The deadline passed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the deadline has passed")
    }
}

impl std::error::Error for Elapsed {}

/// Runs `future` for at most `duration`. Then it is dropped: see its own "Cancellation" for what that means.
///
/// # Errors
/// [`Elapsed`] when the time is up first. A future that is ready at the same moment wins.
///
/// # Cancellation
/// Drops `future`.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = sleep(duration);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => Pin::new(&mut sleep).poll(cx).map(|()| Err(Elapsed)),
    })
    .await
}
