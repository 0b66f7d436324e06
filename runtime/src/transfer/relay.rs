//! A connection joined to another: both directions at once, half-close honoured.

use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::Road;
use super::pipe::Pipe;
use crate::buf::ring::BUFFER_SIZE;
use crate::core::Core;
use crate::core::ask::ask;
use crate::core::pipe_pool::is_lack;
use crate::error::os;
use crate::net::op::send::Send;
use crate::net::socket::{ReadWait, Socket};
use crate::net::writing::{self, send_now};
use crate::net::{Connection, Family, SocketFd};
use crate::op::poll::Ready;
use crate::{Error, Result, task};

/// How a relay ended.
#[derive(Debug)]
#[must_use = "a relay may have failed"]
pub struct RelayEnd {
    /// Bytes that went from the first stream to the second.
    pub a_to_b: u64,
    /// Bytes that went from the second stream to the first.
    pub b_to_a: u64,
    /// `Ok` when both directions ended by end of stream; otherwise what failed first.
    pub result: Result<()>,
}

/// Relays between two connections, TCP or Unix, until both directions have ended. Bulk is not copied through user memory
/// (`splice(2)`); messages that fit a receive buffer (8 KiB) are, which costs less.
///
/// Bytes that were received before but not taken are relayed first. The end of one direction shuts the other stream's
/// write side down (`shutdown(2)`) and the other direction goes on. An error in one direction ends both. Both streams
/// are closed at the end.
///
/// # Cancellation
/// Closes both connections; bytes under way are lost, as with any connection that is cut.
pub async fn relay<A: Family, B: Family>(a: Connection<A>, b: Connection<B>, road: Road) -> RelayEnd {
    let (mut a_to_b, mut b_to_a) = (0, 0);
    let result = {
        let mut there = pin!(direction(a.socket(), b.socket(), road, &mut a_to_b));
        let mut back = pin!(direction(b.socket(), a.socket(), road, &mut b_to_a));
        let (mut there_ended, mut back_ended) = (false, false);
        poll_fn(|cx| {
            if !there_ended && let Poll::Ready(end) = there.as_mut().poll(cx) {
                there_ended = true;
                end?;
            }
            if !back_ended && let Poll::Ready(end) = back.as_mut().poll(cx) {
                back_ended = true;
                end?;
            }
            if there_ended && back_ended { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    };
    RelayEnd { a_to_b, b_to_a, result }
}

/// Small messages are copied and bulk is spliced, by turns as the stream has them. It begins as bulk: a receive into buffers
/// takes all that lies in the socket, so a short transfer would be copied whole, and what is talk is known after a few words.
async fn direction(from: &Rc<Socket>, into: &Rc<Socket>, road: Road, moved: &mut u64) -> Result<()> {
    let failed = |e| Error::io("relay failed", e);
    // Dropped by an error it poisons the other side, which is about to be closed.
    let permit = into.write_permit().await?;
    let mut part = quiet(from, into, Vec::new(), moved).await;
    loop {
        if let Part::Over = part.map_err(failed)? {
            break;
        }
        // The kernel tells an error once. If the receive that was armed took it, splicing would find a clean end.
        match from.over() {
            Some(Some(errno)) => return Err(failed(io::Error::from_raw_os_error(errno))),
            Some(None) => break,
            None => {}
        }
        let spliced = match road {
            Road::Inline => inline(from, into, moved).await,
            Road::Ring => ring(from, into, moved).await,
        };
        if let Part::Over = spliced.map_err(failed)? {
            break;
        }
        part = messages(from, into, moved).await;
    }
    permit.done();
    match into.shutdown(Shutdown::Write) {
        // The other side has gone altogether: nothing is left to tell it.
        Err(e) if e.io_error().and_then(io::Error::raw_os_error) == Some(libc::ENOTCONN) => Ok(()),
        result => result,
    }
}

/// How a way of carrying bytes has ended.
enum Part {
    /// The end of the stream.
    Over,
    /// The other way is the better one now.
    Change,
}

/// Bytes that fill a receive buffer: so much at once is bulk, and worth a pipe.
const BULK: usize = BUFFER_SIZE;
/// So many bursts of less, one after the other, and it is bulk no longer.
const PATIENCE: u16 = 3;

/// Receives into the core's buffers and sends on from there, until bulk comes or the other side does not keep up. A message
/// costs a completion and a call; spliced, it would cost a poll, a pipe and three calls.
async fn messages(from: &Rc<Socket>, into: &Rc<Socket>, moved: &mut u64) -> io::Result<Part> {
    let mut wait = ReadWait::new(from);
    let rest = loop {
        match poll_fn(|cx| poll_message(from, &mut wait, into, moved, cx)).await? {
            Message::Passed => {}
            Message::Last(rest) => break rest,
            Message::End => return Ok(Part::Over),
        }
    };
    drop(wait);
    quiet(from, into, rest, moved).await
}

/// Ends receiving into buffers, and sends on what had come that way, behind `rest`.
async fn quiet(from: &Rc<Socket>, into: &Rc<Socket>, mut rest: Vec<u8>, moved: &mut u64) -> io::Result<Part> {
    from.quiet().await;
    pass_the_others(from, into, &mut rest, moved)?;
    send_copied(into, rest, moved).await?;
    Ok(Part::Change)
}

/// A message that came.
enum Message {
    /// It is with the other side, and so may the next be.
    Passed,
    /// It was bulk, or more than the other side has room for: these bytes are still to be sent. Or there is no buffer for it.
    Last(Vec<u8>),
    /// None will come.
    End,
}

/// Takes a message and sends it on at once. No lease lies in the relay's future: a side that does not read must not hold the
/// core's buffers, and what it has no room for waits in memory of the heap. Where the core has no buffer left the relay waits for
/// none: splicing needs none, and who holds them may wait for what this relay brings.
fn poll_message(
    from: &Rc<Socket>,
    wait: &mut ReadWait<'_>,
    into: &Rc<Socket>,
    moved: &mut u64,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Message>> {
    let polled = Core::with(|core| {
        let polled = wait.poll_recv(core, cx);
        if polled.is_pending() && from.is_starved() {
            if core.fairness.is_starving(core) {
                return None;
            }
            // Its turn for a buffer comes when this tick of the core ends, or others take them all: to be looked at again.
            cx.waker().wake_by_ref();
        }
        Some(polled)
    });
    let chunk = match polled {
        None => return Poll::Ready(Ok(Message::Last(Vec::new()))),
        Some(Poll::Pending) => return Poll::Pending,
        Some(Poll::Ready(chunk)) => chunk?,
    };
    let Some(chunk) = chunk else { return Poll::Ready(Ok(Message::End)) };
    let sent = send_now(into, &chunk, 0)?;
    copied(sent, moved);
    let is_message = sent == chunk.len() && chunk.len() < BULK;
    Poll::Ready(Ok(if is_message { Message::Passed } else { Message::Last(chunk[sent..].to_vec()) }))
}

/// Passes on what had come when receiving ended, behind `rest`.
fn pass_the_others(
    from: &Rc<Socket>,
    into: &Rc<Socket>,
    rest: &mut Vec<u8>,
    moved: &mut u64,
) -> io::Result<()> {
    while let Some(chunk) = Core::with(|core| from.take_chunk(core)) {
        let sent = if rest.is_empty() { send_now(into, &chunk, 0)? } else { 0 };
        copied(sent, moved);
        rest.extend_from_slice(&chunk[sent..]);
    }
    Ok(())
}

/// Waits until something can be read and takes a pipe for it; `None` where none can be had and bytes are to be copied.
async fn begin(from: &Rc<Socket>) -> io::Result<Option<Rc<Pipe>>> {
    from.ready(Ready::Read).await?;
    match Pipe::take() {
        Err(e) if is_lack(&e) => Ok(None),
        taken => taken.map(Some),
    }
}

/// `splice(2)` on the core. The pipe is taken when bytes are there and given back when it has run dry.
async fn inline(from: &Rc<Socket>, into: &Rc<Socket>, moved: &mut u64) -> io::Result<Part> {
    let mut pipe: Option<Rc<Pipe>> = None;
    let mut polled = false;
    let mut bursts = Bursts::default();
    loop {
        let current = match &pipe {
            Some(pipe) => pipe,
            None => {
                let Some(taken) = begin(from).await? else {
                    match copy_some(from, into, moved).await? {
                        Seen::End => return Ok(Part::Over),
                        // It was less than bulk: there was no room for more.
                        Seen::Bytes(()) if bursts.over() => return Ok(Part::Change),
                        Seen::Bytes(()) | Seen::Nothing => continue,
                    }
                };
                polled = true;
                pipe.insert(taken)
            }
        };
        let filled = current.fill_now(from.fd(), None, current.size());
        let fresh = std::mem::replace(&mut polled, false);
        match filled {
            Ok(n) if n > 0 => bursts.add(n),
            // The end, or so it seems: see `copy_some`.
            Ok(_) => {
                if matches!(copy_some(from, into, moved).await?, Seen::End) {
                    return Ok(Part::Over);
                }
                pipe = None;
                continue;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if fresh && matches!(copy_some(from, into, moved).await?, Seen::End) {
                    return Ok(Part::Over);
                }
                pipe = None;
                if bursts.over() {
                    return Ok(Part::Change);
                }
                continue;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        }
        while current.held() > 0 {
            match current.empty_now(into.fd(), false) {
                Ok(n) => {
                    *moved += n as u64;
                    Core::with(|core| core.shared.counters.relay_bytes_inline.add(n as u64));
                    task::consume_budget().await;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => into.ready(Ready::Write).await?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// Splice SQEs, each behind a poll: a relay that waits holds no worker, and between bursts no pipe either.
async fn ring(from: &Rc<Socket>, into: &Rc<Socket>, moved: &mut u64) -> io::Result<Part> {
    let retry = |e: &io::Error| matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
    let mut pipe: Option<Rc<Pipe>> = None;
    let mut bursts = Bursts::default();
    loop {
        let current = match &pipe {
            Some(pipe) => pipe,
            None => {
                let Some(taken) = begin(from).await? else {
                    match copy_some(from, into, moved).await? {
                        Seen::End => return Ok(Part::Over),
                        // It was less than bulk: there was no room for more.
                        Seen::Bytes(()) if bursts.over() => return Ok(Part::Change),
                        Seen::Bytes(()) | Seen::Nothing => continue,
                    }
                };
                pipe.insert(taken)
            }
        };
        match current.fill(SocketFd(Rc::clone(from)), None, current.size()).await {
            Ok(n) if n > 0 => bursts.add(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
            // The end, or so it seems, or nothing where the poll before it promised something: see `copy_some`.
            _ => {
                if matches!(copy_some(from, into, moved).await?, Seen::End) {
                    return Ok(Part::Over);
                }
                pipe = None;
                continue;
            }
        }
        while current.held() > 0 {
            match current.empty(SocketFd(Rc::clone(into)), false).await {
                Ok(n) => {
                    *moved += n as u64;
                    Core::with(|core| core.shared.counters.relay_bytes_ring.add(n as u64));
                }
                Err(e) if retry(&e) => {}
                Err(e) => return Err(e),
            }
        }
        pipe = None;
        if bursts.over() {
            return Ok(Part::Change);
        }
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
        self.small >= PATIENCE
    }
}

/// What a receive found.
enum Seen<B = ()> {
    /// Bytes; of [`copy_some`], that were sent on.
    Bytes(B),
    /// Nothing yet.
    Nothing,
    /// The end of the stream.
    End,
}

/// Receives and sends on by copying, once: where no pipe can be had, and where splicing has come to its limits.
///
/// Splicing from a TCP socket stops before an urgent byte (`send(2)`, MSG_OOB): it gives `EAGAIN` for ever while a poll
/// says that there is something, and after the peer's end it gives 0 with bytes still queued. A plain receive passes the
/// mark (the urgent byte itself is not part of the stream, `tcp(7)`), so it is asked before either is believed. Seen on
/// 6.18: without this a client that sent one urgent byte made the relay spin, and what it sent afterwards was lost.
async fn copy_some(from: &Rc<Socket>, into: &Rc<Socket>, moved: &mut u64) -> io::Result<Seen> {
    let bytes = match receive_some(from)? {
        Seen::Bytes(bytes) => bytes,
        Seen::Nothing => return Ok(Seen::Nothing),
        Seen::End => return Ok(Seen::End),
    };
    send_copied(into, bytes, moved).await?;
    Ok(Seen::Bytes(()))
}

/// What is there. No future, so that what is received into lies in none: what is usually found is the end.
fn receive_some(from: &Rc<Socket>) -> io::Result<Seen<Vec<u8>>> {
    let mut found = [0; 4096];
    match rustix::net::recv(from.fd(), &mut found, rustix::net::RecvFlags::DONTWAIT).map_err(os) {
        Ok((0, _)) => match from.has_ended() {
            None => Ok(Seen::End),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        },
        Ok((n, _)) => Ok(Seen::Bytes(found[..n].to_vec())),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(Seen::Nothing)
        }
        Err(e) => Err(e),
    }
}

/// Sends bytes that were copied, by the ring.
async fn send_copied(into: &Rc<Socket>, mut bytes: Vec<u8>, moved: &mut u64) -> io::Result<()> {
    let mut from = 0;
    while from < bytes.len() {
        let (sent, back) = ask(Send { socket: Rc::clone(into), buf: bytes, from, flags: 0 }).await;
        bytes = back;
        let n = writing::sent(into, sent)?;
        from += n;
        copied(n, moved);
    }
    Ok(())
}

fn copied(n: usize, moved: &mut u64) {
    *moved += n as u64;
    Core::with(|core| core.shared.counters.relay_bytes_copied.add(n as u64));
}
