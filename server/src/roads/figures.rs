//! What a transfer cost.

use std::time::{Duration, Instant};

/// Times in seconds, and for how many bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figures {
    pub(super) wall: f64,
    pub(super) user: f64,
    pub(super) sys: f64,
    pub(super) bytes: u64,
    /// The share of zero-copy sends that the kernel copied all the same, where there were any and it says so.
    pub(super) copied: Option<f64>,
}

impl Figures {
    /// CPU seconds for 10^9 bytes.
    pub(super) fn cpu_per_gb(&self) -> f64 {
        // A time of 0 is shorter than the clock's resolution, and is counted as that.
        (self.user + self.sys).max(1e-9) / (self.bytes as f64 / 1e9)
    }
}

/// CPU time in user and kernel mode.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cpu {
    user: Duration,
    sys: Duration,
}

impl Cpu {
    /// Of the process so far, its kernel threads for the ring included (`getrusage(2)`).
    fn of_process() -> Self {
        Self::of(libc::RUSAGE_SELF)
    }

    /// Of the calling thread so far.
    pub(super) fn of_thread() -> Self {
        Self::of(libc::RUSAGE_THREAD)
    }

    fn of(who: libc::c_int) -> Self {
        // SAFETY: all zeroes is a value of this struct of numbers, and getrusage(2) fills it.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: it writes one struct of ours. It cannot fail for these two.
        unsafe { libc::getrusage(who, &mut usage) };
        let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
        Self { user: time(usage.ru_utime), sys: time(usage.ru_stime) }
    }

    fn less(self, other: Self) -> Self {
        Self { user: self.user.saturating_sub(other.user), sys: self.sys.saturating_sub(other.sys) }
    }
}

/// A measurement that has begun.
pub(super) struct Clock {
    begun: Instant,
    cpu: Cpu,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { begun: Instant::now(), cpu: Cpu::of_process() }
    }

    /// What it came to for `bytes`, without what the receiver used.
    pub(super) fn stop(self, bytes: u64, receiver: Cpu) -> Figures {
        let wall = self.begun.elapsed();
        let cpu = Cpu::of_process().less(self.cpu).less(receiver);
        Figures {
            wall: wall.as_secs_f64(),
            user: cpu.user.as_secs_f64(),
            sys: cpu.sys.as_secs_f64(),
            bytes,
            copied: None,
        }
    }
}
