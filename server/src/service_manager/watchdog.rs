//! The watchdog of a service manager (`sd_watchdog_enabled(3)`). It ends and restarts a program that does not
//! report in time that it is alive.

use std::time::{Duration, Instant};

use super::message::Message;
use super::notify::tell;

/// Checks in the time that the manager waits for a report.
const CHECKS: u32 = 3;

/// Reports that the program is alive, for as long as `are_alive` says that no core was stuck during the
/// last period. `are_alive` is given that period, and may wait for about as long. Does nothing where no
/// manager asks for it.
pub(crate) fn watch(mut are_alive: impl FnMut(Duration) -> bool + Send + 'static) {
    let time = wanted(|name| std::env::var(name).ok(), std::process::id());
    let Some(time) = time else { return };
    let period = time / CHECKS;
    let run = move || {
        let mut was_alive = true;
        loop {
            let begin = Instant::now();
            let is_alive = are_alive(period);
            if is_alive {
                tell(Message::Alive);
            } else if was_alive {
                tracing::error!(?time, "a core is stuck: the service manager is not told that all is well");
            }
            was_alive = is_alive;
            // A check of processes that have gone takes no time.
            std::thread::sleep(period.saturating_sub(begin.elapsed()));
        }
    };
    // It ends with the process, because a check waits for no core.
    if let Err(error) = std::thread::Builder::new().name("watchdog".to_owned()).spawn(run) {
        tracing::error!(%error, "no thread can be started that answers the watchdog");
    }
}

/// How long the manager waits for a report of process `pid`.
fn wanted(variable: impl Fn(&str) -> Option<String>, pid: u32) -> Option<Duration> {
    let time = variable("WATCHDOG_USEC")?.parse().ok().filter(|time| *time > 0)?;
    let is_ours = variable("WATCHDOG_PID").is_none_or(|whose| whose.parse() == Ok(pid));
    is_ours.then_some(Duration::from_micros(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_process_that_is_meant_is_watched() {
        let of = |time: Option<&str>, pid: Option<&str>| {
            let (time, pid) = (time.map(str::to_owned), pid.map(str::to_owned));
            wanted(|name| if name == "WATCHDOG_PID" { pid.clone() } else { time.clone() }, 7)
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(of(Some("1000000"), None), second);
        assert_eq!(of(Some("1000000"), Some("7")), second);
        for (time, pid) in [(Some("1000000"), Some("8")), (Some("0"), None), (Some("x"), None), (None, None)]
        {
            assert_eq!(of(time, pid), None);
        }
    }
}
