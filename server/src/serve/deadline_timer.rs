//! What a connection waits with for its whole life: one timer, and one future of the server's end.
//!
//! A timer for every wait would be made and removed twice per request. This one stays while it fires early
//! enough. It is moved only when it fires before the deadline: once in many requests, or never.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use annulus::cores::Stopping;
use annulus::time::Sleep;
use pin_project_lite::pin_project;

use super::clock;

/// A deadline of a connection, and how it is kept.
pub(super) struct DeadlineTimer {
    /// Wakes the connection's task at its deadline or before.
    alarm: Option<Sleep>,
    stopping: Stopping,
    /// When the connection ends, whatever it does.
    ends: Option<Instant>,
}

pin_project! {
    /// The future of [`DeadlineTimer::wait`]. A type of its own, because an async function would hold
    /// `future` twice: where it was handed in, and where it is pinned. It is in every connection.
    pub(super) struct Wait<'t, F> {
        timer: &'t mut DeadlineTimer,
        limit: Duration,
        // Set when there was something to wait for: most waits end before, so the clock is asked then.
        deadline: Option<Instant>,
        on_stop: OnStop,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Wait<'_, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Some(output));
        }
        let (limit, ends) = (*this.limit, this.timer.ends);
        let deadline = this.deadline.get_or_insert_with(|| {
            let deadline = annulus::time::deadline_after(limit);
            ends.map_or(deadline, |ends| deadline.min(ends))
        });
        if !matches!(this.on_stop, OnStop::Wait) && Pin::new(&mut this.timer.stopping).poll(cx).is_ready() {
            match this.on_stop {
                OnStop::WaitFor(limit) => {
                    *deadline = (*deadline).min(annulus::time::deadline_after(*limit));
                }
                OnStop::Wait | OnStop::Leave => return Poll::Ready(None),
            }
            *this.on_stop = OnStop::Wait;
        }
        this.timer.poll_alarm(*deadline, cx).map(|()| None)
    }
}

/// What to do about the end of the server while waiting.
#[derive(Clone, Copy)]
pub(super) enum OnStop {
    /// Keep waiting: something is on its way.
    Wait,
    /// Wait this long at most.
    WaitFor(Duration),
    /// Stop waiting: nothing is on its way.
    Leave,
}

impl DeadlineTimer {
    /// For a connection that may last for `lifetime`; for ever if that is nothing.
    pub(super) fn new(lifetime: Duration) -> Self {
        let ends = (!lifetime.is_zero()).then(|| annulus::time::deadline_after(lifetime));
        Self { alarm: None, stopping: annulus::cores::stopping(), ends }
    }

    /// Whether the connection has lasted long enough.
    pub(super) fn is_over(&self) -> bool {
        self.ends.is_some_and(|ends| ends <= clock::instant())
    }

    /// Waits for `future`, for at most `limit`; `None` when that is over. An output that is ready is taken,
    /// even when it is late.
    ///
    /// # Cancellation
    /// Drops `future`.
    pub(super) fn wait<F: Future>(&mut self, limit: Duration, on_stop: OnStop, future: F) -> Wait<'_, F> {
        Wait { timer: self, limit, deadline: None, on_stop, future }
    }

    /// Ready when `deadline` has passed.
    fn poll_alarm(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let alarm = self.alarm.get_or_insert_with(|| annulus::time::sleep_until(deadline));
        if alarm.deadline() > deadline {
            alarm.reset(deadline);
        }
        loop {
            if Pin::new(&mut *alarm).poll(cx).is_pending() {
                return Poll::Pending;
            }
            // It was set for an earlier wait.
            if alarm.deadline() >= deadline || deadline <= clock::instant() {
                return Poll::Ready(());
            }
            alarm.reset(deadline);
        }
    }
}
