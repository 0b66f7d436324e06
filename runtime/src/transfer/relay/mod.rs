//! A connection joined to another: both directions at once, where each side is told how the other has ended.

mod bursts;
mod calls;
mod deadlines;
mod direction;
#[cfg(all(test, not(loom)))]
mod events;
mod state;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::Road;
use crate::clock;
use crate::net::socket::Socket;
use crate::net::sys::delivery;
use crate::net::{Connection, Family};
use crate::time::{Sleep, sleep_until};
use crate::{Error, Result};
pub use deadlines::RelayLimits;
use deadlines::{Limit, Phase, Samples};
use direction::{Direction, Joint};
use state::{Side, State};

/// Milliseconds of the first wait for an acknowledgement, and of the longest. No event reports one.
const ACKNOWLEDGED_SOON: u8 = 1;
const ACKNOWLEDGED_LATE: u8 = 64;

/// How long it waits between two samples for the failure of a side that has sent its end.
const FAILURE_CHECKS: Duration = Duration::from_secs(1);

/// How a relay ended.
#[derive(Debug)]
#[must_use = "a relay may have failed"]
#[non_exhaustive]
pub struct RelayEnd {
    /// Bytes that went from the first stream to the second.
    pub a_to_b: u64,
    /// Bytes that went from the second stream to the first.
    pub b_to_a: u64,
    /// Bytes of both directions that were copied through user memory; the others were spliced.
    pub copied: u64,
    /// Why it ended.
    pub cause: RelayCause,
    /// `Ok` when both directions ended by end of stream; otherwise what failed first.
    pub result: Result<()>,
}

/// Why a relay ended: the reason that came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RelayCause {
    /// Both sides have sent their end, and got all bytes.
    Ended,
    /// The connection of the first stream failed: a reset, a time-out, no route.
    FailedA,
    /// The connection of the second stream failed.
    FailedB,
    /// No byte moved for [`RelayLimits::idle`].
    Idle,
    /// No byte moved for [`RelayLimits::half_closed`] after one side had sent its end.
    HalfClosed,
    /// It lasted for [`RelayLimits::lifetime`].
    Lifetime,
    /// It was slower than [`RelayLimits::min_rate`].
    TooSlow,
}

impl RelayCause {
    /// Its name in logs and metrics: `ended`, `failed_a`, `failed_b`, `idle`, `half_closed`, `lifetime`,
    /// `too_slow`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::FailedA => "failed_a",
            Self::FailedB => "failed_b",
            Self::Idle => "idle",
            Self::HalfClosed => "half_closed",
            Self::Lifetime => "lifetime",
            Self::TooSlow => "too_slow",
        }
    }
}

/// Relays between two connections, TCP or Unix, until both directions have ended. Bulk is not copied through
/// user memory (`splice(2)`); messages that fit a receive buffer (8 KiB) are, which costs less.
///
/// Bytes that were received before but not taken are relayed first. Each side is told how the other has
/// ended:
///
/// - An orderly end shuts the other stream's write side down (`shutdown(2)`), after the last byte. The other
///   direction goes on.
/// - A reset, or another failure of a connection, resets the other one. Bytes that came before it go first:
///   the reset is sent when the peer has acknowledged them, or has acknowledged nothing for
///   [`RelayLimits::drain`].
/// - A side that refuses bytes while its own are still under way loses none of them: they are relayed to
///   their end. Then the side whose bytes were refused is reset. What it sends meanwhile is taken and
///   discarded.
///
/// Both streams are closed at the end. A Unix socket knows no reset: it is closed.
///
/// # Cancellation
/// Resets both connections; bytes under way are lost.
pub fn relay<A: Family, B: Family>(a: Connection<A>, b: Connection<B>, road: Road) -> Relay<A, B> {
    relay_within(a, b, road, &Rc::default())
}

/// Relays as [`relay`] does, with limits. A relay that reaches one of them ends with a reset of both
/// connections.
///
/// Relays with equal limits may share one value of them.
///
/// # Cancellation
/// As for [`relay`].
pub fn relay_within<A: Family, B: Family>(
    a: Connection<A>,
    b: Connection<B>,
    road: Road,
    limits: &Rc<RelayLimits>,
) -> Relay<A, B> {
    Relay { a, b, work: Work::new(road, Rc::clone(limits)) }
}

/// The future of [`relay`].
#[must_use = "futures do nothing unless awaited"]
pub struct Relay<A: Family, B: Family> {
    a: Connection<A>,
    b: Connection<B>,
    work: Work,
}

impl<A: Family, B: Family> Relay<A, B> {
    /// How many bytes have gone from the first stream to the second so far, and how many the other way.
    pub fn moved(&self) -> (u64, u64) {
        (self.work.state.given(0), self.work.state.given(1))
    }

    /// The second stream, for its options.
    pub fn second(&self) -> &Connection<B> {
        &self.b
    }

    /// Whether bytes of the first stream wait for the second to take them, and the other way round.
    pub fn held_up(&self) -> (bool, bool) {
        let [up, down] = &self.work.directions;
        (up.is_held_up(), down.is_held_up())
    }
}

// Nothing in it is pinned: the operations' memory lies in the core's table.
impl<A: Family, B: Family> Unpin for Relay<A, B> {}

impl<A: Family, B: Family> Future for Relay<A, B> {
    type Output = RelayEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let Self { a, b, work } = &mut *self;
        work.poll([a.socket(), b.socket()], cx)
    }
}

impl<A: Family, B: Family> Drop for Relay<A, B> {
    fn drop(&mut self) {
        // An orderly end of a relay that was dropped would look like success.
        if !self.work.is_over {
            [self.a.socket(), self.b.socket()].into_iter().for_each(|socket| socket.abort());
        }
    }
}

impl<A: Family, B: Family> std::fmt::Debug for Relay<A, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("a", &self.a).field("b", &self.b).finish_non_exhaustive()
    }
}

/// The part of a relay that does not depend on the families of its connections.
struct Work {
    limits: Rc<RelayLimits>,
    state: State,
    directions: [Direction; 2],
    samples: Option<Samples>,
    alarm: Option<Sleep>,
    /// The state at the previous sample, as its number of changes.
    seen: u32,
    /// Milliseconds until the next look for an acknowledgement, if one is awaited.
    acknowledged_in: Option<u8>,
    failed: Option<Box<(RelayCause, io::Error)>>,
    road: Road,
    is_over: bool,
}

impl Work {
    fn new(road: Road, limits: Rc<RelayLimits>) -> Self {
        Self {
            limits,
            state: State::new(),
            directions: [Direction::new(), Direction::new()],
            samples: None,
            alarm: None,
            seen: u32::MAX,
            acknowledged_in: None,
            failed: None,
            road,
            is_over: false,
        }
    }

    fn poll(&mut self, sides: [&Rc<Socket>; 2], cx: &mut Context<'_>) -> Poll<RelayEnd> {
        if self.samples.is_none()
            && let Some(end) = self.refuse_poisoned(sides)
        {
            return Poll::Ready(end);
        }
        loop {
            self.poll_directions(sides, cx);
            if !self.state.is_done() {
                self.see_acknowledged(sides);
            }
            if self.state.is_done() {
                return Poll::Ready(self.end(sides, None));
            }
            match self.poll_alarm(sides, cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(limit) => return Poll::Ready(self.end(sides, Some(limit))),
            }
        }
    }

    /// The end of a relay with a side whose stream an unknown part of a send has left.
    fn refuse_poisoned(&mut self, sides: [&Rc<Socket>; 2]) -> Option<RelayEnd> {
        let (side, error) = sides
            .iter()
            .enumerate()
            .find_map(|(side, socket)| Some((side, socket.must_be_sound().err()?)))?;
        (0..2).for_each(|side| self.state.refused(side));
        Some(RelayEnd { cause: failure_of(side), result: Err(error), ..self.end(sides, None) })
    }

    /// Polls both directions until neither has changed what the other is to do.
    fn poll_directions(&mut self, [a, b]: [&Rc<Socket>; 2], cx: &mut Context<'_>) {
        loop {
            let before = self.state.changes();
            for d in [0, 1] {
                let (from, into) = if d == 0 { (a, b) } else { (b, a) };
                let io = Joint { from, into, road: self.road, d };
                while let Some((side, error)) = self.directions[d].poll(io, &mut self.state, cx) {
                    self.failed(side, error);
                }
            }
            if self.state.changes() == before {
                return;
            }
        }
    }

    /// Checks whether a side that is about to be reset has acknowledged all that it was given.
    fn see_acknowledged(&mut self, sides: [&Rc<Socket>; 2]) {
        for (side, socket) in sides.into_iter().enumerate() {
            if !self.state.awaits_acknowledgement(side) {
                continue;
            }
            // The peer of a Unix socket has all that was given to the socket.
            if delivery(socket.fd()).is_some_and(|it| it.is_under_way() && !it.is_closed) {
                self.acknowledged_in.get_or_insert(ACKNOWLEDGED_SOON);
            } else {
                self.state.has_acknowledged(side);
            }
        }
    }

    /// Checks whether a side has failed that has sent its end, and from which nothing is taken since. No
    /// event reports it: the ring's polls always ask for the end of the peer too, and that has come.
    fn see_failed(&mut self, sides: [&Rc<Socket>; 2]) {
        for (side, socket) in sides.into_iter().enumerate() {
            if self.state.is_send_only(side) && delivery(socket.fd()).is_some_and(|it| it.is_closed) {
                self.state.refused(side);
                self.failed(side, io::ErrorKind::ConnectionReset.into());
            }
        }
    }

    fn failed(&mut self, side: Side, error: io::Error) {
        self.failed.get_or_insert_with(|| Box::new((failure_of(side), error)));
    }

    /// Samples the figures when it is time, or when the state has changed. True: the directions must be
    /// polled again.
    fn poll_alarm(&mut self, sides: [&Rc<Socket>; 2], cx: &mut Context<'_>) -> Result<bool, Limit> {
        loop {
            if self.seen == self.state.changes() {
                let has_fired = self.alarm.as_mut().is_some_and(|alarm| Pin::new(alarm).poll(cx).is_ready());
                if !has_fired {
                    return Ok(false);
                }
                self.see_acknowledged(sides);
                self.see_failed(sides);
                if self.seen != self.state.changes() {
                    return Ok(true);
                }
            }
            self.seen = self.state.changes();
            let next = self.sample(sides)?;
            match (&mut self.alarm, next) {
                (Some(alarm), Some(next)) => alarm.reset(next),
                (alarm, next) => *alarm = next.map(sleep_until),
            }
        }
    }

    /// Samples the figures. Returns when to sample again, or the limit that was reached.
    fn sample(&mut self, sides: [&Rc<Socket>; 2]) -> Result<Option<Instant>, Limit> {
        let phase = if self.state.is_breaking_off() {
            Phase::BreakingOff
        } else if self.state.is_half_closed() {
            Phase::HalfClosed
        } else {
            Phase::Open
        };
        let (now, moved) = (clock::now(), self.state.given(0) + self.state.given(1));
        let acknowledged =
            || sides.iter().filter_map(|socket| delivery(socket.fd())).map(|it| it.acknowledged).sum();
        let samples = self.samples.get_or_insert_with(|| Samples::new(now));
        let next = samples.sample(&self.limits, now, (phase, moved), acknowledged)?;
        let soon = self.acknowledged_in.map(|ms| now + Duration::from_millis(ms.into()));
        self.acknowledged_in = self.acknowledged_in.map(|ms| (ms * 2).min(ACKNOWLEDGED_LATE));
        let failure_check = (0..2).any(|side| self.state.is_send_only(side)).then(|| now + FAILURE_CHECKS);
        Ok([next, soon, failure_check].into_iter().flatten().min())
    }

    /// Closes or resets both sides, and reports how the relay ended.
    fn end(&mut self, sides: [&Rc<Socket>; 2], limit: Option<Limit>) -> RelayEnd {
        self.is_over = true;
        for (side, socket) in sides.into_iter().enumerate() {
            if limit.is_some() || self.state.is_to_be_reset(side) {
                socket.abort();
            }
        }
        let failed = self.failed.take().map(|failed| *failed);
        let (cause, result) = match (limit, failed) {
            (None | Some(Limit::Drain), Some((cause, e))) => (cause, Err(Error::io("relay failed", e))),
            (None | Some(Limit::Drain), None) => (RelayCause::Ended, Ok(())),
            (Some(Limit::Idle), _) => timed_out(RelayCause::Idle, "no byte moved for too long"),
            (Some(Limit::HalfClosed), _) => {
                timed_out(RelayCause::HalfClosed, "one side had ended, and no byte moved for too long")
            }
            (Some(Limit::Lifetime), _) => timed_out(RelayCause::Lifetime, "the relay lasted for too long"),
            (Some(Limit::Rate), _) => timed_out(RelayCause::TooSlow, "the relay was too slow"),
        };
        let copied = self.state.copied();
        RelayEnd { a_to_b: self.state.given(0), b_to_a: self.state.given(1), copied, cause, result }
    }
}

fn failure_of(side: Side) -> RelayCause {
    if side == 0 { RelayCause::FailedA } else { RelayCause::FailedB }
}

fn timed_out(cause: RelayCause, what: &'static str) -> (RelayCause, Result<()>) {
    (cause, Err(Error::io(what, io::ErrorKind::TimedOut.into())))
}
