//! `--slow MS`: a line in the log for each request and each relayed connection that took so long, with where
//! its time went.
//!
//! Whether a connection is watched is decided when it begins. One that is not has a [`Watch`] of no bytes and
//! no code. One that is watched is a future of [`annulus::waits`], which knows what its task waited for. This
//! file adds the time before the task heard of a request, which the kernel knows (`TCP_INFO`).
//!
//! docs/logs.md has the names.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annulus::net::{Connection, Family};
use annulus::waits::{self, LastWait, Waits};

use crate::log::access::Client;

/// The connection was in the backlog.
const ACCEPT: &str = "accept";
/// Bytes had come, and the core was asleep, or was not run by the kernel.
const CORE: &str = "core";
/// An earlier request of the connection was being answered.
const BEHIND: &str = "behind";
/// The connection was queued, because every upstream had as many connections as it may have.
pub(crate) const QUEUE: &str = "queue";
/// There was no descriptor left.
pub(crate) const DESCRIPTORS: &str = "descriptors";
/// Another program held a lease on the file (`fcntl(2)`, F_SETLEASE).
pub(crate) const LEASE: &str = "lease";
/// The client had to take bytes.
const CLIENT: &str = "client";
/// The upstream had to take bytes.
const UPSTREAM: &str = "upstream";
/// Neither side had sent anything. This time does not count for a connection.
const IDLE: &str = "idle";

/// The target of the lines.
pub(crate) const TARGET: &str = "annulus::slow";

/// The kernel counts silence in steps of up to 10 ms, so a shorter one may be none.
const GRAIN: Duration = Duration::from_millis(10);

/// Milliseconds from which on a line is written; 0 for never.
static THRESHOLD: AtomicU64 = AtomicU64::new(0);

/// Sets the threshold, in milliseconds.
pub(crate) fn tell_from(ms: u64) {
    THRESHOLD.store(ms, Ordering::Relaxed);
}

/// Whether there is a threshold.
pub(crate) fn is_on() -> bool {
    THRESHOLD.load(Ordering::Relaxed) > 0
}

/// How a connection is watched.
pub(crate) trait Watch: Sized {
    /// Whether the connection is watched.
    const IS_ON: bool;

    /// Watches `stream`, which was accepted just now.
    fn new<F: Family>(stream: &Connection<F>) -> Self;

    /// The connection's task is polled for the first time.
    fn begins(&mut self);

    /// A request has come on `stream`. `behind`: another one had to be answered first.
    fn arrived<F: Family>(&mut self, stream: &Connection<F>, behind: bool);

    /// The request has been answered.
    fn answered(&mut self, client: Client, request: impl FnOnce() -> Answered);

    /// The relay waits. `held_up` gives what [`annulus::transfer::Relay::held_up`] does.
    fn relay_waits(held_up: impl FnOnce() -> (bool, bool));

    /// The relayed connection has ended.
    fn ended(&mut self, client: Client, connection: impl FnOnce() -> Relayed);
}

/// A request, for the log.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
}

/// A relayed connection, for the log.
#[derive(Debug)]
pub(crate) struct Relayed {
    pub(crate) upstream: Option<Client>,
    pub(crate) up: u64,
    pub(crate) down: u64,
}

/// The watch of a connection that is not watched.
#[derive(Debug)]
pub(crate) struct Unwatched;

impl Watch for Unwatched {
    const IS_ON: bool = false;

    fn new<F: Family>(_: &Connection<F>) -> Self {
        Unwatched
    }

    fn begins(&mut self) {}

    fn arrived<F: Family>(&mut self, _: &Connection<F>, _: bool) {}

    fn answered(&mut self, _: Client, _: impl FnOnce() -> Answered) {}

    fn relay_waits(_: impl FnOnce() -> (bool, bool)) {}

    fn ended(&mut self, _: Client, _: impl FnOnce() -> Relayed) {}
}

/// The watch of a connection and of its current request.
#[derive(Debug)]
pub(crate) struct Watched {
    /// When the connection was accepted.
    accepted: Instant,
    /// How long the connection was in the backlog.
    queued: Duration,
    /// The time from the accept to the first poll.
    first_poll: Duration,
    /// Whether the first request is still to come.
    is_new: bool,
    /// When the request came.
    began: Instant,
}

impl Watch for Watched {
    const IS_ON: bool = true;

    fn new<F: Family>(stream: &Connection<F>) -> Self {
        let (accepted, silence) = (Instant::now(), stream.silence());
        // Nothing was sent yet, so this is the time since the handshake.
        let queued = silence.map_or(Duration::ZERO, |silence| silence.sent);
        let first_poll = Duration::ZERO;
        Watched { accepted, queued, first_poll, is_new: true, began: accepted }
    }

    fn begins(&mut self) {
        self.first_poll = self.accepted.elapsed();
        waits::add(waits::TASK, self.first_poll);
    }

    fn arrived<F: Family>(&mut self, stream: &Connection<F>, behind: bool) {
        let last = waits::start_over().unwrap_or_default();
        let now = Instant::now();
        let opening = std::mem::take(&mut self.is_new).then(|| Opening {
            since: now - self.accepted,
            queued: self.queued,
            first_poll: self.first_poll,
        });
        let mut before = Duration::ZERO;
        let came = stream.silence().map(|silence| silence.received);
        for (what, time) in before_it_was_read(came, last, opening, behind) {
            waits::add(what, time);
            before += time;
        }
        self.began = now.checked_sub(before).unwrap_or(now);
    }

    fn answered(&mut self, client: Client, request: impl FnOnce() -> Answered) {
        let took = self.began.elapsed();
        if took < threshold() {
            return;
        }
        let (Some(waits), Answered { method, target, status, bytes }) = (waits::so_far(), request()) else {
            return;
        };
        let (took, went) = (ms(took), spent(&waits, name_for_files));
        tracing::warn!(target: TARGET, %client, method, ?target, status, bytes, "a request took {took} ms: {went}");
    }

    fn relay_waits(held_up: impl FnOnce() -> (bool, bool)) {
        waits::next_is(match held_up() {
            (_, true) => CLIENT,
            (true, false) => UPSTREAM,
            (false, false) => IDLE,
        });
    }

    fn ended(&mut self, client: Client, connection: impl FnOnce() -> Relayed) {
        if self.queued >= GRAIN {
            waits::add(ACCEPT, self.queued);
        }
        let Some(mut waits) = waits::so_far() else { return };
        let took = self.queued + self.accepted.elapsed().saturating_sub(waits.of(IDLE));
        waits.spent.retain(|(what, _)| *what != IDLE);
        if took < threshold() {
            return;
        }
        let Relayed { upstream, up, down } = connection();
        let (took, went) = (ms(took), spent(&waits, name_for_relays));
        let upstream = upstream.map(tracing::field::display);
        tracing::warn!(target: TARGET, %client, upstream, up, down, "a connection took {took} ms, without the time that it was idle: {went}");
    }
}

fn threshold() -> Duration {
    Duration::from_millis(THRESHOLD.load(Ordering::Relaxed))
}

/// A connection that has just been accepted.
#[derive(Debug, Clone, Copy)]
struct Opening {
    /// The time since the accept.
    since: Duration,
    /// The time in the backlog before.
    queued: Duration,
    /// The time from the accept to the first poll.
    first_poll: Duration,
}

/// Where the time went from the arrival of a request's last byte, `came` ago, until the request was read.
/// The kernel knows how long that was, and the last wait of the task tells its own part of it. The rest was
/// the core's, which heard of the bytes late, or the buffers', where there was none.
fn before_it_was_read(
    came: Option<Duration>,
    last: LastWait,
    opening: Option<Opening>,
    behind: bool,
) -> Vec<(&'static str, Duration)> {
    if behind {
        return vec![(BEHIND, came.unwrap_or_default())];
    }
    let first_poll = opening.map_or(Duration::ZERO, |opening| opening.first_poll);
    let task = last.task + first_poll;
    // It is unknown for what is not TCP. Then only the task's part counts.
    let mut left = came.unwrap_or(task + last.ticks).max(task);
    let mut take = |what: &'static str, time: Duration| {
        let time = time.min(left);
        left -= time;
        (what, time)
    };
    let (task, queued) = (
        take(waits::TASK, task),
        opening.map_or(Duration::ZERO, |opening| {
            let before = came.unwrap_or_default().saturating_sub(opening.since);
            if before >= GRAIN { before.min(opening.queued) } else { Duration::ZERO }
        }),
    );
    let (queued, ticks) = (take(ACCEPT, queued), take(waits::TICKS, last.ticks));
    let rest = match last.lacked_buffer {
        true => (waits::BUFFERS, left),
        false if left >= GRAIN => (CORE, left),
        false => (CORE, Duration::ZERO),
    };
    vec![queued, task, ticks, rest]
}

/// The name in the log for one of the library's, where files are served. Only opening a file waits for
/// timers: one that the kernel could not open at once is tried again.
fn name_for_files(what: &'static str) -> &'static str {
    match what {
        waits::TIMER => waits::DISK,
        waits::SEND => CLIENT,
        waits::OTHERS => "threads",
        other => other,
    }
}

/// The name in the log for one of the library's, where connections are relayed. Only connecting has timers:
/// they look whether the client has gone meanwhile.
fn name_for_relays(what: &'static str) -> &'static str {
    match what {
        waits::SEND => UPSTREAM,
        waits::TIMER => waits::CONNECT,
        other => other,
    }
}

/// The times as text, in milliseconds, the longest first.
fn spent(waits: &Waits, name: fn(&'static str) -> &'static str) -> String {
    let mut times: Vec<(&str, Duration)> = Vec::new();
    for (what, time) in waits.spent.iter().map(|(what, time)| (name(what), *time)) {
        match times.iter_mut().find(|(known, _)| *known == what) {
            Some((_, sum)) => *sum += time,
            None => times.push((what, time)),
        }
    }
    times.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    let mut text = String::new();
    for (what, time) in times.into_iter().filter(|(_, time)| time.as_micros() > 0) {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a String does not fail.
        let _ = write!(text, "{comma}{what} {}", ms(time));
    }
    for (what, times) in [("block", waits.blocks_refused), ("pipe", waits.pipes_refused)] {
        if times > 0 {
            let _ = write!(text, "; {times} times there was no {what}");
        }
    }
    text
}

/// Milliseconds, to the microsecond.
fn ms(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn last(ticks: u64, task: u64, lacked_buffer: bool) -> LastWait {
        let mut last = LastWait::default();
        (last.ticks, last.task, last.lacked_buffer) = (at(ticks), at(task), lacked_buffer);
        last
    }

    fn told(came: Option<u64>, last: LastWait, opening: Option<Opening>) -> Vec<(&'static str, u128)> {
        let told = before_it_was_read(came.map(at), last, opening, false);
        told.into_iter().map(|(what, time)| (what, time.as_millis())).filter(|(_, ms)| *ms > 0).collect()
    }

    #[test]
    fn the_time_before_a_request_was_read_is_told_once() {
        assert_eq!(told(Some(300), last(0, 0, false), None), [("core", 300)]);
        assert_eq!(told(Some(300), last(0, 0, true), None), [("buffers", 300)]);
        assert_eq!(
            told(Some(300), last(100, 50, true), None),
            [("task", 50), ("ticks", 100), ("buffers", 150)]
        );
        // The ticks are what the core was late at most, and the kernel's count has a grain.
        assert_eq!(told(Some(30), last(100, 50, false), None), [("task", 50)]);
        assert_eq!(told(Some(4), last(0, 0, false), None), []);
        assert_eq!(told(None, last(7, 2, false), None), [("task", 2), ("ticks", 7)]);
        assert_eq!(before_it_was_read(Some(at(40)), last(9, 9, true), None, true), [("behind", at(40))]);
    }

    #[test]
    fn a_request_was_queued_for_as_long_as_it_and_its_connection_were() {
        let opening =
            |since, queued| Some(Opening { since: at(since), queued: at(queued), first_poll: at(0) });
        let none = last(0, 0, false);
        assert_eq!(told(Some(300), none, opening(0, 300)), [("accept", 300)]);
        assert_eq!(told(Some(300), none, opening(100, 300)), [("accept", 200), ("core", 100)]);
        // The bytes came after the accept, however long the connection had been queued before.
        assert_eq!(told(Some(3), none, opening(100, 300)), []);
        assert_eq!(told(Some(300), none, opening(0, 50)), [("accept", 50), ("core", 250)]);
    }

    #[test]
    fn times_are_told_the_longest_first_and_by_one_name() {
        let mut waits = Waits::default();
        waits.spent = vec![("disk", at(2)), ("timer", at(3)), ("connect", at(4)), ("polls", Duration::ZERO)];
        assert_eq!(spent(&waits, name_for_relays), "connect 7.000, disk 2.000");
        waits.pipes_refused = 2;
        waits.spent.truncate(1);
        assert_eq!(spent(&waits, name_for_files), "disk 2.000; 2 times there was no pipe");
    }
}
