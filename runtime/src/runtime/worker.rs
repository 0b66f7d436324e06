//! A core's thread: brings the core up, turns its loop, and hands over to the [end](super::end).

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::mem::ManuallyDrop;
use std::panic::{Location, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use io_uring::{opcode, squeue, types};

use super::end;
use super::inside::Inside;
use super::options::Options;
use super::report::{CoreReport, HEAP, POOL};
use super::state::Arrival;
use crate::blocking::pool::BlockingPool;
use crate::buf::blocks::{BLOCK_SIZE, BlockPool};
use crate::buf::growth::{Growth, Terms};
use crate::buf::ring::BufRing;
use crate::core::inbox::Door;
use crate::core::peers::{self, BY_RING, Neighbour, POLLS_PER_RING, Peers};
use crate::core::sharded::Shards;
use crate::core::shared::CoreShared;
use crate::core::spin::Spin;
use crate::core::{Budget, Core};
use crate::net::zero_copy::ZeroCopy;
use crate::numa::plan::PlannedCore;
use crate::numa::pool::{Blocks, Share};
use crate::numa::thread::placement_of_current;
use crate::numa::verify;
use crate::op::Tag;
use crate::op::table::OpTable;
use crate::ring::{Cqe, Ring, RingOptions, Wait};
use crate::task::queue::Tasks;
use crate::task::{JoinHandle, Kept, Payload, Woken, bury, caught, panic_text, spawn_at};
use crate::time::timers::Timers;
use crate::time::wakes::Plan;
use crate::transfer::pipe::PipePool;
use crate::{Error, ErrorKind, Result};

/// Polls of tasks between two looks at the ring: all that were ready when the turn began, but no more than this.
const POLLS_PER_TURN: usize = 256;
/// Polls of tasks that other polls of the same turn woke: as long as nothing was asked of the kernel, they need not wait
/// for the ring, a look at which costs more than they do.
const POLLS_AT_LEAST: usize = 64;
/// States that the operation table holds before it has to move them.
const OPERATIONS: usize = 4096;
/// False for `scripts/instructions` only, which counts what it costs that polls can be seen from outside.
const SEEN: bool = cfg!(not(annulus_unseen));
/// The target of the spans around polls of tasks.
const POLLS: &str = "annulus::polls";

/// What a worker needs to come up.
pub(super) struct Plot {
    pub(super) core: PlannedCore,
    pub(super) shared: Arc<CoreShared>,
    pub(super) share: Share,
    pub(super) growth: Terms,
    pub(super) ring: RingOptions,
    pub(super) options: Options,
    /// Where the runtime was started: root futures go by this name.
    pub(super) started_at: &'static Location<'static>,
    /// The other cores, nearest first.
    pub(super) near: Vec<Neighbour>,
    pub(super) blocking: Arc<BlockingPool>,
    pub(super) timer_slack: Option<Duration>,
    pub(super) zero_copy_patience: Duration,
}

/// The thread of a core, from its first instruction to its last. Whatever panics in it, others wait for `arrival` only.
pub(super) fn run<F, Fut, E>(
    plot: Plot,
    root: &F,
    ready: Sender<Result<CoreReport>>,
    arrival: Arrival,
) -> Result<(), E>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<(), E>> + 'static,
    E: From<Error> + Send + 'static,
{
    let runtime = Arc::clone(&plot.shared.runtime);
    let started_at = plot.started_at;
    let up = contain(|| {
        // What the application logs on a core says on which.
        let span = tracing::info_span!("core", index = plot.core.index, cpu = plot.core.cpu.0);
        let inside = Inside::enter(span);
        block_sigpipe().map_err(|e| Error::io("cannot block SIGPIPE", e))?;
        Ok((inside, bring_up(plot)?))
    });
    let (inside, (core, report)) = match up {
        Ok(up) => up,
        Err(e) => {
            // The starter waits for one message of each core; if it has gone, so has everyone.
            drop(ready.send(Err(e)));
            arrival.arrive();
            return Ok(());
        }
    };
    // What the kernel may still write to is not freed because something has panicked.
    let core = ManuallyDrop::new(core);
    drop(ready.send(Ok(report)));
    drop(ready);
    let turned = if runtime.wait_at_gate() {
        core.peers.learn_rings();
        contain(|| Ok(Kept::new(turn_until_over(&core, root, started_at))))
    } else {
        Ok(Kept::new(Ok(())))
    };
    let mut faults = Faults::default();
    let result = faults.note(turned).unwrap_or_else(|| Kept::new(Ok(())));
    if faults.any() || result.get().is_some_and(Result::is_err) {
        faults.note(contain(|| Ok(runtime.cut())));
    }
    end::of_core(core, arrival, &mut faults);
    faults.note(contain(|| inside.leave().map_err(|payload| panicked("a core", payload))));
    // The error of the root future comes first; what it is made of is the application's.
    let result = result.take();
    match faults.first() {
        Some(e) if result.is_ok() => Err(e.into()),
        _ => result,
    }
}

/// What went wrong on a core outside its tasks: the first is its error. The panic hook has told of each.
#[derive(Default)]
pub(super) struct Faults(Option<Error>);

impl Faults {
    pub(super) fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|e| self.0.get_or_insert(e)).ok()
    }

    fn any(&self) -> bool {
        self.0.is_some()
    }

    fn first(self) -> Option<Error> {
        self.0
    }
}

/// Runs `f`; a panic becomes an error.
fn contain<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    caught(f).unwrap_or_else(|payload| Err(panicked("a core", payload)))
}

/// Splice and sendfile know no `MSG_NOSIGNAL`: a peer that has gone must be an `EPIPE` here, whatever the program does
/// with the signal elsewhere.
fn block_sigpipe() -> io::Result<()> {
    // SAFETY: a signal set on our stack, initialised by sigemptyset before it is used; the mask is this thread's own.
    let rc = unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut())
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(rc)) }
}

/// Makes everything that the core owns, on its own thread: what is allocated and touched here lies on its node.
fn bring_up(plot: Plot) -> Result<(Core, CoreReport)> {
    let Plot {
        core: planned,
        shared,
        mut share,
        growth,
        ring,
        blocking,
        options,
        timer_slack,
        started_at: _,
        zero_copy_patience,
        near,
    } = plot;
    let mut ring = Ring::new(ring, Some(planned.cpu.0), shared.counters.clone())?;
    let mut ranges = Vec::new();
    ranges.push((POOL, share.addresses()));
    for seen in [shared.addresses(), shared.counters.addresses()] {
        if placement_of_current().is_some() {
            verify::bring_home(seen.clone(), planned.memory);
        }
        ranges.push(("seen by others", seen));
    }
    ranges.extend(ring.memory());
    let too_small = || {
        Error::new(
            ErrorKind::Platform,
            "a core's share of its node's memory is too small; ask for less or free some",
        )
    };
    let bufs = BufRing::new(&mut ring, &mut share, &shared, &growth, options.receive())?;
    ranges.push(("buffer ring", bufs.descriptors()));
    let left = share.left() / BLOCK_SIZE * BLOCK_SIZE;
    let blocks = Blocks::new(share.carve(left.max(BLOCK_SIZE), 4096).ok_or_else(too_small)?, BLOCK_SIZE);
    let block_count = blocks.capacity();
    let blocks = BlockPool::new(blocks, |pieces| ring.register_buffers(pieces));
    if let Ok(stack) = verify::stack_of_current_thread() {
        ranges.push(("stack", stack));
    }
    for tls in verify::tls_of_current_thread() {
        ranges.push(("tls", tls));
    }
    let ops = OpTable::new(OPERATIONS);
    ranges.push(("operations", ops.memory()));
    ranges.extend(verify::heap_of_current_thread().map(|heap| (HEAP, heap)));
    let pool_limit = growth.limit.max(share.len());
    let growth = Growth::new(growth, planned.clone(), share.len());
    let report = CoreReport {
        core: planned,
        tid: rustix::thread::gettid().as_raw_nonzero().get(),
        ring: ring.features().clone(),
        thread: placement_of_current(),
        pool: share.region().placement().clone(),
        recv_buffers: bufs.shape(),
        blocks: (BLOCK_SIZE, block_count),
        pool_limit,
        grown: Vec::new(),
        not_grown: None,
        cachestat: crate::fs::has_cachestat(),
        options: options.clone(),
        ranges,
    };
    let peers = Peers::new(shared.runtime.members(), near);
    if shared.door.set(Door::open(ring.fd())).is_err() {
        return Err(Error::new(ErrorKind::Platform, "a core was brought up twice; report this"));
    }
    let spin = options.spin;
    let core = Core {
        shared,
        options,
        peers,
        shards: Shards::default(),
        tasks: Tasks::new(),
        budget: Budget::new(),
        busy_since: Cell::new(Instant::now()),
        spin: Spin::new(spin),
        timers: Timers::new(timer_slack),
        pipes: PipePool::new(),
        bufs,
        blocks,
        growth,
        blocking,
        zero_copy: ZeroCopy::new(zero_copy_patience),
        ops,
        ring,
    };
    Ok((core, report))
}

fn turn_until_over<F, Fut, E>(core: &Core, root: &F, started_at: &'static Location<'static>) -> Result<(), E>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<(), E>> + 'static,
    E: From<Error> + Send + 'static,
{
    let _entered = core.enter();
    core.arm_doorbell();
    // The closure runs inside the task: a panic in it is contained like any other.
    let mut root = match caught(root) {
        Ok(future) => spawn_at(started_at, future),
        Err(payload) => return Err(panicked("a root future", payload).into()),
    };
    let mut told = false;
    let runtime = &core.shared.runtime;
    loop {
        core.run_tasks()?;
        // Looked at before the core may sleep: nothing else would wake it to see this.
        if let Some(result) = finished(&mut root) {
            return result;
        }
        if !told && runtime.is_stopping() {
            told = true;
            core.tasks.wake_stop_waiters();
        }
        if runtime.is_cut() {
            return Ok(());
        }
        core.turn_ring()?;
    }
}

/// More than 584 years are as good as that many.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The error that names a panic of `what`.
pub(super) fn panicked(what: &str, payload: Payload) -> Error {
    let e = Error::new(ErrorKind::Panicked, format!("{what} panicked: {}", panic_text(&payload)));
    bury(payload);
    e
}

fn finished<E: From<Error>>(root: &mut JoinHandle<Result<(), E>>) -> Option<Result<(), E>> {
    if !root.is_finished() {
        return None;
    }
    match Pin::new(root).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => None,
        Poll::Ready(Ok(result)) => Some(result),
        Poll::Ready(Err(crate::task::JoinError::Panicked(payload))) => {
            Some(Err(panicked("a root future", payload).into()))
        }
        Poll::Ready(Err(crate::task::JoinError::Aborted)) => Some(Ok(())),
    }
}

impl Core {
    /// The first half of a turn: tasks that are ready now, and of those that they wake as many as there is time for.
    fn run_tasks(&self) -> Result<()> {
        let counters = &self.shared.counters;
        counters.turns.add(1);
        let pushed = self.ring.pushed();
        let ready = self.tasks.ready_len();
        counters.load.set(peers::smoothed(counters.load.get(), ready));
        let ready = ready.min(POLLS_PER_TURN);
        // Asked once a turn, so that what is off costs a poll one branch.
        let watched = SEEN
            && (self.options.measure_polls || tracing::span_enabled!(target: POLLS, tracing::Level::TRACE));
        let mut polls = 0;
        let mut entered = Ok(());
        while entered.is_ok() && polls < ready || (polls < POLLS_AT_LEAST && self.ring.pushed() == pushed) {
            let Some(task) = self.tasks.pop() else { break };
            self.budget.refill();
            if SEEN {
                self.shared.turn.begin(task.spawned_at());
            }
            if watched {
                self.run_watched(task);
            } else {
                task.0.run();
            }
            polls += 1;
            if polls % POLLS_PER_RING == 0 && self.peers.must_ring() {
                let before = self.ring.pushed();
                self.ring_peers();
                // Those that are awake need no signal.
                if self.ring.pushed() != before {
                    entered = self.ring.enter(Wait::No);
                }
            }
        }
        self.shared.turn.pause();
        counters.polls.add(polls as u64);
        entered
    }

    /// Polls a task in a span, and takes the time.
    #[cold]
    fn run_watched(&self, task: Woken) {
        let span = tracing::trace_span!(target: POLLS, "poll", spawned_at = %task.spawned_at());
        let begin = self.options.measure_polls.then(Instant::now);
        let inside = Inside::enter(span);
        task.0.run();
        if let Err(payload) = inside.leave() {
            resume_unwind(payload);
        }
        if let Some(begin) = begin {
            self.shared.counters.poll_ns.record(nanoseconds(begin.elapsed()));
        }
    }

    /// The second half: what other threads sent, then timers, then the ring, asleep if there is nothing else to do.
    fn turn_ring(&self) -> Result<()> {
        let counters = &self.shared.counters;
        for task in self.shared.woken.take_all() {
            counters.remote_wakes.add(1);
            self.tasks.push(task);
        }
        self.take_errands(POLLS_PER_TURN);
        self.growth.take(self);
        self.bufs.end_of_turn(self);
        self.growth.ask(self);
        self.timers.fire();
        self.ring_peers();
        if !self.tasks.is_idle() {
            self.enter_if_wanted()?;
        } else {
            self.park()?;
        }
        if self.ring.has_overflowed() {
            counters.cq_overflows.add(1);
        }
        let cqes = self.ring.reap(|cqe| self.dispatch(cqe));
        counters.cqes.add(cqes as u64);
        counters.cqes_per_turn.record(cqes as u64);
        counters.operations.set(self.ops.in_kernel() as u64);
        self.bufs.tell(counters);
        self.blocks.count(counters);
        Ok(())
    }

    /// Hands submissions over, and lets the kernel do what it has put off; nothing where there is neither.
    #[inline(always)]
    fn enter_if_wanted(&self) -> Result<()> {
        if self.ring.wants_enter() { self.ring.enter(Wait::No) } else { Ok(()) }
    }

    /// Sleeps until a completion, a timer or a ring of the doorbell.
    fn park(&self) -> Result<()> {
        if self.spin.is_worth_while() && self.find_work() {
            return self.enter_if_wanted();
        }
        let plan = self.next_wake();
        if let Some(plan) = plan.filter(Plan::is_near) {
            return self.sit_out(Instant::now() + plan.left());
        }
        let doorbell = self.shared.doorbell();
        doorbell.prepare_sleep();
        // The look that counts: whatever was put in place before this is found now or rings the bell.
        if self.must_not_sleep() {
            doorbell.cancel_sleep();
            return self.enter_if_wanted();
        }
        self.shared.counters.parks.add(1);
        let parked = (self.options.measure_time || self.spin.is_on()).then(Instant::now);
        // The time that submissions take is not the wake's.
        let submits = self.ring.wants_enter();
        let entered = self.ring.enter(plan.map_or(Wait::Forever, |plan| Wait::For(plan.sleep())));
        doorbell.cancel_sleep();
        let timer = plan.filter(|_| !self.ring.has_completions());
        if let Some(plan) = timer.filter(|_| !submits) {
            self.timers.slept(plan);
        }
        if let Some(parked) = parked {
            self.awake(parked, timer.is_none());
        }
        entered
    }

    /// A timer is due so soon that going to sleep and waking would take longer, and as much CPU: looks about until then.
    #[cold]
    fn sit_out(&self, due: Instant) -> Result<()> {
        self.enter_if_wanted()?;
        while !self.ring.has_completions() && !self.must_not_sleep() && Instant::now() < due {
            std::hint::spin_loop();
        }
        self.enter_if_wanted()
    }

    /// How the core sleeps if nothing happens: until the next timer, or until its memory may grow again.
    fn next_wake(&self) -> Option<Plan> {
        let grows = self.growth.asks_again_at();
        // The usual case, nothing to wake for, needs no clock.
        if self.timers.is_empty() && grows.is_none() {
            return None;
        }
        self.timers.next_wake(Instant::now(), grows)
    }

    /// Whether something waits that needs no completion.
    fn must_not_sleep(&self) -> bool {
        let runtime = &self.shared.runtime;
        !self.shared.woken.is_empty()
            || !self.has_no_errands()
            || self.bufs.must_not_sleep()
            || self.growth.has_ended()
            || runtime.is_cut()
            || self.must_tell_stop()
    }

    /// Hands the submissions over and looks about for a while. True: there is something to do.
    #[cold]
    fn find_work(&self) -> bool {
        let counters = &self.shared.counters;
        if self.enter_if_wanted().is_err() {
            // The enter that waits will fail as well, and say so.
            return false;
        }
        counters.spins.add(1);
        let due = self.next_wake().map(|plan| Instant::now() + plan.first());
        let found = self.spin.look(|| {
            self.ring.has_completions()
                || self.must_not_sleep()
                || due.is_some_and(|due| Instant::now() >= due)
        });
        counters.spins_won.add(found.into());
        found
    }

    /// The core was asleep since `parked`: adds that, and the time from the last sleep to this one.
    fn awake(&self, parked: Instant, by_others: bool) {
        let (counters, now) = (&self.shared.counters, Instant::now());
        // That a timer was near is no reason to look about for work.
        if by_others {
            self.spin.slept(now - parked);
        }
        if !self.options.measure_time {
            return;
        }
        counters.parked_ns.add(nanoseconds(now - parked));
        counters.busy_ns.add(nanoseconds(parked - self.busy_since.replace(now)));
    }

    /// Whether tasks wait for a stop that was asked for and that they have not been told of.
    fn must_tell_stop(&self) -> bool {
        self.shared.runtime.is_stopping() && self.tasks.has_stop_waiters()
    }

    /// One CQE.
    pub(crate) fn dispatch(&self, cqe: Cqe) {
        match Tag::split(cqe.user_data) {
            // A head that fails (it was cancelled) answers for the operation behind it, which then stays silent.
            Some((Tag::Op | Tag::LinkHead, bits)) => self.ops.complete(self, bits, cqe),
            // Only failures come: what became of the cancelled operation is told by its own CQE.
            Some((Tag::Cancel, _)) => {}
            // It had to end the sleep, and has done so.
            Some((Tag::Doorbell, BY_RING)) => {}
            Some((Tag::Doorbell, _)) => {
                if !cqe.more() && !self.tasks.is_ending() {
                    self.arm_doorbell();
                }
            }
            tag => self.dispatch_failure(tag, cqe),
        }
    }

    /// What a completion tells that is not expected. Out of line: its events would cost all others.
    #[cold]
    fn dispatch_failure(&self, tag: Option<(Tag, u64)>, cqe: Cqe) {
        let why = io::Error::from_raw_os_error(-cqe.result);
        match tag {
            Some((Tag::Close, fd)) => tracing::warn!("close of descriptor {fd}: {why}"),
            Some((Tag::Signal, peer)) => {
                tracing::info!(
                    "core {peer} is woken by its eventfd: its ring takes no message (IORING_OP_MSG_RING): {why}"
                );
                self.peers.ring_refused(peer as usize);
            }
            _ => tracing::error!("a CQE that nobody asked for: {cqe:?}"),
        }
    }

    /// Lets the ring watch the doorbell's eventfd. Multishot polls report each write (they are edge-triggered), so the
    /// counter need never be read.
    fn arm_doorbell(&self) {
        let entry = opcode::PollAdd::new(types::Fd(self.shared.bell_fd()), libc::POLLIN as u32)
            .multi(true)
            .build()
            .user_data(Tag::Doorbell.with(0));
        // SAFETY: a poll points to nothing, and the eventfd lives as long as the core's shared part.
        unsafe { self.ring.push(&entry) };
    }

    /// Closes a descriptor that nobody waits for, through the ring.
    pub(crate) fn close(&self, fd: std::os::fd::OwnedFd) {
        use std::os::fd::IntoRawFd;
        let fd = fd.into_raw_fd();
        let entry = opcode::Close::new(types::Fd(fd))
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Tag::Close.with(fd as u64));
        // SAFETY: a close points to nothing; the descriptor is ours and is given up here.
        unsafe { self.ring.push(&entry) };
    }
}
