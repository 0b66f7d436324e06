//! The main thread's work while the cores serve: signals, the grace period, and the figures at the end.

use std::io;
use std::time::{Duration, Instant};

use annulus::Running;
use annulus::numa::plan::CorePlan;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::exit::Failure;
use crate::processes::member::Image;
use crate::signals::{Orders, Signal};
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
/// second signal cuts it, and so does the end of whoever gives the orders. SIGUSR1 prints counters, stalls and report, with where the
/// `image` lies; `figures` asks for the counters at the end.
///
/// # Errors
/// The first failure of a core.
pub(crate) fn supervise(
    plan: &CorePlan,
    running: Running<Failure>,
    orders: Orders,
    image: Option<&Image>,
    grace: Duration,
    figures: bool,
) -> Result<(), Failure> {
    let mut phase = Phase::Open;
    let mut orders = Some(orders);
    loop {
        let deadline = if let Phase::Closing(deadline) = phase { Some(deadline) } else { None };
        let (finished, signalled) = wait(&running, orders.as_ref(), deadline)
            .map_err(|error| Failure::failed("cannot wait for signals and cores", error))?;
        if finished {
            break;
        }
        if signalled && let Some(from) = &orders {
            match from.next().map_err(|error| Failure::failed("cannot read a signal", error))? {
                Some(Signal::Show) => {
                    stats::print_counters(plan, &running);
                    stats::print_stalls(&running);
                    stats::print_report(&running, image);
                }
                Some(Signal::End) => phase = escalate(phase, &running, grace),
                Some(Signal::Gone) => {
                    running.cut();
                    (phase, orders) = (Phase::Cut, None);
                }
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
    orders: Option<&Orders>,
    deadline: Option<Instant>,
) -> io::Result<(bool, bool)> {
    let finished = running.finished_fd();
    let finished = PollFd::new(&finished, PollFlags::IN);
    let mut fds: Vec<_> =
        [finished].into_iter().chain(orders.map(|orders| PollFd::new(orders, PollFlags::IN))).collect();
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let left =
        left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
    match poll(&mut fds, left.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let came = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| !fd.revents().is_empty());
    Ok((came(fds.first()), came(fds.get(1))))
}
