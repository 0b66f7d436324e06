//! Time: sleeping, deadlines, intervals.
//!
//! Setting a timer and removing it cost the same few steps, however many are pending. A timer never fires
//! early. How late it may be is the runtime's choice ([`Builder::timer_slack`](crate::Builder::timer_slack)):
//! by default what a wake takes, on average, and 50 microseconds more at most.

mod interval;
mod sleep;
pub(crate) mod timers;
pub(crate) mod wakes;
mod wheel;

pub use interval::{Interval, MissedTick, interval, interval_at};
pub use sleep::{Elapsed, Sleep, deadline_after, sleep, sleep_until, timeout, timeout_at};
