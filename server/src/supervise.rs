//! The main thread's work while the cores serve: signals, the grace period, and the figures at the end.

use std::io;
use std::time::{Duration, Instant};

use annulus::Running;
use annulus::numa::plan::CorePlan;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::exit::Failure;
use crate::lifecycle::{self, Stage};
use crate::log;
use crate::processes::member::Image;
use crate::signals::{Orders, Signal};
use crate::stats;

/// How long cores may take to end when whoever gives the orders has gone: a second more than the runtime gives to closures that block. One
/// may be in a system call that does not return, on a file system whose server does not answer.
const PATIENCE: Duration = Duration::from_secs(6);

/// How far the ending has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Serving.
    Open,
    /// A signal came: nothing new is accepted, and what runs may finish until then.
    Closing(Instant),
    /// What still ran has been dropped.
    Cut,
    /// The same, and nobody is there any more to see that a core does not end: until then it may.
    Alone(Instant),
}

/// Waits until all cores have ended.
///
/// The first SIGINT or SIGTERM stops accepting and gives what runs `grace` to finish; the end of the grace or a
/// second signal cuts it, and so does the end of whoever gives the orders; a core that has not ended [`PATIENCE`] later is left with the
/// process, by exit code 1. SIGUSR1 prints a summary, counters, stalls and report, with where the
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
        let deadline = match phase {
            Phase::Closing(deadline) | Phase::Alone(deadline) => Some(deadline),
            Phase::Open | Phase::Cut => None,
        };
        let (finished, signalled) = wait(&running, orders.as_ref(), deadline)
            .map_err(|error| Failure::failed("cannot wait for signals and cores", error))?;
        if finished {
            break;
        }
        if signalled && let Some(from) = &orders {
            match from.next().map_err(|error| Failure::failed("cannot read a signal", error))? {
                Some(Signal::Show) => {
                    stats::print_summary(&running);
                    stats::print_counters(plan, &running);
                    stats::print_stalls(&running);
                    stats::print_report(&running, image);
                }
                Some(Signal::Reopen) => log::reopen(),
                Some(Signal::End) => phase = escalate(phase, &running, grace),
                Some(Signal::Gone) => {
                    running.cut();
                    (phase, orders) = (Phase::Alone(Instant::now() + PATIENCE), None);
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
        if let Phase::Alone(deadline) = phase
            && Instant::now() >= deadline
        {
            tracing::error!(patience = ?PATIENCE, "the starting process has gone, and a core does not end: leaving it");
            // SAFETY: ends the process and runs nothing of ours. Destructors and exit handlers might wait for that core.
            unsafe { libc::_exit(1) };
        }
    }
    if figures {
        stats::print_counters(plan, &running);
        log::tell_counts_at_end();
    }
    running.wait()
}

/// One step further towards the end.
fn escalate(phase: Phase, running: &Running<Failure>, grace: Duration) -> Phase {
    match phase {
        Phase::Open => {
            tracing::info!(?grace, "ending: nothing new is accepted, what runs may finish");
            lifecycle::reach(Stage::Draining);
            running.stop();
            // A grace beyond what the clock can say is no limit that anybody would notice.
            let year = Duration::from_secs(365 * 24 * 3600);
            Phase::Closing(Instant::now() + grace.min(year))
        }
        Phase::Closing(_) | Phase::Cut | Phase::Alone(_) => {
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::{IntoRawFd, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};
    use std::sync::Arc;

    use annulus::Runtime;
    use annulus::numa::thread::affinity_of_current;

    use super::*;
    use crate::processes::member::Member;

    /// Not a test: the process of the one below. Its core waits for ever, in a system call.
    #[test]
    #[ignore = "a process of another test"]
    fn as_a_member_with_a_stuck_core() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap().into_raw_fd();
        let member = Member::take(format!("0:0:{socket}").parse().unwrap()).unwrap();
        let cpu = affinity_of_current().unwrap().first().unwrap();
        let runtime = Runtime::builder().cores(cpu.to_string().parse().unwrap()).pool_bytes(256 << 10);
        let runtime = runtime.build().unwrap();
        let plan = runtime.plan().clone();
        let stuck = || async {
            loop {
                std::thread::park();
            }
        };
        let running = runtime.start::<_, _, Failure>(stuck).unwrap();
        member.is_ready();
        let orders = Orders::Parent(Arc::new(member));
        supervise(&plan, running, orders, None, Duration::from_secs(3600), false).unwrap();
        unreachable!("its core does not end");
    }

    /// Seen to fail, by waiting for ever: without the limit.
    #[test]
    fn a_stuck_core_does_not_outlive_the_parent() {
        let (mut line, theirs) = UnixStream::pair().unwrap();
        let mut process = Command::new("/proc/self/exe")
            .args(["--ignored", "--exact", "supervise::tests::as_a_member_with_a_stuck_core"])
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        assert_eq!(io::Read::read(&mut line, &mut [0]).unwrap(), 1, "it is ready");
        drop(line);
        assert_eq!(process.wait().unwrap().code(), Some(1));
    }
}
