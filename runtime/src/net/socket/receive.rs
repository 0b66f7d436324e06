//! Receiving: runs the [state machine](super::receiving) on the core's ring and buffers.
//!
//! A stream may hold [`HOLD_BACK`] chunks that nobody takes. When it has as many at the end of a tick, after
//! its task had every chance, its receive is cancelled; the next `recv` that finds nothing arms it again. So
//! a stream that nobody reads takes what lay in its socket at once, and where that leaves none for others, it
//! is copied out of the buffers (`buf/copy_out.rs`). So is a single chunk that came, or was left, when
//! buffers were [few](crate::buf::ring::BufRing::are_few): those few go round, however many streams keep a
//! chunk each.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::receiving::{Quiet, Wanted};
use super::waiting::QuietWait;
use super::{Kind, Socket, Writing};
use crate::buf::Lease;
use crate::buf::chain::Chain;
use crate::core::Core;
use crate::net::op::recv::RecvMulti;
use crate::net::op::recv_msg::{self, RecvMsgMulti};
use crate::net::sys;

/// Undelivered chunks at which a stream's receive is switched off.
const HOLD_BACK: u32 = 2;
/// The same for datagrams, which are smaller and come in bursts.
const HOLD_BACK_DATAGRAMS: u32 = 8;

impl Socket {
    /// The next chunk, `None` at the end of the stream.
    pub(crate) fn poll_recv(
        self: &Rc<Self>,
        core: &Core,
        cx: &mut Context<'_>,
        place: &mut Option<u64>,
    ) -> Poll<io::Result<Option<Lease>>> {
        if core.budget.poll(cx).is_pending() {
            return Poll::Pending;
        }
        if let Some(lease) = self.take_chunk(core) {
            core.budget.spend();
            return Poll::Ready(Ok(Some(lease)));
        }
        match self.receiving.want(|| core.fairness.is_short(), matches!(self.kind, Kind::Datagram)) {
            Wanted::Told(end) => {
                core.budget.spend();
                return Poll::Ready(match end {
                    None => Ok(None),
                    Some(errno) => Err(io::Error::from_raw_os_error(errno)),
                });
            }
            // Who has just been served must not push in before those that wait for a buffer: a receive takes
            // as many as there are.
            Wanted::Queue => {
                core.notes.lacks_buffer();
                core.fairness.wait_for_buffer(Rc::downgrade(self) as _);
            }
            Wanted::Arm => self.arm(core),
            Wanted::Wait => {}
        }
        self.wait(cx, place, Self::has_something);
        Poll::Pending
    }

    /// Whether there is something for a reader: bytes, the end, or a receive to ask for.
    pub(super) fn has_something(&self) -> bool {
        let comes = self.receiving.is_awaited() || self.receiving.is_hushed();
        !comes || self.chain.get().len() > 0 || self.has_rest()
    }

    /// It was taken out of the queue of streams that wait for a buffer.
    pub(crate) fn left_queue(&self) {
        self.receiving.left_queue();
    }

    pub(super) fn arm(self: &Rc<Self>, core: &Core) {
        let socket = Rc::clone(self);
        let key = match self.kind {
            Kind::Stream if core.bufs.come_in_fragments() => Self::arm_fragments(socket, core),
            Kind::Stream => core.ops.submit_multi(&core.ring, RecvMulti { socket }),
            Kind::Datagram => core.ops.submit_multi(&core.ring, RecvMsgMulti::new(socket)),
        };
        self.receiving.armed(key);
    }

    /// A CQE of the receive: bytes in `buffer`. `last` tells that the operation has ended.
    #[inline(always)]
    pub(crate) fn received(self: &Rc<Self>, core: &Core, buffer: u16, bytes: u32, last: bool) {
        self.receiving.answered(last);
        let before = if let Kind::Datagram = self.kind { recv_msg::BEFORE as u32 } else { 0 };
        core.shared.counters.recv_bytes.add(bytes.saturating_sub(before).into());
        let chain = core.bufs.push(self.chain.get(), buffer, bytes);
        self.chain.set(chain);
        if chain.len() >= self.hold_back_at() || core.bufs.are_few() {
            self.inspect_later(core);
        }
        self.wake_reader();
    }

    /// The same, where no bytes came: the end, or an error.
    #[inline(never)]
    pub(crate) fn received_none(
        self: &Rc<Self>,
        core: &Core,
        buffer: Option<u16>,
        result: io::Result<u32>,
        last: bool,
    ) {
        let was_ending = self.receiving.answered(last);
        if let Some(buffer) = buffer {
            core.bufs.recycle(buffer);
        }
        match result {
            Ok(_) => self.ended(),
            Err(e) => self.failed(core, &e, was_ending),
        }
        self.wake_reader();
    }

    /// At the end of the tick it is checked whether somebody took the chunks.
    #[inline(never)]
    pub(super) fn inspect_later(self: &Rc<Self>, core: &Core) {
        if !self.overfull.replace(true) {
            core.fairness.inspect_later(Rc::clone(self) as _);
        }
    }

    pub(super) fn failed(self: &Rc<Self>, core: &Core, error: &io::Error, was_ending: bool) {
        match error.raw_os_error() {
            Some(libc::ENOBUFS) => {
                let counters = &core.shared.counters;
                let counter =
                    if core.bufs.has_some() { &counters.recv_ring_empty } else { &counters.recv_starved };
                counter.add(1);
                core.notes.lacks_buffer();
                if self.receiving.lacked(self.is_waited_for(), was_ending) == Wanted::Queue {
                    core.fairness.wait_for_buffer(Rc::downgrade(self) as _);
                }
            }
            // Our own cancel, or the kernel's wish to be asked again.
            Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {}
            errno => self.receiving.failed(errno.unwrap_or(libc::EIO)),
        }
    }

    /// There is a buffer, and it is this stream's turn to receive.
    pub(crate) fn receive_again(self: &Rc<Self>, core: &Core) -> bool {
        let wants = self.is_starved();
        if wants {
            self.arm(core);
        }
        wants
    }

    /// Whether it waits for a buffer.
    pub(crate) fn is_starved(&self) -> bool {
        self.receiving.is_starved()
    }

    /// The end of the tick: switches the receive off if nobody took what came. What is still here may be
    /// copied out when others wait for its buffers.
    pub(crate) fn hold_back(self: &Rc<Self>, core: &Core) {
        self.overfull.set(false);
        let waiting =
            if core.bufs.come_in_fragments() { self.fragments_waiting() } else { self.chain.get().len() };
        if waiting >= self.hold_back_at() {
            core.shared.counters.recv_held_back.add(1);
            self.end_receiving(core);
        }
        if (waiting > 0 || self.fragments_waiting() > 0) && !self.is_known_idle.replace(true) {
            core.fairness.remember_idle(Rc::downgrade(self) as _);
        }
    }

    /// Others wait for buffers: gives up those of chunks that nobody took, whether they are in the chain or
    /// leases by now. Whether it may come to have more.
    pub(crate) fn evict(&self, core: &Core) -> bool {
        let mut waiting = self.rare.get().map(|rare| rare.rest.take()).unwrap_or_default();
        let mut chain = self.chain.replace(Chain::EMPTY);
        while let Some((rest, chunk)) = core.bufs.pop(chain) {
            chain = rest;
            waiting.push_back(chunk);
        }
        let has_bounds = matches!(self.kind, Kind::Datagram);
        let copied = core.bufs.copy_out(core.shared.clone(), &mut waiting, has_bounds);
        core.shared.counters.recv_spilt.add(copied as u64);
        let more = waiting.iter().any(|chunk| core.bufs.has_lent(chunk)) || self.receiving.is_receiving();
        if !waiting.is_empty() {
            self.rare().rest.replace(waiting);
        }
        self.is_known_idle.set(more);
        more
    }

    pub(super) fn hold_back_at(&self) -> u32 {
        match self.kind {
            Kind::Stream => HOLD_BACK,
            Kind::Datagram => HOLD_BACK_DATAGRAMS,
        }
    }

    pub(super) fn end_receiving(&self, core: &Core) {
        if let Some(key) = self.receiving.stop() {
            core.ops.cancel(&core.ring, key);
        }
    }

    /// Waits until no receive is armed; what came meanwhile stays in the chain.
    pub(crate) fn poll_quiet(
        self: &Rc<Self>,
        core: &Core,
        cx: &mut Context<'_>,
        place: &mut Option<u64>,
    ) -> Poll<()> {
        self.end_receiving(core);
        match self.receiving.quiet() {
            Quiet::Yes => Poll::Ready(()),
            Quiet::GaveUpTurn => {
                // Who waits for the receive that there will not be has to ask for another.
                self.wake_reader();
                Poll::Ready(())
            }
            Quiet::NotYet => {
                self.wait(cx, place, |socket| !socket.receiving.is_receiving());
                Poll::Pending
            }
        }
    }

    /// Waits until no receive is armed. Meanwhile no reader arms one.
    pub(crate) async fn quiet(self: &Rc<Self>) {
        let mut wait = QuietWait::new(self);
        poll_fn(|cx| Core::with(|core| wait.poll(core, cx))).await;
    }

    /// How receiving has ended, if it has: an error's errno, or none at the end of the stream. The kernel
    /// reports an error once, so who receives by other means must ask here first.
    pub(crate) fn over(&self) -> Option<Option<i32>> {
        self.receiving.over()
    }

    /// A send, or receiving by other means, has failed. If that is the connection's end, later receives are
    /// told of it.
    pub(crate) fn has_failed(&self, error: &io::Error) {
        match error.raw_os_error() {
            _ if !matches!(self.kind, Kind::Stream) => {}
            Some(errno) if is_cut_off(errno) => self.receiving.told(errno),
            // The send before may have hidden the reason.
            Some(libc::EPIPE) => drop(self.failure()),
            _ => {}
        }
    }

    /// The connection's failure, if it has failed, whether somebody was told or not. The kernel reports it
    /// once. A send that was taken in part before it returns how much that was, and hides it; a send that was
    /// told may not have its completion yet. Then the kernel is asked whether the peer's end had come.
    pub(crate) fn failure(&self) -> Option<i32> {
        if self.cut_off().is_none() && sys::fin_has_come(self.fd()) == Some(false) {
            self.receiving.told(libc::ECONNRESET);
        }
        self.cut_off()
    }

    /// The receive has found the end. A failure may have been told to a send that is under way.
    pub(super) fn ended(&self) {
        if self.writing.get() != Writing::Free {
            self.failure();
        }
        self.receiving.ended();
    }

    /// What was told of the connection's end, if it was.
    pub(crate) fn cut_off(&self) -> Option<i32> {
        self.receiving.cut_off()
    }

    /// Receiving by other means has found the end. What it is in truth: an error's errno, or none. Later
    /// receives find the same; one that is armed meanwhile, by a second reader, is told by the kernel.
    pub(crate) fn has_ended(&self) -> Option<i32> {
        self.receiving.found_end()
    }

    /// Takes one chunk of what is there, without asking for more.
    #[inline(always)]
    pub(crate) fn take_chunk(&self, core: &Core) -> Option<Lease> {
        if let Some(rest) = self.rare.get().and_then(|rare| rare.rest.borrow_mut().pop_front()) {
            return Some(rest);
        }
        let (chain, lease) = core.bufs.pop(self.chain.get())?;
        self.chain.set(chain);
        Some(lease)
    }

    /// Gives back what is left of a chunk that was just taken: the next to be taken.
    pub(crate) fn put_back(self: &Rc<Self>, rest: Lease) {
        if !rest.is_empty() {
            self.rare().rest.borrow_mut().push_front(rest);
            Core::try_with(|core| {
                if core.bufs.are_few() {
                    self.inspect_later(core);
                }
            });
        }
    }

    /// Waits until no receive is armed, and gives what had come.
    pub(crate) async fn quiesce(self: &Rc<Self>) -> Vec<Lease> {
        self.quiet().await;
        let mut chunks = Vec::new();
        Core::with(|core| {
            while let Some(chunk) = self.take_chunk(core) {
                chunks.push(chunk);
            }
        });
        chunks
    }

    /// Nobody reads any more. Without a core the runtime has ended, and with it every operation.
    pub(crate) fn stop_receiving(&self) {
        Core::try_with(|core| self.release(core));
    }

    /// The reader is dropped: gives back what came and lets go of the receive.
    pub(super) fn release(&self, core: &Core) {
        while self.take_chunk(core).is_some() {}
        if let Some(key) = self.receiving.release() {
            core.ops.abandon(&core.ring, key);
        }
        self.forget_reader();
    }
}

/// Whether an error is that of a connection, and not of the call. A reset is never told after the peer's end
/// has come (that is `EPIPE`, tcp_reset() in net/ipv4/tcp_input.c); the others may be, and then a stream that
/// was whole counts as cut off, which is the lesser evil.
fn is_cut_off(errno: i32) -> bool {
    use libc::{ECONNABORTED, ECONNRESET, EHOSTUNREACH, ENETDOWN, ENETUNREACH, ETIMEDOUT};
    let errnos = [ECONNABORTED, ECONNRESET, EHOSTUNREACH, ENETDOWN, ENETUNREACH, ETIMEDOUT];
    errnos.contains(&errno)
}
