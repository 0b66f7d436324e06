//! The queues of a played ring, and what happens during an enter.

use std::io;

use io_uring::{squeue, types};

use super::Simulation;
use super::sqe::Sqe;
use super::state::State;
use crate::core::Core;
use crate::ring::played::Player;
use crate::ring::{Cqe, RingFeatures, Wait};

/// Workers of io-wq, in the report.
const IOWQ: [u32; 2] = [4, 8];

/// Nanoseconds that pass on any machine while the kernel has something to do.
const A_WHILE: u64 = 250_000_000;

fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

impl Player for Simulation {
    fn push(&self, entries: &[squeue::Entry]) -> bool {
        let mut state = self.state.borrow_mut();
        if state.sq.len() + entries.len() > state.sq_entries {
            return false;
        }
        let sqes: Vec<_> = entries.iter().map(Sqe::of).collect();
        for (at, sqe) in sqes.iter().enumerate() {
            // The head of a pair has the key of the operation behind it.
            let is_new = at + 1 == sqes.len();
            if let Some(key) = sqe.key()
                && is_new
                && let Some(of) = state.spoken_of.insert(key, sqe.name())
            {
                state.fail(format!(
                    "{} has key {key:x}, of which the kernel may still speak: {of}",
                    sqe.name()
                ));
            }
        }
        state.sq.extend(sqes);
        true
    }

    fn unsubmitted(&self) -> usize {
        self.state.borrow().sq.len()
    }

    fn completions(&self) -> usize {
        self.state.borrow().completions()
    }

    fn has_completions(&self) -> bool {
        let state = self.state.borrow();
        state.completions() > 0 || state.taskrun
    }

    fn has_overflowed(&self) -> bool {
        !self.state.borrow().overflow.is_empty()
    }

    fn next(&self) -> Option<Cqe> {
        self.state.borrow_mut().take()
    }

    fn enter(&self, to_submit: usize, wait: Wait) -> io::Result<()> {
        let entered = {
            let mut state = self.state.borrow_mut();
            state.now = self.now();
            state.steps += 1;
            check(&mut state, wait);
            let entered = enter(&mut state, to_submit, wait);
            self.set(state.now);
            entered
        };
        self.stop_if_failed();
        entered
    }

    fn register_buf_ring(&self, address: u64, slots: u16, flags: u16) -> io::Result<()> {
        let is_incremental = flags == types::IOU_PBUF_RING_INC as u16;
        if flags != 0 && !is_incremental {
            return Err(error(libc::EINVAL));
        }
        self.state.borrow_mut().buffers.register(address, slots, is_incremental);
        Ok(())
    }

    fn unregister_buf_ring(&self) -> io::Result<()> {
        self.state.borrow_mut().buffers.unregister();
        Ok(())
    }

    fn offers_bundles(&self) -> bool {
        true
    }

    fn features(&self) -> RingFeatures {
        let state = self.state.borrow();
        RingFeatures {
            sq_entries: state.sq_entries as u32,
            cq_entries: 256,
            no_sqarray: true,
            registered_fd: false,
            no_iowait: true,
            iowq_pinned: false,
            iowq_max_workers: IOWQ,
            fixed_buffers: false,
            zc_report: state.random.once_in(2),
            sqpoll: None,
            busy_poll: false,
            min_wait: false,
            incremental_buffers: false,
            bundles: false,
            bundle_limit: false,
            sealed: false,
            lacks: Vec::new(),
        }
    }

    fn lacks_descriptors(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let lacks = state.random.once_in(30);
        if lacks {
            state.lacked += 1;
            state.tell(format_args!("no descriptor is left for a socket or a pipe"));
        }
        lacks
    }
}

/// What must hold whenever the core enters.
fn check(state: &mut State, wait: Wait) {
    if let Err(wrong) = state.buffers.look() {
        state.fail(wrong);
    }
    if state.is_too_long() {
        state.fail(format!("no end after {} steps", state.steps));
    }
    let (spoken_of, offered) = (state.spoken_of.len(), state.buffers.len() + state.untaken_buffers());
    let asleep = wait != Wait::No;
    let wrong = Core::try_with(|core| {
        let in_kernel = core.ops.in_kernel();
        // While CQEs are being handled the core may be behind.
        if in_kernel < spoken_of || asleep && in_kernel != spoken_of {
            return Some(format!("the core counts {in_kernel} operations, the kernel {spoken_of}"));
        }
        if core.fairness.stands_twice() {
            return Some("a stream stands twice in the queue for buffers".to_owned());
        }
        if !asleep || core.tasks.is_ending() {
            return None;
        }
        if !core.tasks.is_idle() {
            return Some("the core sleeps although a task is ready".to_owned());
        }
        if core.pipes.idle_bytes() > 0 {
            return Some("a pipe that nobody has is not empty".to_owned());
        }
        let counted = usize::from(core.bufs.offered());
        (counted != offered)
            .then(|| format!("the core counts {counted} buffers in the ring, the kernel {offered}"))
    });
    if let Some(wrong) = wrong.flatten() {
        state.fail(wrong);
    }
}

fn enter(state: &mut State, to_submit: usize, wait: Wait) -> io::Result<()> {
    state.tell(format_args!("enter with {to_submit}, {wait:?}"));
    if !state.overflow.is_empty() && state.random.once_in(3) {
        state.flush_overflow();
        return Err(error(libc::EBUSY));
    }
    if state.random.once_in(250) {
        return Err(error(libc::EAGAIN));
    }
    let all = !state.random.once_in(40);
    let count = if all { to_submit } else { state.random.below(to_submit as u64 + 1) as usize };
    state.submit(count);
    state.flush_overflow();
    if count < to_submit {
        // The kernel does not wait then.
        return Ok(());
    }
    let entered = match wait {
        Wait::No => {
            // The core worked for a while; and now and then for so long that much has come.
            state.now += state.random.below(20_000);
            let events = if state.random.once_in(40) { 80 } else { state.random.pick(&[0, 0, 1, 1, 2, 5]) };
            for _ in 0..events {
                let events = state.events();
                if events.is_empty() {
                    break;
                }
                let event = state.random.pick(&events);
                state.happen(event);
            }
            Ok(())
        }
        Wait::Forever => sleep(state, None),
        Wait::For(time) => {
            let deadline = state.now.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
            sleep(state, Some(deadline))
        }
    };
    let has_work = state.running.iter().any(|op| state.is_ready(op));
    state.taskrun = has_work && state.random.once_in(4);
    entered
}

/// Waits until there is a completion, or the deadline.
fn sleep(state: &mut State, deadline: Option<u64>) -> io::Result<()> {
    let gathers = if state.random.once_in(30) { 60 } else { 2 };
    loop {
        let came = state.completions() > 0;
        if came && state.random.once_in(gathers) {
            return Ok(());
        }
        let events = state.events();
        let is_near = |deadline: u64| state.leaps || deadline - state.now.min(deadline) <= A_WHILE;
        let passes = deadline.is_some_and(is_near) && state.random.once_in(12);
        if !came && (passes || events.is_empty()) {
            let next = if events.is_empty() { state.next_wake() } else { None };
            match (next, deadline) {
                (Some(next), deadline) if deadline.is_none_or(|deadline| next < deadline) => {
                    state.now = next;
                    continue;
                }
                (_, Some(deadline)) => {
                    state.now = state.now.max(deadline);
                    return Err(error(libc::ETIME));
                }
                _ => {
                    let waits = waits(state);
                    state.fail(format!("the core sleeps for ever: {waits}"));
                    return Ok(());
                }
            }
        }
        if events.is_empty() {
            return Ok(());
        }
        if !came && state.random.once_in(80) {
            return Err(error(libc::EINTR));
        }
        state.now += state.random.below(20_000);
        let event = state.random.pick(&events);
        state.happen(event);
    }
}

/// What must hold when the core has ended.
pub(super) fn at_rest(state: &State) -> Result<(), String> {
    let left = state.running.iter().any(|op| op.sqe.key().is_some());
    if left { Err(format!("at the end: {}", waits(state))) } else { Ok(()) }
}

/// What the kernel has, for the message of a failure.
fn waits(state: &State) -> String {
    let ops = state.running.iter().map(|op| match op.conn {
        Some(at) => format!("{} on {at}", op.sqe.name()),
        None => op.sqe.name().to_owned(),
    });
    let conns = state.conns.iter().filter(|conn| !conn.closed && !conn.gone).map(|conn| {
        format!(
            "{}: {} of {} came, {} taken, {} sent",
            conn.id, conn.arrived, conn.peer.total, conn.taken, conn.sent
        )
    });
    format!("{:?}, {:?}", ops.collect::<Vec<_>>(), conns.collect::<Vec<_>>())
}
