//! Time: sleeping, deadlines, intervals.
//!
//! Setting and removing a timer costs the same few steps, however many are pending. A timer never fires
//! early. How late it may be is the runtime's choice ([`Builder::timer_slack`](crate::Builder::timer_slack)):
//! by default as long as a wake takes, on average, plus at most 50 microseconds.

mod interval;
mod sleep;
pub(crate) mod timers;
pub(crate) mod wakes;
mod wheel;

pub use interval::{Interval, MissedTick, interval, interval_at};
pub use sleep::{Elapsed, Sleep, deadline_after, sleep, sleep_until, timeout, timeout_at};
