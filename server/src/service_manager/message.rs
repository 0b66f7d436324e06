//! The texts that go to a service manager (`sd_notify(3)`): one assignment a line.

use std::fmt::Write;
use std::time::Duration;

/// A message to a service manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// Every core accepts. It is also sent after a reload, whatever its result. The text says what it does
    /// now.
    Ready(String),
    /// A reload has begun.
    Reloading,
    /// The end has begun and may take this long. The text says what is waited for.
    Stopping(String, Duration),
    /// No core is stuck.
    Alive,
    /// The process with this number has taken the place of this one.
    MainProcess(u32),
    /// The program ends, for this reason.
    Failed(String),
}

/// How long the end may take in addition to what an operator allows, before the manager kills.
const BESIDE: Duration = Duration::from_secs(15);

impl Message {
    /// New clients are served for `wait`, and then running requests may finish within `grace`.
    pub(crate) fn leaving(wait: Duration, grace: Duration) -> Self {
        let status = format!("ending: new clients are still served for {} s", wait.as_secs());
        Message::Stopping(status, wait + grace + BESIDE)
    }

    /// Running requests may finish within `grace`.
    pub(crate) fn draining(grace: Duration) -> Self {
        let status = format!("ending: what runs may finish within {} s", grace.as_secs());
        Message::Stopping(status, grace + BESIDE)
    }

    /// The text, at the time `now` of CLOCK_MONOTONIC.
    pub(super) fn text(&self, now: Duration) -> String {
        let mut text = String::new();
        let mut line = |line: std::fmt::Arguments<'_>| {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{line}");
        };
        match self {
            Message::Ready(status) => {
                line(format_args!("READY=1"));
                line(format_args!("STATUS={}", one_line(status)));
            }
            Message::Reloading => {
                line(format_args!("RELOADING=1"));
                // With Type=notify-reload it distinguishes this reload from an earlier one.
                line(format_args!("MONOTONIC_USEC={}", now.as_micros()));
                line(format_args!("STATUS=reading the configuration anew"));
            }
            Message::Stopping(status, most) => {
                line(format_args!("STOPPING=1"));
                line(format_args!("STATUS={}", one_line(status)));
                // It counts from now, and never makes TimeoutStopSec= shorter.
                line(format_args!("EXTEND_TIMEOUT_USEC={}", most.as_micros()));
            }
            Message::Alive => line(format_args!("WATCHDOG=1")),
            Message::MainProcess(pid) => line(format_args!("MAINPID={pid}")),
            Message::Failed(why) => line(format_args!("STATUS={}", one_line(why))),
        }
        text
    }
}

/// Each line is an assignment, so no line may begin within a value.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail: with a status that is passed on unchanged.
    #[test]
    fn a_status_cannot_say_anything_else() {
        let text = Message::Failed("no\nREADY=1".into()).text(Duration::ZERO);
        assert_eq!(text, "STATUS=no READY=1\n");
    }

    #[test]
    fn texts() {
        let text = |message: Message| message.text(Duration::from_micros(1_000_007));
        assert_eq!(text(Message::Ready("on :80".into())), "READY=1\nSTATUS=on :80\n");
        assert_eq!(
            text(Message::Reloading),
            "RELOADING=1\nMONOTONIC_USEC=1000007\nSTATUS=reading the configuration anew\n"
        );
        assert_eq!(
            text(Message::Stopping("drains".into(), Duration::from_secs(3))),
            "STOPPING=1\nSTATUS=drains\nEXTEND_TIMEOUT_USEC=3000000\n"
        );
        assert_eq!(text(Message::Alive), "WATCHDOG=1\n");
        assert_eq!(text(Message::MainProcess(7)), "MAINPID=7\n");
    }
}
