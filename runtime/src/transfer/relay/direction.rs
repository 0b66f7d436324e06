//! The I/O of one direction of a relay. What it is to do is the [state machine](super::state)'s choice.
//!
//! Small messages are copied and bulk is spliced, by turns as the stream has them. It begins as bulk: a receive into
//! buffers takes all that lies in the socket, so a short transfer would be copied whole, and what is talk is known after a
//! few words.
//!
//! A direction is polled by hand and not an async function: ten thousand idle relays are twenty thousand of these, and
//! what waits is one operation, whose memory lies in the core's table.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::super::Road;
use super::super::pipe::{Empty, Fill, Pipe};
use super::state::{Side, State, Step};
use crate::buf::ring::BUFFER_SIZE;
use crate::core::Core;
use crate::core::ask::{Asked, Finished};
use crate::core::pipe_pool::is_lack;
use crate::error::os;
use crate::net::SocketFd;
use crate::net::op::send::Send;
use crate::net::socket::Socket;
use crate::net::sys::delivery;
use crate::net::writing::{self, send_now};
use crate::op::poll::{PollOnce, Ready};
use crate::op::Operation;

/// Bytes that fill a receive buffer: so much at once is bulk, and worth a pipe.
const BULK: usize = BUFFER_SIZE;
/// So many bursts of less, one after the other, and it is bulk no longer.
const SMALL_BURSTS: u16 = 3;
/// Most of what is thrown away before others get a turn, in receives.
const DISCARDS: u32 = 16;

/// What a direction does its I/O on.
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
enum Manner {
    /// Receiving into the core's buffers, to be sent on from there. A message costs a completion and a call; spliced, it
    /// would cost a poll, a pipe and three calls.
    Talk,
    /// Ending the receive of [`Talk`](Self::Talk), which would take what is to be spliced.
    Quieting,
    /// By splicing.
    Bulk,
}

/// What the kernel was asked for.
enum InFlight {
    Nothing,
    Readable(Asked<PollOnce<SocketFd>>),
    Writable(Asked<PollOnce<SocketFd>>),
    /// A send, and how many bytes of the buffer had left before it.
    Send(Asked<Send<Vec<u8>>>, usize),
    Fill(Asked<Fill>),
    Empty(Asked<Empty>),
}

/// The look-out for the failure of a source from which nothing is taken.
enum Watch {
    Off,
    Armed(Asked<PollOnce<SocketFd>>),
    /// It has spoken: nothing more is to be learned.
    Spoken,
}

/// What ends a direction's carrying.
pub(super) enum Failure {
    /// The source has ended, or failed.
    Source(Option<io::Error>),
    /// The target has failed.
    Target(io::Error),
}

/// One direction.
pub(super) struct Direction {
    step: Step,
    manner: Manner,
    in_flight: InFlight,
    watch: Watch,
    /// A poll has promised something to take.
    is_promised: bool,
    bursts: Bursts,
    pipe: Option<Rc<Pipe>>,
    /// Copied bytes that are still to be sent.
    rest: Vec<u8>,
    /// Bytes that were copied through user memory.
    pub(super) copied: u64,
}

impl Direction {
    pub(super) fn new() -> Self {
        Self {
            step: Step::Carry,
            // What was received before the relay goes first.
            manner: Manner::Quieting,
            in_flight: InFlight::Nothing,
            watch: Watch::Off,
            is_promised: false,
            bursts: Bursts::default(),
            pipe: None,
            rest: Vec::new(),
            copied: 0,
        }
    }

    /// Goes on until it has to wait, or has nothing to do. An error is for the report; the state knows of it already.
    pub(super) fn poll(
        &mut self,
        io: Joint<'_>,
        state: &mut State,
        cx: &mut Context<'_>,
    ) -> Option<(Side, io::Error)> {
        loop {
            let step = state.next(io.d);
            if step != self.step {
                // What was under way is for nobody any more.
                self.in_flight = InFlight::Nothing;
                self.pipe = None;
                self.rest = Vec::new();
                self.step = step;
            }
            let polled = match step {
                Step::Carry => self.carry(io, state, cx),
                Step::Shut => {
                    self.shut(io, state);
                    continue;
                }
                Step::Discard => self.discard(io, cx).map(Err),
                Step::Rest => Poll::Pending,
            };
            match polled {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(Failure::Source(None))) => state.ended(io.d),
                Poll::Ready(Err(Failure::Source(Some(e)))) => {
                    state.cut(io.d);
                    return Some((io.d, e));
                }
                Poll::Ready(Err(Failure::Target(e))) => {
                    io.into.has_failed(&e);
                    state.refused(1 - io.d);
                    return Some((1 - io.d, e));
                }
            }
        }
        self.watch(io, state, cx)
    }

    /// Gives what is held, and takes more, until something has to be waited for.
    fn carry(&mut self, io: Joint<'_>, state: &mut State, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        loop {
            ready!(self.settle(io, state, cx))?;
            if !self.rest.is_empty() {
                let send = Send {
                    socket: Rc::clone(io.into),
                    buf: std::mem::take(&mut self.rest),
                    from: 0,
                    flags: 0,
                };
                self.in_flight = InFlight::Send(asked(send, cx), 0);
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
            match self.manner {
                Manner::Talk => ready!(self.talk(io, state, cx))?,
                Manner::Quieting => ready!(self.quiet(io, state, cx))?,
                Manner::Bulk => self.fill(io, state, cx)?,
            }
        }
    }

    /// Waits for what the kernel was asked for, and takes its answer in.
    fn settle(
        &mut self,
        io: Joint<'_>,
        state: &mut State,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        match std::mem::replace(&mut self.in_flight, InFlight::Nothing) {
            InFlight::Nothing => return Poll::Ready(Ok(())),
            InFlight::Readable(mut asked) => match poll_asked(&mut asked, cx) {
                Poll::Pending => self.in_flight = InFlight::Readable(asked),
                Poll::Ready(polled) => {
                    self.is_promised = true;
                    return Poll::Ready(polled.map_err(|e| Failure::Source(Some(e))));
                }
            },
            InFlight::Writable(mut asked) => match poll_asked(&mut asked, cx) {
                Poll::Pending => self.in_flight = InFlight::Writable(asked),
                Poll::Ready(polled) => return Poll::Ready(polled.map_err(Failure::Target)),
            },
            InFlight::Send(mut asked, from) => match poll_asked(&mut asked, cx) {
                Poll::Pending => self.in_flight = InFlight::Send(asked, from),
                Poll::Ready((sent, buf)) => {
                    return Poll::Ready(self.sent(io, state, cx, sent, buf, from).map_err(Failure::Target));
                }
            },
            InFlight::Fill(mut asked) => match poll_asked(&mut asked, cx) {
                Poll::Pending => self.in_flight = InFlight::Fill(asked),
                Poll::Ready(answer) => {
                    let filled = self.pipe.as_ref().expect("it is being filled").filled(answer);
                    return Poll::Ready(self.filled(io, state, filled));
                }
            },
            InFlight::Empty(mut asked) => match poll_asked(&mut asked, cx) {
                Poll::Pending => self.in_flight = InFlight::Empty(asked),
                Poll::Ready(answer) => {
                    let emptied = self.pipe.as_ref().expect("it is being emptied").emptied(answer);
                    return Poll::Ready(self.emptied(io, state, emptied).map_err(Failure::Target));
                }
            },
        }
        Poll::Pending
    }

    /// A send has answered: sends what is left of the buffer.
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
        self.count_copied(n);
        let from = from + n;
        if from < buf.len() {
            let send = Send { socket: Rc::clone(io.into), buf, from, flags: 0 };
            self.in_flight = InFlight::Send(asked(send, cx), from);
        }
        Ok(())
    }

    /// Takes a message and sends it on at once. No lease lies in the relay: a side that does not read must not hold the
    /// core's buffers, and what it has no room for waits in memory of the heap. Where the core has no buffer left the relay
    /// waits for none: splicing needs none, and who holds them may wait for what this relay brings.
    fn talk(&mut self, io: Joint<'_>, state: &mut State, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let polled = Core::with(|core| {
            let polled = io.from.poll_recv(core, cx);
            if polled.is_pending() && io.from.is_starved() {
                if core.fairness.is_starving(core) {
                    return None;
                }
                // Its turn for a buffer comes when this turn of the core ends, or others take them all: to be looked at
                // again.
                cx.waker().wake_by_ref();
            }
            Some(polled)
        });
        let Some(polled) = polled else {
            self.manner = Manner::Quieting;
            return Poll::Ready(Ok(()));
        };
        let chunk = match ready!(polled) {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Poll::Ready(Err(Failure::Source(None))),
            Err(e) => return Poll::Ready(Err(Failure::Source(Some(e)))),
        };
        state.took(io.d, chunk.len() as u64);
        let sent = send_now(io.into, &chunk, 0).map_err(Failure::Target)?;
        state.gave(io.d, sent as u64);
        self.count_copied(sent);
        if sent < chunk.len() || chunk.len() >= BULK {
            self.rest = chunk[sent..].to_vec();
            self.manner = Manner::Quieting;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends receiving into buffers, and takes what had come that way.
    fn quiet(&mut self, io: Joint<'_>, state: &mut State, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        ready!(Core::with(|core| io.from.poll_quiet(core, cx)));
        self.manner = Manner::Bulk;
        while let Some(chunk) = Core::with(|core| io.from.take_chunk(core)) {
            state.took(io.d, chunk.len() as u64);
            let sent = if self.rest.is_empty() {
                send_now(io.into, &chunk, 0).map_err(Failure::Target)?
            } else {
                0
            };
            state.gave(io.d, sent as u64);
            self.count_copied(sent);
            self.rest.extend_from_slice(&chunk[sent..]);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes by splicing: the pipe is had when bytes are there.
    fn fill(&mut self, io: Joint<'_>, state: &mut State, cx: &mut Context<'_>) -> Result<(), Failure> {
        let source = |e| Failure::Source(Some(e));
        let pipe = match &self.pipe {
            Some(pipe) => pipe,
            None => {
                // The kernel tells an error once. If the receive that was armed took it, splicing would find a clean end.
                match io.from.over() {
                    Some(Some(errno)) => return Err(source(io::Error::from_raw_os_error(errno))),
                    Some(None) => return Err(Failure::Source(None)),
                    None => {}
                }
                if !self.is_promised {
                    self.in_flight = InFlight::Readable(wait(io.from, Ready::Read, cx));
                    return Ok(());
                }
                match Pipe::take() {
                    Ok(pipe) => self.pipe.insert(pipe),
                    Err(e) if is_lack(&e) => {
                        self.is_promised = false;
                        // It was less than bulk: there was no room for more.
                        let found = self.copy_some(io, state).map_err(Failure::Source)?;
                        if found && self.bursts.over() {
                            self.manner = Manner::Talk;
                        }
                        return Ok(());
                    }
                    Err(e) => return Err(source(e)),
                }
            }
        };
        match io.road {
            Road::Inline => {
                let filled = pipe.fill_now(io.from.fd(), None, pipe.size());
                self.filled(io, state, filled)
            }
            Road::Ring => {
                self.in_flight = InFlight::Fill(Core::with(|core| {
                    pipe.ask_to_fill(core, SocketFd(Rc::clone(io.from)), cx.waker())
                }));
                Ok(())
            }
        }
    }

    /// What a splice into the pipe has come to.
    fn filled(&mut self, io: Joint<'_>, state: &mut State, filled: io::Result<usize>) -> Result<(), Failure> {
        let was_promised = std::mem::replace(&mut self.is_promised, false);
        match filled {
            Ok(n) if n > 0 => {
                state.took(io.d, n as u64);
                self.bursts.add(n);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => self.is_promised = was_promised,
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(Failure::Source(Some(e))),
            // The end, or so it seems, or nothing where a poll has promised something: see `copy_some`.
            end => {
                self.pipe = None;
                if end.is_ok() || was_promised || io.road == Road::Ring {
                    self.copy_some(io, state).map_err(Failure::Source)?;
                }
                self.burst_is_over();
            }
        }
        Ok(())
    }

    /// Gives by splicing.
    fn empty(&mut self, io: Joint<'_>, state: &mut State, cx: &mut Context<'_>) -> io::Result<()> {
        let pipe = self.pipe.as_ref().expect("something is in it");
        match io.road {
            Road::Inline => {
                let emptied = pipe.empty_now(io.into.fd(), false);
                if emptied.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock) {
                    self.in_flight = InFlight::Writable(wait(io.into, Ready::Write, cx));
                }
                Core::with(|core| core.budget.spend());
                self.emptied(io, state, emptied)
            }
            Road::Ring => {
                self.in_flight = InFlight::Empty(Core::with(|core| {
                    pipe.ask_to_empty(core, SocketFd(Rc::clone(io.into)), cx.waker())
                }));
                Ok(())
            }
        }
    }

    /// What a splice out of the pipe has come to.
    fn emptied(&mut self, io: Joint<'_>, state: &mut State, emptied: io::Result<usize>) -> io::Result<()> {
        let n = match emptied {
            Ok(n) => n as u64,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        state.gave(io.d, n);
        Core::with(|core| match io.road {
            Road::Inline => core.shared.counters.relay_bytes_inline.add(n),
            Road::Ring => core.shared.counters.relay_bytes_ring.add(n),
        });
        // By the ring each burst has a pipe of its own: what comes next is waited for, and a relay that waits holds none.
        if io.road == Road::Ring && state.held(io.d) == 0 {
            self.pipe = None;
            self.burst_is_over();
        }
        Ok(())
    }

    fn burst_is_over(&mut self) {
        if self.bursts.over() {
            self.manner = Manner::Talk;
        }
    }

    /// Receives by copying, once: where no pipe can be had, and where splicing has come to its limits. Whether there was
    /// anything; the end of the source as an error.
    ///
    /// Splicing from a TCP socket stops before an urgent byte (`send(2)`, MSG_OOB): it gives `EAGAIN` for ever while a poll
    /// says that there is something, and after the peer's end it gives 0 with bytes still queued. A plain receive passes the
    /// mark (the urgent byte itself is not part of the stream, `tcp(7)`), so it is asked before either is believed. Seen on
    /// 6.18: without this a client that sent one urgent byte made the relay spin, and what it sent afterwards was lost.
    fn copy_some(&mut self, io: Joint<'_>, state: &mut State) -> Result<bool, Option<io::Error>> {
        let mut found = [0; 4096];
        let n = receive(io.from, &mut found)?;
        state.took(io.d, n as u64);
        self.rest.extend_from_slice(&found[..n]);
        Ok(n > 0)
    }

    /// Sends the target the end.
    fn shut(&mut self, io: Joint<'_>, state: &mut State) {
        match io.into.shutdown(std::net::Shutdown::Write) {
            Ok(()) => state.shut(1 - io.d),
            // `ENOTCONN`: the connection has gone altogether, and with it what was not acknowledged.
            Err(_) => state.refused(1 - io.d),
        }
    }

    /// Takes what comes and throws it away, until the end comes.
    fn discard(&mut self, io: Joint<'_>, cx: &mut Context<'_>) -> Poll<Failure> {
        if self.manner != Manner::Bulk {
            ready!(Core::with(|core| io.from.poll_quiet(core, cx)));
            while Core::with(|core| io.from.take_chunk(core)).is_some() {}
            self.manner = Manner::Bulk;
        }
        match io.from.over() {
            Some(end) => return Poll::Ready(Failure::Source(end.map(io::Error::from_raw_os_error))),
            None => {}
        }
        loop {
            if let InFlight::Readable(polled) = &mut self.in_flight {
                let polled = ready!(poll_asked(polled, cx));
                self.in_flight = InFlight::Nothing;
                if let Err(e) = polled {
                    return Poll::Ready(Failure::Source(Some(e)));
                }
            }
            for _ in 0..DISCARDS {
                match receive(io.from, &mut [0; 4096]) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(end) => return Poll::Ready(Failure::Source(end)),
                }
            }
            self.in_flight = InFlight::Readable(wait(io.from, Ready::Read, cx));
        }
    }

    /// Looks out for the failure of the source while the target has no room. What was received before the failure is still to
    /// be taken. The ring's poll speaks of a source's end too, and then of nothing more.
    fn watch(&mut self, io: Joint<'_>, state: &mut State, cx: &mut Context<'_>) -> Option<(Side, io::Error)> {
        let is_blocked =
            matches!(self.in_flight, InFlight::Writable(_) | InFlight::Send(..) | InFlight::Empty(_));
        match &mut self.watch {
            Watch::Off if is_blocked => {
                self.watch = Watch::Armed(wait(io.from, Ready::Gone, cx));
            }
            Watch::Off | Watch::Spoken => return None,
            Watch::Armed(_) => {}
        }
        let Watch::Armed(polled) = &mut self.watch else { return None };
        if poll_asked(polled, cx).is_pending() {
            return None;
        }
        self.watch = Watch::Spoken;
        if delivery(io.from.fd()).is_some_and(|delivery| delivery.is_closed) && state.may_be_given(io.d) {
            // The kernel tells an error once, and an operation that is dropped now may have been told.
            let e = io::Error::from_raw_os_error(libc::ECONNRESET);
            io.from.has_failed(&e);
            state.refused(io.d);
            return Some((io.d, e));
        }
        None
    }

    fn count_copied(&mut self, n: usize) {
        self.copied += n as u64;
        Core::with(|core| core.shared.counters.relay_bytes_copied.add(n as u64));
    }
}

/// How much comes at once, and whether that is still bulk.
#[derive(Default)]
struct Bursts {
    /// Of the burst that goes on, up to [`BULK`].
    bytes: u16,
    small: u16,
}

impl Bursts {
    fn add(&mut self, n: usize) {
        self.bytes = n.saturating_add(self.bytes.into()).min(BULK) as u16;
    }

    /// A burst has ended: true when there were too many small ones.
    fn over(&mut self) -> bool {
        let is_small = usize::from(std::mem::take(&mut self.bytes)) < BULK;
        self.small = if is_small { self.small + 1 } else { 0 };
        self.small >= SMALL_BURSTS
    }
}

/// What is there: 0 where nothing is. The end, or what has cut the connection, as an error.
fn receive(from: &Socket, into: &mut [u8]) -> Result<usize, Option<io::Error>> {
    match rustix::net::recv(from.fd(), into, rustix::net::RecvFlags::DONTWAIT).map_err(os) {
        Ok((0, _)) => Err(from.has_ended().map(io::Error::from_raw_os_error)),
        Ok((n, _)) => Ok(n),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
        Err(e) => Err(Some(e)),
    }
}

fn asked<T: Operation>(operation: T, cx: &Context<'_>) -> Asked<T> {
    Core::with(|core| Asked::new(core, operation, cx.waker()))
}

fn wait(socket: &Rc<Socket>, ready: Ready, cx: &Context<'_>) -> Asked<PollOnce<SocketFd>> {
    asked(PollOnce { fd: SocketFd(Rc::clone(socket)), ready }, cx)
}

fn poll_asked<T: Operation>(asked: &mut Asked<T>, cx: &Context<'_>) -> Poll<T::Output> {
    Core::with(|core| asked.poll(core, cx.waker())).map(|finished| match finished {
        Finished::Whole(output) => output,
        Finished::Early(_) => unreachable!("{} has no notification", T::NAME),
    })
}
