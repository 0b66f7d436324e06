//! The futures of timers: sleeping, and deadlines for other futures.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::timers::TimerKey;
use crate::clock;
use crate::core::Core;

/// Completes once `duration` has passed, never earlier. The resolution is one microsecond, plus the duration
/// of a wake, plus at most the runtime's [slack](crate::Builder::timer_slack).
///
/// # Cancellation
/// Safe; dropping it removes the timer at once.
pub fn sleep(duration: Duration) -> Sleep {
    let mut sleep = sleep_until(deadline_after(duration));
    sleep.due = duration.is_zero();
    sleep
}

/// Completes at `deadline`, never earlier.
///
/// # Cancellation
/// As for [`sleep`].
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, timer: None, due: false, _this_core: PhantomData }
}

/// The time `duration` from now, or a very late one where the clock cannot represent it.
pub fn deadline_after(duration: Duration) -> Instant {
    clock::now().checked_add(duration).unwrap_or_else(far_future)
}

/// A deadline later than any program's end.
pub(super) fn far_future() -> Instant {
    clock::now() + Duration::from_secs(86_400 * 365 * 30)
}

/// The future of [`sleep`].
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    deadline: Instant,
    timer: Option<TimerKey>,
    /// The duration is zero: it is complete from the beginning.
    due: bool,
    _this_core: PhantomData<*const ()>,
}

impl Sleep {
    /// When it completes.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the deadline has passed.
    pub fn is_elapsed(&self) -> bool {
        self.deadline <= clock::now()
    }

    /// Moves the deadline. A sleep that has completed can then be awaited again. A task that waits for it is
    /// woken at the new time.
    ///
    /// # Panics
    /// On another thread than that of the core on which it was polled.
    pub fn reset(&mut self, deadline: Instant) {
        self.deadline = deadline;
        self.due = false;
        if let Some(timer) = self.timer {
            // A timer that has fired has woken its task, which polls again.
            self.timer = Core::with(|core| core.timers.postpone(timer, deadline));
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Core::with(|core| {
            let waits = match self.timer {
                // The clock is not read again: the wheel finds a deadline that has passed since, at the end
                // of this tick.
                None if self.due || core.timers.has_passed(self.deadline) => {
                    let waits = !core.budget.is_left();
                    if waits {
                        // Due at the end of this tick. A wait for budget could last for ever, if something in
                        // the same task uses it up before each poll of this timer.
                        self.timer = Some(core.timers.insert_due(cx.waker()));
                    }
                    waits
                }
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

/// Runs `future` for at most `duration`. With a duration of zero it is polled once. Then it is dropped: see
/// its own "Cancellation" for what that means.
///
/// # Errors
/// [`Elapsed`] when the time is up first. A future that is ready at the same moment wins.
///
/// # Cancellation
/// Drops `future`.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    until(sleep(duration), future).await
}

/// Runs `future` until `deadline` at most.
///
/// # Errors
/// As for [`timeout`].
///
/// # Cancellation
/// Drops `future`.
pub async fn timeout_at<F: Future>(deadline: Instant, future: F) -> Result<F::Output, Elapsed> {
    until(sleep_until(deadline), future).await
}

async fn until<F: Future>(mut sleep: Sleep, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => Pin::new(&mut sleep).poll(cx).map(|()| Err(Elapsed)),
    })
    .await
}
