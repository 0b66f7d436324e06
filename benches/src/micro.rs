//! Operations of a runtime that are too small for a load driver: measured inside its own process, by its own
//! clock.
//!
//! Every runtime brings its own `spawn`, `yield` and `sleep`; what is done with them, and what is counted,
//! stands here, once for all.

use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::str::FromStr;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::cputime::process_ns;

/// Tasks that sleep at the same time.
const SLEEPERS: u64 = 1000;
/// The shortest and the longest of them, in microseconds.
const SHORTEST: u64 = 1_000;
const LONGEST: u64 = 50_000;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Spawn a task that is ready at once, and await it.
    Spawn,
    /// Give way to the other ready tasks, of which there are none.
    Yield,
    /// Make a timer of ten seconds, arm it, drop it.
    Timer,
    /// Send a number to a task on another core and get it back.
    PingPong,
    /// A thousand tasks that sleep 1 to 50 ms each.
    Sleepers,
}

impl Op {
    /// All of them.
    pub const ALL: [Op; 5] = [Op::Spawn, Op::Yield, Op::Timer, Op::PingPong, Op::Sleepers];

    /// As on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Op::Spawn => "spawn",
            Op::Yield => "yield",
            Op::Timer => "timer",
            Op::PingPong => "ping-pong",
            Op::Sleepers => "sleepers",
        }
    }
}

impl FromStr for Op {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Op::ALL.into_iter().find(|op| op.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Op::ALL.iter().map(|op| op.name()).collect();
            format!("`{text}` is none of {}", names.join(", "))
        })
    }
}

/// What came out. Its `Display` is the line that a program prints and the harness reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Operations done.
    pub ops: u64,
    /// From the first to the last.
    pub wall: Duration,
    /// CPU of the whole process meanwhile.
    pub cpu: Duration,
    /// How much later than asked for a sleeper woke, on average.
    pub late: Option<Duration>,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Measured { ops, wall, cpu, late } = self;
        write!(f, "ops {ops} wall_ns {} cpu_ns {}", wall.as_nanos(), cpu.as_nanos())?;
        late.map_or(Ok(()), |late| write!(f, " late_ns {}", late.as_nanos()))
    }
}

impl FromStr for Measured {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.split_ascii_whitespace();
        let (mut ops, mut wall, mut cpu, mut late) = (None, None, None, None);
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            let value: u64 = value.parse().map_err(|_| format!("`{value}` is no number: {line}"))?;
            match name {
                "ops" => ops = Some(value),
                "wall_ns" => wall = Some(Duration::from_nanos(value)),
                "cpu_ns" => cpu = Some(Duration::from_nanos(value)),
                "late_ns" => late = Some(Duration::from_nanos(value)),
                _ => return Err(format!("`{name}` is not known: {line}")),
            }
        }
        match (ops, wall, cpu) {
            (Some(ops @ 1..), Some(wall), Some(cpu)) => Ok(Measured { ops, wall, cpu, late }),
            _ => Err(format!("ops, wall_ns and cpu_ns are not all there: `{line}`")),
        }
    }
}

/// The clocks, running.
struct Clocks {
    wall: Instant,
    cpu: u64,
}

impl Clocks {
    fn start() -> io::Result<Clocks> {
        Ok(Clocks { cpu: process_ns(std::process::id())?, wall: Instant::now() })
    }

    fn stop(&self, ops: u64) -> io::Result<Measured> {
        let wall = self.wall.elapsed();
        let cpu = Duration::from_nanos(process_ns(std::process::id())? - self.cpu);
        Ok(Measured { ops, wall, cpu, late: None })
    }
}

/// `count` times: does `act` and awaits it. Begins with a tenth more that is not counted.
///
/// # Errors
/// The clock cannot be read.
pub async fn one_after_the_other<F: Future>(count: u64, act: impl Fn() -> F) -> io::Result<Measured> {
    for _ in 0..count / 10 {
        act().await;
    }
    let clocks = Clocks::start()?;
    for _ in 0..count {
        act().await;
    }
    clocks.stop(count)
}

/// `count` times: makes a timer by `sleep`, polls it once, drops it. Begins with a tenth more that is not
/// counted.
///
/// # Errors
/// The clock cannot be read, or a timer of ten seconds was ready at once.
pub async fn timers<F: Future>(count: u64, sleep: impl Fn(Duration) -> F) -> io::Result<Measured> {
    arm_and_drop(count / 10, &sleep).await?;
    let clocks = Clocks::start()?;
    arm_and_drop(count, &sleep).await?;
    clocks.stop(count)
}

async fn arm_and_drop<F: Future>(count: u64, sleep: &impl Fn(Duration) -> F) -> io::Result<()> {
    for _ in 0..count {
        let mut timer = pin!(sleep(Duration::from_secs(10)));
        if poll_fn(|cx| Poll::Ready(timer.as_mut().poll(cx).is_ready())).await {
            return Err(io::Error::other("a timer of ten seconds was ready at once"));
        }
    }
    Ok(())
}

/// How much later than asked for `sleep` came back.
pub async fn lateness<F: Future>(duration: Duration, sleep: impl FnOnce(Duration) -> F) -> Duration {
    let due = Instant::now() + duration;
    sleep(duration).await;
    due.elapsed()
}

/// `waves` times: a thousand tasks, each spawned by `spawn` and awaited, which sleep for as long as they are
/// told and return their [`lateness`].
///
/// # Errors
/// The clock cannot be read.
pub async fn sleepers<F: Future<Output = Duration>>(
    waves: u64,
    spawn: impl Fn(Duration) -> F,
) -> io::Result<Measured> {
    let clocks = Clocks::start()?;
    let mut late = Duration::ZERO;
    for _ in 0..waves {
        let mut tasks = Vec::with_capacity(SLEEPERS as usize);
        for i in 0..SLEEPERS {
            // 7 shares no factor with 1000: every length once, but not in order.
            let length = SHORTEST + (LONGEST - SHORTEST) * (i * 7 % SLEEPERS) / SLEEPERS;
            tasks.push(spawn(Duration::from_micros(length)));
        }
        for task in tasks {
            late += task.await;
        }
    }
    let ops = waves * SLEEPERS;
    Ok(Measured { late: Some(late / u32::try_from(ops).unwrap_or(u32::MAX)), ..clocks.stop(ops)? })
}

/// One end of a line between two cores: numbers out, numbers in.
pub type End = (UnboundedSender<u64>, UnboundedReceiver<u64>);

/// A line, and its two ends.
pub fn line() -> (End, End) {
    let (there, arrives) = unbounded();
    let (back, returns) = unbounded();
    ((there, returns), (back, arrives))
}

/// Sends numbers along the line and waits for each to come back; ends the line when done. Begins with a tenth
/// more that is not counted.
///
/// # Errors
/// The other end has gone, or the clock cannot be read.
pub async fn ping(count: u64, mut end: End) -> io::Result<Measured> {
    there_and_back(count / 10, &mut end).await?;
    let clocks = Clocks::start()?;
    there_and_back(count, &mut end).await?;
    clocks.stop(count)
}

async fn there_and_back(count: u64, (there, returns): &mut End) -> io::Result<()> {
    let gone = || io::Error::other("the other end of the line has gone");
    for i in 0..count {
        there.unbounded_send(i).map_err(|_| gone())?;
        if returns.recv().await != Ok(i) {
            return Err(gone());
        }
    }
    Ok(())
}

/// Sends back what comes, until the line ends.
pub async fn pong((back, mut arrives): End) {
    while let Ok(i) = arrives.recv().await {
        if back.unbounded_send(i).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back() {
        let (wall, cpu) = (Duration::from_nanos(50), Duration::from_nanos(40));
        for late in [None, Some(Duration::from_micros(3))] {
            let measured = Measured { ops: 7, wall, cpu, late };
            assert_eq!(measured.to_string().parse(), Ok(measured));
        }
        for op in Op::ALL {
            assert_eq!(op.name().parse(), Ok(op));
        }
    }

    #[test]
    fn other_lines_are_refused() {
        for line in ["", "ops 0 wall_ns 1 cpu_ns 1", "ops 1 wall_ns 1", "ops x wall_ns 1 cpu_ns 1", "oops 1"]
        {
            assert!(line.parse::<Measured>().is_err(), "{line}");
        }
    }
}
