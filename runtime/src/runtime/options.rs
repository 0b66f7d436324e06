//! What a runtime was asked to do beyond the usual: all of it is off by default.

use std::fmt;
use std::time::Duration;

/// The options of a runtime as they were asked for; what the kernel made of them is in
/// [`RingFeatures`](crate::RingFeatures). Each is set by the method of [`Builder`](crate::Builder) of the same name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Busy and parked time is counted.
    pub measure_time: bool,
    /// The time of each poll is counted.
    pub measure_polls: bool,
    /// Polls that last this long are logged.
    pub report_stalls: Option<Duration>,
    /// Receive buffers are used up incrementally.
    pub incremental_buffers: bool,
}

impl fmt::Display for Options {
    /// What is on, with commas between; `none` otherwise.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut on = Vec::new();
        if self.measure_time {
            on.push("measure_time".to_owned());
        }
        if self.measure_polls {
            on.push("measure_polls".to_owned());
        }
        if let Some(threshold) = self.report_stalls {
            on.push(format!("report_stalls {} ms", threshold.as_millis()));
        }
        if self.incremental_buffers {
            on.push("incremental_buffers".to_owned());
        }
        if on.is_empty() { f.write_str("none") } else { f.write_str(&on.join(", ")) }
    }
}
