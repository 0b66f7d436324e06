//! The main thread's work while the cores serve: signals, the grace period, and the figures at the end.

use std::io;
use std::time::{Duration, Instant};

use annulus::Running;
use annulus::numa::plan::CorePlan;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::exit::Failure;
use crate::signals::{Signal, Signals};
use crate::stats;

/// How far the ending has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Serving.
    Open,
    /// A signal came: nothing new is accepted, and what runs may finish until then.
    Closing(Instant),
    /// What still ran has been dropped.
    Cut,
}

/// Waits until all cores have ended.
///
/// The first SIGINT or SIGTERM stops accepting and gives what runs `grace` to finish; the end of the grace or a
/// second signal cuts it. SIGUSR1 prints counters, stalls and report; `figures` asks for the counters at the end.
///
/// # Errors
/// The first failure of a core.
pub(crate) fn supervise(
    plan: &CorePlan,
    running: Running<Failure>,
    signals: &Signals,
    grace: Duration,
    figures: bool,
) -> Result<(), Failure> {
    let mut phase = Phase::Open;
    loop {
        let deadline = if let Phase::Closing(deadline) = phase { Some(deadline) } else { None };
        let (finished, signalled) = wait(&running, signals, deadline)
            .map_err(|error| Failure::failed("cannot wait for signals and cores", error))?;
        if finished {
            break;
        }
        if signalled {
            match signals.next().map_err(|error| Failure::failed("cannot read a signal", error))? {
                Some(Signal::Show) => {
                    stats::print_counters(plan, &running);
                    stats::print_stalls(&running);
                    stats::print_report(&running);
                }
                Some(Signal::End) => phase = escalate(phase, &running, grace),
                None => {}
            }
        }
        if let Phase::Closing(deadline) = phase
            && Instant::now() >= deadline
        {
            tracing::info!(?grace, "the grace is over: cutting what still runs");
            phase = escalate(phase, &running, grace);
        }
    }
    if figures {
        stats::print_counters(plan, &running);
    }
    running.wait()
}

/// One step further towards the end.
fn escalate(phase: Phase, running: &Running<Failure>, grace: Duration) -> Phase {
    match phase {
        Phase::Open => {
            tracing::info!(?grace, "ending: nothing new is accepted, what runs may finish");
            running.stop();
            // A grace beyond what the clock can say is no limit that anybody would notice.
            let year = Duration::from_secs(365 * 24 * 3600);
            Phase::Closing(Instant::now() + grace.min(year))
        }
        Phase::Closing(_) | Phase::Cut => {
            running.cut();
            Phase::Cut
        }
    }
}

/// Waits for the cores' end, a signal or the deadline, and says which of the first two came.
fn wait(
    running: &Running<Failure>,
    signals: &Signals,
    deadline: Option<Instant>,
) -> io::Result<(bool, bool)> {
    let finished = running.finished_fd();
    let mut fds = [PollFd::new(&finished, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let left =
        left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
    match poll(&mut fds, left.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok((!fds[0].revents().is_empty(), !fds[1].revents().is_empty()))
}
