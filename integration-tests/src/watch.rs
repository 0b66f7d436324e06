//! How long a test waits for something that must happen before it says that it did not.

use std::time::{Duration, Instant};

/// The watchdog of every wait. Generous on purpose: it is only ever reached by a failure, and a debug build
/// on a busy two-core machine may well need ten seconds for what takes one alone.
pub const LIMIT: Duration = Duration::from_secs(90);

/// Between two looks at a state that nobody announces (a count in /proc).
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Waits until `look` gives a value, and ends the test with what it was waiting for when [`LIMIT`] has
/// passed.
///
/// Only for states that no descriptor reports, such as the number of open files of another process. Where
/// there is an event (a line, an end of file, an exit) a test waits for that instead.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(start.elapsed() < LIMIT, "waited {LIMIT:?} in vain until {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}
