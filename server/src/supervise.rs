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
use crate::orders::Orders;
use crate::processes::member::{Change, Image, Order};
use crate::service::times::Times;
use crate::service_manager::message::Message;
use crate::service_manager::notify;
use crate::signals::Signal;
use crate::stats;
use crate::upgrade::giving;

/// How long cores may take to end when the process that gives the orders has ended: a second more than the
/// runtime gives to closures that block. One may be in a system call that does not return, on a file system
/// whose server does not answer.
const PATIENCE: Duration = Duration::from_secs(6);

/// How far the ending has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Serving.
    Open,
    /// A signal came: readiness probes fail from now on, and clients that come nevertheless are served until
    /// then.
    Leaving(Instant),
    /// Nothing new is accepted, and what runs may finish until then.
    Closing(Instant),
    /// What still ran has been dropped.
    Cut,
    /// The same, and no process is left that would notice a core that does not end: cores have until then.
    Alone(Instant),
}

/// What the main thread has to do while the cores serve.
pub(crate) trait Duties {
    /// SIGHUP: the configuration may have changed.
    fn reload(&self);

    /// Have a new program take this one's place.
    fn upgrade(&self);

    /// The starting process wants something else than a signal does.
    fn change(&self, change: Change);

    /// The cores are about to stop accepting.
    fn stop_accepting(&self);
}

/// A runtime at work, and what is known of it.
pub(crate) struct Supervised<'a> {
    /// Its cores.
    pub(crate) plan: &'a CorePlan,
    /// Where the program's image lies, if it has a node.
    pub(crate) image: Option<&'a Image>,
    /// How long the parts of the end may take.
    pub(crate) times: &'a Times,
    /// Whether to print the counters at the end.
    pub(crate) figures: bool,
    /// What signals ask for.
    pub(crate) duties: &'a dyn Duties,
}

/// Waits until all cores have ended.
///
/// The first SIGINT or SIGTERM says that new clients are not welcome, waits for as long as
/// [`Times::drain_wait`] says, stops accepting and gives what runs [`Times::grace`] to finish; the end of
/// the grace or a second signal cuts it, and so does the end of whoever gives the orders, who has waited
/// already; a core that has not ended [`PATIENCE`] later is left with the process, by exit code 1. SIGUSR1
/// prints a summary, counters, stalls and report.
///
/// # Errors
/// The first failure of a core.
pub(crate) fn supervise(
    supervised: &Supervised<'_>,
    running: Running<Failure>,
    orders: Orders,
) -> Result<(), Failure> {
    let mut phase = Phase::Open;
    let mut orders = Some(orders);
    loop {
        // All of them are taken before the wait: one read of the line may bring several frames, and then
        // nothing more comes that would end a wait.
        while let Some(from) = &orders {
            let next = from.next().map_err(|error| Failure::failed("cannot read a signal", error))?;
            let Some(order) = next else { break };
            if let Order::Signal(Signal::Gone) = order {
                running.cut();
                (phase, orders) = (Phase::Alone(Instant::now() + PATIENCE), None);
                break;
            }
            let waits = matches!(from, Orders::Signals(_));
            phase = supervised.obey(order, phase, &running, waits);
        }
        let deadline = match phase {
            Phase::Leaving(deadline) | Phase::Closing(deadline) | Phase::Alone(deadline) => Some(deadline),
            Phase::Open | Phase::Cut => None,
        };
        let finished = wait(&running, orders.as_ref(), deadline)
            .map_err(|error| Failure::failed("cannot wait for signals and cores", error))?;
        if finished {
            break;
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            phase = supervised.over(phase, &running);
        }
    }
    if supervised.figures {
        stats::print_counters(supervised.plan, &running);
        log::tell_counts_at_end();
    }
    running.wait()
}

impl Supervised<'_> {
    /// Does what is wanted. `waits` says whether new clients are served for a while before the end.
    fn obey(&self, order: Order, phase: Phase, running: &Running<Failure>, waits: bool) -> Phase {
        match order {
            Order::Signal(Signal::Show) => {
                stats::print_summary(running);
                stats::print_counters(self.plan, running);
                stats::print_stalls(running);
                stats::print_report(running, self.image);
            }
            Order::Signal(Signal::Reopen) => log::reopen(),
            Order::Signal(Signal::Reload) => self.duties.reload(),
            Order::Leave => lifecycle::reach(Stage::Leaving),
            Order::Signal(Signal::Upgrade) => self.duties.upgrade(),
            Order::Signal(Signal::HandedOver) if !giving::has_given() => {}
            Order::Signal(Signal::HandedOver) | Order::HandOver => {
                return self.yield_to_another(phase, running);
            }
            Order::Change(change) => self.duties.change(change),
            Order::Signal(Signal::End | Signal::Gone) => return self.asked_to_end(phase, running, waits),
        }
        phase
    }

    /// The next step of the end, because it was asked for. `waits` says whether new clients are served for a
    /// while.
    fn asked_to_end(&self, phase: Phase, running: &Running<Failure>, waits: bool) -> Phase {
        match phase {
            Phase::Open => {
                let wait = self.times.drain_wait();
                if !waits || wait.is_zero() {
                    return self.close(running);
                }
                tracing::info!(?wait, "ending: new clients are not welcome, and still served");
                lifecycle::reach(Stage::Leaving);
                notify::tell(Message::leaving(wait, self.times.grace()));
                Phase::Leaving(Instant::now() + wait)
            }
            Phase::Leaving(_) => {
                self.close(running);
                running.cut();
                Phase::Cut
            }
            Phase::Closing(_) | Phase::Cut | Phase::Alone(_) => {
                running.cut();
                Phase::Cut
            }
        }
    }

    /// The time of a phase is over.
    fn over(&self, phase: Phase, running: &Running<Failure>) -> Phase {
        match phase {
            Phase::Leaving(_) => self.close(running),
            Phase::Closing(_) => {
                tracing::info!("the grace is over: cutting what still runs");
                running.cut();
                Phase::Cut
            }
            Phase::Alone(_) => {
                tracing::error!(patience = ?PATIENCE, "the starting process has gone, and a core does not end: leaving it");
                // SAFETY: ends the process and runs nothing of ours. Destructors and exit handlers might
                // wait for that core.
                unsafe { libc::_exit(1) };
            }
            Phase::Open | Phase::Cut => phase,
        }
    }

    /// Another program accepts from now on; what had connected to this one is served, and finishes.
    fn yield_to_another(&self, phase: Phase, running: &Running<Failure>) -> Phase {
        if phase != Phase::Open {
            return phase;
        }
        let most = self.times.upgrade_grace();
        lifecycle::replace();
        tracing::info!("another program accepts, what runs here may finish");
        lifecycle::reach(Stage::Draining);
        self.duties.stop_accepting();
        running.stop();
        Phase::Closing(Instant::now() + most)
    }

    /// Nothing new is accepted from now on.
    fn close(&self, running: &Running<Failure>) -> Phase {
        let grace = self.times.grace();
        tracing::info!(?grace, "ending: nothing new is accepted, what runs may finish");
        lifecycle::reach(Stage::Draining);
        notify::tell(Message::draining(self.times.grace()));
        self.duties.stop_accepting();
        running.stop();
        Phase::Closing(Instant::now() + grace)
    }
}

/// Waits for the cores' end, a signal or the deadline, and says whether it was the first.
fn wait(running: &Running<Failure>, orders: Option<&Orders>, deadline: Option<Instant>) -> io::Result<bool> {
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
    Ok(fds.first().is_some_and(|fd| !fd.revents().is_empty()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};
    use std::sync::Arc;

    use annulus::Runtime;
    use annulus::numa::thread::affinity_of_current;

    use super::*;
    use crate::processes::member::Member;

    /// Serves as a member whose one core runs `root`.
    fn serve_as_member<F: Future<Output = Result<(), Failure>> + 'static>(
        root: impl Fn() -> F + Clone + Send + Sync + 'static,
    ) {
        struct NoDuties;
        impl Duties for NoDuties {
            fn reload(&self) {}
            fn upgrade(&self) {}
            fn change(&self, _: Change) {}
            fn stop_accepting(&self) {}
        }
        let member = Member::take("0:0:1".parse().unwrap()).unwrap();
        let cpu = affinity_of_current().unwrap().first().unwrap();
        let runtime = Runtime::builder().cores(cpu.to_string().parse().unwrap()).pool_bytes(256 << 10);
        let runtime = runtime.build().unwrap();
        let plan = runtime.plan().clone();
        let running = runtime.start(root).unwrap();
        member.is_ready();
        let orders = Orders::Parent(Arc::new(member));
        let times = Times::of(0, 3600);
        let supervised =
            Supervised { plan: &plan, image: None, times: &times, figures: false, duties: &NoDuties };
        supervise(&supervised, running, orders).unwrap();
    }

    /// The process that one of the tests below is, once it is ready, and the other end of its line.
    fn member(test: &str) -> (std::process::Child, UnixStream) {
        let (mut line, theirs) = UnixStream::pair().unwrap();
        let process = Command::new("/proc/self/exe")
            .args(["--ignored", "--exact", &format!("supervise::tests::{test}")])
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        assert_eq!(io::Read::read(&mut line, &mut [0; 64]).unwrap(), 7, "it is ready, says a frame");
        (process, line)
    }

    /// Not a test: the process of one below. Its core waits for ever, in a system call.
    #[test]
    #[ignore = "a process of another test"]
    fn as_a_member_with_a_stuck_core() {
        serve_as_member(|| async {
            loop {
                std::thread::park();
            }
        });
        unreachable!("its core does not end");
    }

    /// Not a test: the process of one below. Its core does not end before it is cut.
    #[test]
    #[ignore = "a process of another test"]
    fn as_a_member_that_has_to_be_cut() {
        serve_as_member(std::future::pending);
    }

    /// Both orders come with one look at the line, after which nothing comes. Seen to fail, by waiting for
    /// ever: with one order for each wait.
    #[test]
    fn two_orders_in_one_write_are_both_obeyed() {
        let (mut process, mut line) = member("as_a_member_that_has_to_be_cut");
        let end = [1, 0, 0, 0, 0, 0, 0];
        io::Write::write_all(&mut line, &[end, end].concat()).unwrap();
        assert_eq!(process.wait().unwrap().code(), Some(0), "it was asked to end, and then cut");
        drop(line);
    }

    /// Seen to fail, by waiting for ever: without the limit.
    #[test]
    fn a_stuck_core_does_not_outlive_the_parent() {
        let (mut process, line) = member("as_a_member_with_a_stuck_core");
        drop(line);
        assert_eq!(process.wait().unwrap().code(), Some(1));
    }
}
