//! The I/O of one direction of a relay. The [state machine](super::state) decides what it does.
//!
//! Small messages are copied and bulk is spliced, and a direction changes between the two as its stream does.
//! It begins with bulk, because a receive into buffers takes all that lies in the socket, so a short transfer
//! would be copied whole. Of a burst that may be one message as much as a receive buffer holds is copied, and
//! the rest is spliced. A stream of small messages is recognised after a few of them.
//!
//! A direction is polled by hand and is no async function, to be small: ten thousand idle relays have twenty
//! thousand of them. A direction that waits has one operation, whose memory lies in the core's table.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

mod copy;
mod discard;
mod splice;

use super::bursts::Bursts;
use super::calls::{asked, poll_asked};
use super::state::{Side, State, Step};
use crate::core::Core;
use crate::core::ask::InFlight;
use crate::net::SocketFd;
use crate::net::op::send::Send;
use crate::net::socket::Socket;
use crate::net::writing;
use crate::op::poll::PollOnce;
use crate::transfer::Road;
use crate::transfer::pipe::{Empty, Fill, Pipe};

/// The sockets and settings that a direction does its I/O with.
#[derive(Clone, Copy)]
pub(super) struct Joint<'a> {
    pub(super) from: &'a Rc<Socket>,
    pub(super) into: &'a Rc<Socket>,
    pub(super) road: Road,
    /// The direction's number, which is that of its source.
    pub(super) d: Side,
}

/// How bytes are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Receives into the core's buffers and sends from there. A message costs a completion and a call;
    /// spliced, it would cost a poll, a pipe and three calls.
    Copy,
    /// Ends the receive of [`Copy`](Self::Copy), which would take bytes that are to be spliced.
    StopReceiving,
    /// Splices.
    Splice,
}

/// The operation that a direction waits for.
enum Waits {
    Nothing,
    Readable(InFlight<PollOnce<SocketFd>>),
    Writable(InFlight<PollOnce<SocketFd>>),
    /// A send, and how many bytes of the buffer had left before it.
    Send(InFlight<Send<Rc<Socket>, Vec<u8>>>, u32),
    Fill(InFlight<Fill>),
    Empty(InFlight<Empty>),
}

/// The watch for a failure of a source from which nothing is taken.
enum Watch {
    Off,
    Armed(InFlight<PollOnce<SocketFd>>),
    /// It has reported. It learns nothing more.
    Done,
}

/// The reason why a direction stops carrying bytes.
pub(super) enum Failure {
    /// The source has ended, or failed.
    Source(Option<io::Error>),
    /// The target has failed.
    Target(io::Error),
}

/// One direction.
pub(super) struct Direction {
    step: Step,
    mode: Mode,
    waits: Waits,
    watch: Watch,
    /// The ticket among the tasks that wait to receive, when another waker waits already because the relay
    /// has moved to another task.
    reading: Option<u64>,
    /// A poll has reported that there is something to take.
    is_readable: bool,
    bursts: Bursts,
    pipe: Option<Rc<Pipe>>,
    /// Copied bytes that are not sent yet.
    rest: Vec<u8>,
}

impl Direction {
    pub(super) fn new() -> Self {
        Self {
            step: Step::Carry,
            // Bytes that were received before the relay go first.
            mode: Mode::StopReceiving,
            waits: Waits::Nothing,
            watch: Watch::Off,
            reading: None,
            is_readable: false,
            bursts: Bursts::default(),
            pipe: None,
            rest: Vec::new(),
        }
    }

    /// Whether it waits for its target to take bytes.
    pub(super) fn is_held_up(&self) -> bool {
        matches!(self.waits, Waits::Writable(_) | Waits::Send(..) | Waits::Empty(_))
    }

    /// Goes on until it has to wait, or has nothing to do. An error is only for the report, because the state
    /// knows of it already.
    pub(super) fn poll(
        &mut self,
        io: Joint<'_>,
        state: &mut State,
        cx: &mut Context<'_>,
    ) -> Option<(Side, io::Error)> {
        if self.awaits_message(io, state, cx) {
            return None;
        }
        loop {
            let step = state.next(io.d);
            if step != self.step && step != Step::Settle {
                // Nobody needs the operation under way any more.
                self.waits = Waits::Nothing;
                self.pipe = None;
                self.rest = Vec::new();
                self.step = step;
            }
            let polled = match step {
                Step::Carry => self.carry(io, state, cx),
                Step::Shut => {
                    self.shut(io, state);
                    Poll::Ready(Ok(()))
                }
                Step::Settle if self.settle(io, state, cx).is_pending() => Poll::Pending,
                Step::Settle => {
                    // The target takes no more of the bytes that it has not taken.
                    self.waits = Waits::Nothing;
                    Poll::Ready(Ok(()))
                }
                Step::Discard => self.discard(io, cx).map(Err),
                Step::Rest => Poll::Pending,
            };
            state.asked(io.d, matches!(self.waits, Waits::Send(..) | Waits::Empty(_)));
            match polled {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(Failure::Source(end))) => match end.or_else(|| hidden_failure(io, state)) {
                    None => state.ended(io.d),
                    Some(e) => {
                        state.cut(io.d);
                        return Some((io.d, e));
                    }
                },
                Poll::Ready(Err(Failure::Target(e))) => {
                    io.into.has_failed(&e);
                    state.refused(1 - io.d);
                    return Some((1 - io.d, e));
                }
            }
        }
        self.watch(io, state, cx)
    }

    /// Whether nothing has happened since it began to wait for a message. A relay is polled whole, and most
    /// polls are for its other direction.
    #[inline(always)]
    fn awaits_message(&self, io: Joint<'_>, state: &State, cx: &Context<'_>) -> bool {
        self.mode == Mode::Copy
            && self.step == Step::Carry
            && matches!(self.waits, Waits::Nothing)
            && !matches!(self.watch, Watch::Armed(_))
            && self.rest.is_empty()
            && io.from.still_waits(cx)
            && state.next(io.d) == Step::Carry
    }

    /// Gives what it holds, and takes more, until it has to wait.
    fn carry(&mut self, io: Joint<'_>, state: &mut State, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        loop {
            if !matches!(self.waits, Waits::Nothing) {
                ready!(self.settle(io, state, cx))?;
                // The rest of a send that was cut short may be under way.
                continue;
            }
            if !self.rest.is_empty() {
                let send = Send {
                    socket: Rc::clone(io.into),
                    buf: std::mem::take(&mut self.rest),
                    from: 0,
                    flags: 0,
                };
                self.waits = Waits::Send(asked(send, cx), 0);
                continue;
            }
            if self.pipe.as_ref().is_some_and(|pipe| pipe.held() > 0) {
                ready!(Core::with(|core| core.budget.poll(cx)));
                self.empty(io, state, cx).map_err(Failure::Target)?;
                continue;
            }
            if !state.may_take(io.d) {
                return Poll::Ready(Ok(()));
            }
            match self.mode {
                Mode::Copy => ready!(self.copy(io, state, cx))?,
                Mode::StopReceiving => ready!(self.stop_receiving(io, state, cx))?,
                Mode::Splice => self.fill(io, state, cx)?,
            }
        }
    }

    /// Waits for the operation under way, and takes its result in.
    fn settle(
        &mut self,
        io: Joint<'_>,
        state: &mut State,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        match std::mem::replace(&mut self.waits, Waits::Nothing) {
            Waits::Nothing => return Poll::Ready(Ok(())),
            Waits::Readable(mut asked) => match poll_asked(&mut asked, cx) {
                Poll::Pending => self.waits = Waits::Readable(asked),
                Poll::Ready(polled) => {
                    self.is_readable = true;
                    return Poll::Ready(polled.map_err(|e| Failure::Source(Some(e))));
                }
            },
            Waits::Writable(mut asked) => match poll_asked(&mut asked, cx) {
                Poll::Pending => self.waits = Waits::Writable(asked),
                Poll::Ready(polled) => return Poll::Ready(polled.map_err(Failure::Target)),
            },
            Waits::Send(mut asked, from) => match poll_asked(&mut asked, cx) {
                Poll::Pending => self.waits = Waits::Send(asked, from),
                Poll::Ready((sent, buf)) => {
                    let from = from as usize;
                    return Poll::Ready(self.sent(io, state, cx, sent, buf, from).map_err(Failure::Target));
                }
            },
            Waits::Fill(mut asked) => match poll_asked(&mut asked, cx) {
                Poll::Pending => self.waits = Waits::Fill(asked),
                Poll::Ready(answer) => {
                    let filled = self.pipe.as_ref().expect("it is being filled").filled(answer);
                    return Poll::Ready(self.filled(io, state, filled));
                }
            },
            Waits::Empty(mut asked) => match poll_asked(&mut asked, cx) {
                Poll::Pending => self.waits = Waits::Empty(asked),
                Poll::Ready(answer) => {
                    let emptied = self.pipe.as_ref().expect("it is being emptied").emptied(answer);
                    return Poll::Ready(self.emptied(io, state, emptied).map_err(Failure::Target));
                }
            },
        }
        Poll::Pending
    }

    /// Takes the result of a send, and sends what is left of the buffer.
    fn sent(
        &mut self,
        io: Joint<'_>,
        state: &mut State,
        cx: &mut Context<'_>,
        sent: io::Result<usize>,
        buf: Vec<u8>,
        from: usize,
    ) -> io::Result<()> {
        let n = writing::sent(io.into, sent)?;
        state.gave(io.d, n as u64);
        count_copied(state, n);
        let from = from + n;
        if from < buf.len() {
            let send = Send { socket: Rc::clone(io.into), buf, from, flags: 0 };
            // It is of what was taken at once, which is less than 4 GiB by far.
            self.waits = Waits::Send(asked(send, cx), from as u32);
        }
        Ok(())
    }

    /// Shuts the target's write side down.
    fn shut(&mut self, io: Joint<'_>, state: &mut State) {
        match io.into.shutdown(std::net::Shutdown::Write) {
            Ok(()) => state.shut(1 - io.d),
            // `ENOTCONN`: the connection has gone altogether, and with it the bytes that were not
            // acknowledged.
            Err(_) => state.refused(1 - io.d),
        }
    }
}

/// The failure of a source that seems to have ended in order, if it was one.
fn hidden_failure(io: Joint<'_>, state: &State) -> Option<io::Error> {
    let failure = if state.may_have_failed(io.d) { io.from.failure() } else { io.from.cut_off() };
    failure.map(io::Error::from_raw_os_error)
}

/// So many bytes that were given had been copied.
fn count_copied(state: &mut State, n: usize) {
    state.count_copied(n as u64);
    Core::with(|core| core.shared.counters.relay_bytes_copied.add(n as u64));
}
