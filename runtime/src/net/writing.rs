//! The writing side of a socket: one sender at a time, and poison after an unknown number of bytes was sent.

use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use rustix::net::SendFlags;

use super::socket::{Socket, Writing};
use super::sys;
use crate::buf::{BufError, IoBuf};
use crate::core::Core;
use crate::core::ask::{Finished, InFlight, polled_again};
use crate::net::op::send::Send;
use crate::op::Operation as _;
use crate::{Error, ErrorKind, Result};

/// The permit to write to a socket. If it is dropped after it was granted and before it is
/// [`done`](Self::done), it poisons the write side.
#[must_use = "dropped before it is done, it poisons the write side"]
pub(crate) struct WritePermit {
    socket: Rc<Socket>,
    stage: Stage,
}

enum Stage {
    /// It is granted after those that have waited longer. It has its ticket, once it had to wait.
    Awaited(Option<u64>),
    Here,
    Over,
}

impl WritePermit {
    fn new(socket: Rc<Socket>) -> Self {
        Self { socket, stage: Stage::Awaited(None) }
    }

    /// Waits until it is granted: usually at once, because nobody else sends.
    #[inline(always)]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Poisoned>> {
        if let Stage::Awaited(None) = self.stage
            && self.socket.writing.get() == Writing::Free
        {
            self.socket.writing.set(Writing::Busy);
            self.stage = Stage::Here;
            return Poll::Ready(Ok(()));
        }
        self.poll_among_others(cx)
    }

    #[inline(never)]
    fn poll_among_others(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Poisoned>> {
        let Stage::Awaited(ticket) = self.stage else { return Poll::Ready(Ok(())) };
        let socket = &self.socket;
        let permit = match socket.writing.get() {
            Writing::Due if ticket.is_none() => {
                socket.writing.set(Writing::Free);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Writing::Free | Writing::Due => {
                socket.writing.set(Writing::Busy);
                Ok(())
            }
            Writing::Busy => {
                self.stage = Stage::Awaited(Some({
                    let is_over = |_| socket.writing.get() != Writing::Busy;
                    socket.writers().wait(ticket, cx.waker(), is_over)
                }));
                return Poll::Pending;
            }
            Writing::Poisoned => Err(Poisoned),
        };
        self.stage = if permit.is_ok() { Stage::Here } else { Stage::Over };
        if let Some(ticket) = ticket {
            socket.writers().leave(ticket);
        }
        Poll::Ready(permit)
    }

    /// Ends the send: the kernel has the bytes, or the send failed in a way that the caller is told of.
    pub(crate) fn done(mut self) {
        self.end(true);
    }

    /// Ends the send. `sound`: it is known how much was sent.
    fn end(&mut self, sound: bool) {
        self.stage = Stage::Over;
        let writing = &self.socket.writing;
        let Some(writers) = self.socket.waiting_writers() else {
            return writing.set(if sound { Writing::Free } else { Writing::Poisoned });
        };
        writing.set(if sound { Writing::Due } else { Writing::Poisoned });
        writers.wake_all();
    }
}

impl Drop for WritePermit {
    fn drop(&mut self) {
        match self.stage {
            // If it was granted and not used, others have been woken as well.
            Stage::Awaited(Some(ticket)) => self.socket.writers().leave(ticket),
            Stage::Here => self.end(false),
            Stage::Awaited(None) | Stage::Over => {}
        }
    }
}

impl Socket {
    /// Waits for the permit to write.
    pub(crate) async fn write_permit(self: &Rc<Self>) -> Result<WritePermit> {
        // The write may have no bytes, and a permit may be refused. Both are ready at once, however often, so
        // they must use budget.
        crate::task::consume_budget().await;
        let mut permit = WritePermit::new(Rc::clone(self));
        poll_fn(|cx| permit.poll(cx)).await?;
        Ok(permit)
    }

    /// Whether it is known how much was sent, and nobody is sending.
    pub(super) fn is_between_sends(&self) -> bool {
        matches!(self.writing.get(), Writing::Free | Writing::Due)
    }

    /// Refuses a socket on which an unknown part was sent.
    pub(crate) fn must_be_sound(&self) -> Result<()> {
        if self.writing.get() == Writing::Poisoned { Err(Poisoned.into()) } else { Ok(()) }
    }

    /// Ends one side or both. It is a system call on the core, which never waits; the ring would run it on an
    /// io-wq worker.
    pub(crate) fn shutdown(&self, how: Shutdown) -> Result<()> {
        sys::shutdown(self.fd(), how).map_err(|e| Error::io("cannot shut the connection down", e))
    }
}

/// An earlier send was dropped half-way. The error's text is made later, because an [`Error`] would make the
/// result of each poll large.
struct Poisoned;

impl From<Poisoned> for Error {
    #[cold]
    fn from(_: Poisoned) -> Self {
        Error::new(
            ErrorKind::WritePoisoned,
            "an earlier send on this stream was dropped half-way, so what has left is unknown: close the stream",
        )
    }
}

/// The result of a send: an interruption counts as nothing sent, and nothing sent is an error.
pub(crate) fn sent(socket: &Socket, result: io::Result<usize>) -> io::Result<usize> {
    Core::with(|core| sent_by(core, socket, result))
}

/// [`sent`], by a core that is at hand.
#[inline(always)]
fn sent_by(core: &Core, socket: &Socket, result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Ok(n) if n > 0 => {
            core.shared.counters.send_bytes.add(n as u64);
            Ok(n)
        }
        result => not_sent(socket, result),
    }
}

#[inline(never)]
fn not_sent(socket: &Socket, result: io::Result<usize>) -> io::Result<usize> {
    match result {
        // A send of a positive length that sends nothing does not exist; if it did, its caller would spin.
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(e) if e.raw_os_error() == Some(libc::EINTR) => Ok(0),
        Err(e) => {
            socket.has_failed(&e);
            Err(e)
        }
    }
}

/// Gives the kernel as many bytes as it takes now, by a call on the core (`send(2)`).
pub(crate) fn send_now(socket: &Socket, bytes: &[u8], flags: i32) -> io::Result<usize> {
    match sys::send_now(socket.fd(), bytes, SendFlags::from_bits_retain(flags as u32)) {
        Ok(n) => {
            Core::with(|core| core.shared.counters.send_bytes.add(n as u64));
            Ok(n)
        }
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
        Err(e) => Err(e),
    }
}

/// Waits for the permit and sends all of a buffer.
#[must_use = "futures do nothing unless awaited"]
pub(crate) struct SendAll<B: IoBuf> {
    permit: WritePermit,
    /// How many bytes were sent.
    from: usize,
    flags: i32,
    /// The buffer, until the permit is granted.
    waits: Option<B>,
    /// The last send that was asked of the kernel.
    in_flight: Option<InFlight<Send<Rc<Socket>, B>>>,
}

impl<B: IoBuf> SendAll<B> {
    /// `flags`: `MSG_MORE`, or nothing.
    pub(crate) fn new(socket: Rc<Socket>, buf: B, flags: i32) -> Self {
        Self { permit: WritePermit::new(socket), from: 0, flags, waits: Some(buf), in_flight: None }
    }

    /// Whether it ends without asking the kernel. It would then be ready at once, however often.
    #[cold]
    fn asks_nothing(&self) -> bool {
        let is_empty = self.waits.as_ref().is_some_and(|buf| buf.bytes().is_empty());
        is_empty || self.permit.socket.writing.get() == Writing::Poisoned
    }
}

// Nothing in it is pinned: the buffer moves into its operation's cell before the kernel hears of it.
impl<B: IoBuf> Unpin for SendAll<B> {}

impl<B: IoBuf> Future for SendAll<B> {
    type Output = Result<B, BufError<B>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        Core::with(|core| {
            let buf = if let Some(send) = &mut this.in_flight {
                let (result, buf) = match send.poll(core, cx.waker()) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Finished::Whole(whole)) => whole,
                    Poll::Ready(Finished::Early(_)) => unreachable!("a plain send has no notification"),
                };
                match sent_by(core, &this.permit.socket, result) {
                    Ok(n) => this.from += n,
                    Err(e) => {
                        // A part has been sent, so the next sender would continue in the middle of this one.
                        // That poisons the stream.
                        this.permit.end(this.from == 0);
                        return Poll::Ready(Err(BufError::io("send failed", e, buf)));
                    }
                }
                buf
            } else {
                // A send that is asked of the kernel needs no budget, because its result comes in another
                // tick of the core.
                if !core.budget.is_left() && this.asks_nothing() {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let Poll::Ready(permit) = this.permit.poll(cx) else { return Poll::Pending };
                let Some(buf) = this.waits.take() else { polled_again(Send::<Rc<Socket>, B>::NAME) };
                match permit {
                    Ok(()) => buf,
                    Err(e) => {
                        core.budget.spend();
                        return Poll::Ready(Err(BufError::new(e.into(), buf)));
                    }
                }
            };
            if this.from >= buf.bytes().len() {
                // The bytes that were sent have used budget.
                if this.from == 0 {
                    core.budget.spend();
                }
                this.permit.end(true);
                return Poll::Ready(Ok(buf));
            }
            let socket = Rc::clone(&this.permit.socket);
            let send = Send { socket, buf, from: this.from, flags: this.flags };
            this.in_flight = Some(InFlight::new(core, send, cx.waker()));
            Poll::Pending
        })
    }
}

impl<B: IoBuf> Drop for SendAll<B> {
    fn drop(&mut self) {
        // Its buffer has panicked when it was asked for its bytes, and the kernel has got none of them.
        if let Stage::Here = self.permit.stage
            && self.in_flight.is_none()
        {
            self.permit.end(true);
        }
    }
}
