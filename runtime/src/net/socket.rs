//! A connected socket and its receiving side.
//!
//! The multishot receive holds the socket by a counted reference, so the descriptor is closed only after the
//! kernel's last word on it. Chunks that came and were not taken yet are a list linked through the core's
//! buffer table: no allocation, however many.
//!
//! A stream may hold [`HOLD_BACK`] chunks that nobody takes. When it has as many at the end of a tick, after
//! its task had every chance, its receive is cancelled; the next `recv` that finds nothing arms it again. So
//! a stream that nobody reads takes what lay in its socket at once, and where that leaves none for others, it
//! is copied out of the buffers (`buf/copy_out.rs`). So is a single chunk that came, or was left, when
//! buffers were [few](crate::buf::ring::BufRing::are_few): those few go round, however many streams keep a
//! chunk each.

mod fragments;
mod write_state;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::group::Member;
use super::ownership::{CloseNotice, Ownership};
use super::sys;
use crate::buf::Lease;
use crate::buf::chain::Chain;
use crate::contained::contained;
use crate::core::Core;
use crate::core::ask::ask;
use crate::core::remote_hosts::RemoteHost;
use crate::net::op::recv::RecvMulti;
use crate::net::op::recv_msg::{self, RecvMsgMulti};
use crate::op::poll::{PollOnce, Ready};
use crate::op::slots::Key;
use crate::spawn_blocking;
use crate::sync::waiters::Waiters;
pub(super) use write_state::Writing;

/// Undelivered chunks at which a stream's receive is switched off.
const HOLD_BACK: u32 = 2;
/// The same for datagrams, which are smaller and come in bursts.
const HOLD_BACK_DATAGRAMS: u32 = 8;

/// Where the receiving side has got to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiving {
    /// No operation is armed.
    Idle,
    /// The multishot receive is armed.
    Armed(Key),
    /// Its end was asked for, and its last CQE is awaited.
    Ending(Key),
    /// The core had no buffer; the stream stands in the queue of those that wait for one.
    Starved,
    /// End of stream, or an error (its errno), for good.
    Over(Option<i32>),
}

/// What comes.
enum Kind {
    /// Bytes, which have an end.
    Stream,
    /// Datagrams, each in its own buffer behind its sender's address; errors pass. The group in which the
    /// socket is bound.
    Datagram(Option<Member>),
}

/// A connected socket, or one for datagrams, shared by its stream and the operations on it.
pub(crate) struct Socket {
    fd: Option<OwnedFd>,
    kind: Kind,
    receiving: Cell<Receiving>,
    chain: Cell<Chain>,
    /// Stands in the core's list of streams to look at when the tick ends.
    overfull: Cell<bool>,
    /// Stands in the core's list of streams that nobody reads.
    is_known_idle: Cell<bool>,
    /// Stands in the core's queue of streams that wait for a buffer, perhaps without wanting one any more.
    queued: Cell<bool>,
    /// Its writer has been dropped.
    unwritten: Cell<bool>,
    /// Its reader has been dropped.
    released: Cell<bool>,
    /// Who waits to receive, of those that wait alone.
    reader: RefCell<Option<Waker>>,
    /// Those that wait behind another, in their order.
    readers: Waiters,
    /// What a send was told of the connection's end: the kernel tells it once, and lets a receive after that
    /// find a clean end.
    cut_off: Cell<Option<i32>>,
    /// What is known of zero-copy sends to its peer. Asked for at the first of them.
    remote_host: OnceCell<Rc<RemoteHost>>,
    /// Zero-copy sends whose blocks the kernel holds.
    lent: Cell<u32>,
    ownership: RefCell<Ownership>,
    /// Closing it may take long (`SO_LINGER`), as far as is known.
    lingers: Cell<bool>,
    /// Its connection was reset, to have blocks back.
    was_reset: Cell<bool>,
    /// What comes before the chain: what is left of a chunk that was taken in part, what came with the socket
    /// from another core, and all that comes in [parts](crate::buf::fragments) of buffers.
    rest: RefCell<VecDeque<Lease>>,
    pub(super) writing: Cell<Writing>,
    pub(super) writers: Waiters,
}

/// What a socket has beside its descriptor when it goes from core to core.
pub(super) struct DetachedState {
    /// Chunks that came and were not taken.
    pub(super) chunks: VecDeque<Lease>,
    /// How receiving has ended, if it has.
    end: Option<Option<i32>>,
    /// What a send was told of the connection's end: receiving has not come to it, and bytes may lie before
    /// it.
    cut_off: Option<i32>,
    poisoned: bool,
    notice: Option<CloseNotice>,
    pub(super) lingers: bool,
}

impl Socket {
    /// What goes with the descriptor to another core, and the chunks that were just taken.
    pub(super) fn leave(&self, mut chunks: VecDeque<Lease>) -> DetachedState {
        // Whoever has them there does not know when this core waits for their buffers.
        Core::try_with(|core| {
            if core.bufs.are_few() {
                let copied = core.bufs.copy_out(core.shared.clone(), &mut chunks, false);
                core.shared.counters.recv_spilt.add(copied as u64);
            }
        });
        // Nobody can still be sending: the connection was given up. If so, what has left is unknown.
        let poisoned = !self.is_between_sends();
        let notice = self.ownership.borrow_mut().hand_on(self.lent.get() > 0);
        DetachedState {
            chunks,
            end: self.over(),
            cut_off: self.cut_off(),
            poisoned,
            notice,
            lingers: self.lingers.get(),
        }
    }

    /// It stays after all.
    pub(super) fn stay(&self, state: DetachedState) {
        *self.rest.borrow_mut() = state.chunks;
        *self.ownership.borrow_mut() = Ownership::Ours(state.notice);
    }

    /// A socket that came from another core.
    pub(super) fn arrived(fd: OwnedFd, state: DetachedState) -> Rc<Self> {
        let socket = Self::new(fd);
        if let Some(end) = state.end {
            socket.receiving.set(Receiving::Over(end));
        }
        socket.cut_off.set(state.cut_off);
        if state.poisoned {
            socket.writing.set(Writing::Poisoned);
        }
        socket.lingers.set(state.lingers);
        socket.stay(state);
        socket
    }

    /// Of a connection.
    pub(crate) fn new(fd: OwnedFd) -> Rc<Self> {
        Self::of(fd, Kind::Stream)
    }

    /// For datagrams.
    pub(super) fn datagram(fd: OwnedFd, member: Option<Member>) -> Rc<Self> {
        Self::of(fd, Kind::Datagram(member))
    }

    fn of(fd: OwnedFd, kind: Kind) -> Rc<Self> {
        Rc::new(Self {
            fd: Some(fd),
            kind,
            receiving: Cell::new(Receiving::Idle),
            chain: Cell::new(Chain::EMPTY),
            overfull: Cell::new(false),
            is_known_idle: Cell::new(false),
            queued: Cell::new(false),
            unwritten: Cell::new(false),
            released: Cell::new(false),
            reader: RefCell::new(None),
            readers: Waiters::default(),
            cut_off: Cell::new(None),
            remote_host: OnceCell::new(),
            lent: Cell::new(0),
            ownership: RefCell::new(Ownership::Ours(None)),
            lingers: Cell::new(false),
            was_reset: Cell::new(false),
            rest: RefCell::default(),
            writing: Cell::new(Writing::Free),
            writers: Waiters::default(),
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("taken in Drop only").as_fd()
    }

    /// The kernel has let go of a zero-copy send's pages, and says whether it copied them.
    pub(crate) fn zc_notified(&self, core: &Core, copied: bool) {
        if copied {
            core.shared.counters.zc_copied.add(1);
        }
        if let Some(host) = self.remote_host.get() {
            host.notified(copied);
        }
    }

    /// Whether sending without a copy is worth its while on the way to this peer, as far as is known.
    pub(crate) fn may_skip_copy(&self, core: &Core) -> bool {
        self.remote_host.get_or_init(|| core.zero_copy.remote_host_of(self.fd())).may_skip_copy()
    }

    /// Zero-copy sends of which the kernel has not said that it has let go of their blocks.
    pub(crate) fn lent(&self) -> u32 {
        self.lent.get()
    }

    /// Whether the connection is this core's, or was closed by whom it was given to.
    pub(super) fn is_ours(&self) -> bool {
        self.ownership.borrow().is_ours()
    }

    /// Resets the connection, so that the network lets go of what it was lent; not if it is another's by now.
    pub(crate) fn reset(&self, why: &str) {
        if !self.is_ours() || self.was_reset.replace(true) {
            return;
        }
        let reset = sys::disconnect(self.fd());
        Core::try_with(|core| core.shared.counters.zc_resets.add(1));
        match reset {
            Ok(()) => tracing::debug!("connection reset with zero-copy sends under way: {why}"),
            Err(e) => tracing::warn!("connection with zero-copy sends under way cannot be reset: {e}"),
        }
    }

    /// Ends the connection by a reset (`connect(2)` with `AF_UNSPEC`): what was not sent is thrown away. A
    /// Unix socket knows no reset, and stays as it is.
    pub(crate) fn abort(&self) {
        if let Err(e) = sys::disconnect(self.fd()) {
            tracing::trace!("a connection cannot be reset: {e}");
        }
    }

    /// Whether the connection has failed, or was closed in both directions (`poll(2)`: `POLLERR`, `POLLHUP`).
    pub(super) fn is_gone(&self) -> bool {
        sys::is_gone(self.fd())
    }

    /// Says whether closing it may take long.
    pub(super) fn set_lingers(&self, lingers: bool) {
        self.lingers.set(lingers);
    }

    /// The socket cannot send without a copy at all, as a Unix socket cannot.
    pub(super) fn never_skip_copy(&self) {
        self.remote_host.get_or_init(Rc::default).never_skip_copy();
    }

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
        match self.receiving.get() {
            Receiving::Over(end) => {
                core.budget.spend();
                if let Kind::Datagram(_) = self.kind {
                    self.receiving.set(Receiving::Idle);
                }
                return Poll::Ready(match end {
                    None => Ok(None),
                    Some(errno) => Err(io::Error::from_raw_os_error(errno)),
                });
            }
            // Who has just been served must not push in before those that wait for a buffer: a receive takes
            // as many as there are.
            Receiving::Idle if core.fairness.is_short() => self.starve(core),
            Receiving::Idle => self.arm(core),
            Receiving::Armed(_) | Receiving::Ending(_) | Receiving::Starved => {}
        }
        self.wait(cx, place, Self::has_something);
        Poll::Pending
    }

    /// Waits for what comes next: alone, or behind others at a place that
    /// [`wait_is_over`](Self::wait_is_over) gives up. `has_come` looks for it once more when the waker was
    /// cloned, as in [`Waiters::wait`].
    fn wait(&self, cx: &Context<'_>, place: &mut Option<u64>, has_come: impl FnOnce(&Self) -> bool) {
        let stands = self.reader.borrow().as_ref().map(|waker| waker.will_wake(cx.waker()));
        match stands {
            Some(true) => {}
            None if self.readers.is_empty() => {
                // Cloned and dropped with nothing borrowed: what either does is not ours to know.
                let waker = cx.waker().clone();
                if let Some(other) = self.reader.replace(Some(waker)) {
                    // It has come while ours was cloned, and waits anew.
                    other.wake();
                }
                if has_come(self) {
                    cx.waker().wake_by_ref();
                }
            }
            _ => self.wait_behind(cx, place, has_come),
        }
    }

    #[cold]
    fn wait_behind(&self, cx: &Context<'_>, place: &mut Option<u64>, has_come: impl FnOnce(&Self) -> bool) {
        *place = Some(self.readers.wait(*place, cx.waker(), |_| has_come(self)));
    }

    /// Whether a receive is armed, or its end awaited.
    fn is_receiving(&self) -> bool {
        matches!(self.receiving.get(), Receiving::Armed(_) | Receiving::Ending(_))
    }

    /// Whether there is something for a reader: bytes, the end, or a receive to ask for.
    fn has_something(&self) -> bool {
        let comes = self.is_receiving() || self.receiving.get() == Receiving::Starved;
        !comes || self.chain.get().len() > 0 || !self.rest.borrow().is_empty()
    }

    /// A wait to receive is over.
    pub(crate) fn wait_is_over(&self, place: &mut Option<u64>) {
        if let Some(place) = place.take() {
            self.readers.leave(place);
        }
    }

    /// Whether somebody waits to receive.
    fn is_waited_for(&self) -> bool {
        self.reader.borrow().is_some() || !self.readers.is_empty()
    }

    fn starve(self: &Rc<Self>, core: &Core) {
        self.receiving.set(Receiving::Starved);
        if !self.queued.replace(true) {
            core.fairness.wait_for_buffer(Rc::downgrade(self) as _);
        }
    }

    /// It was taken out of the queue of streams that wait for a buffer.
    pub(crate) fn left_queue(&self) {
        self.queued.set(false);
    }

    fn arm(self: &Rc<Self>, core: &Core) {
        let socket = Rc::clone(self);
        let key = match self.kind {
            Kind::Stream if core.bufs.come_in_fragments() => Self::arm_fragments(socket, core),
            Kind::Stream => core.ops.submit_multi(&core.ring, RecvMulti { socket }),
            Kind::Datagram(_) => core.ops.submit_multi(&core.ring, RecvMsgMulti::new(socket)),
        };
        self.receiving.set(Receiving::Armed(key));
    }

    /// A CQE of the receive: bytes in `buffer`, the end, or an error. `last` tells that the operation has
    /// ended.
    pub(super) fn received(
        self: &Rc<Self>,
        core: &Core,
        buffer: Option<u16>,
        result: io::Result<u32>,
        last: bool,
    ) {
        let was_ending = matches!(self.receiving.get(), Receiving::Ending(_));
        if last {
            self.receiving.set(Receiving::Idle);
        }
        match (result, buffer) {
            (Ok(n), Some(buffer)) if n > 0 => {
                let before = if let Kind::Datagram(_) = self.kind { recv_msg::BEFORE as u64 } else { 0 };
                core.shared.counters.recv_bytes.add(u64::from(n).saturating_sub(before));
                let mut chain = self.chain.get();
                core.bufs.push(&mut chain, buffer, n);
                self.chain.set(chain);
                if chain.len() >= self.hold_back_at() || core.bufs.are_few() {
                    self.inspect_later(core);
                }
            }
            (Ok(_), buffer) => {
                if let Some(buffer) = buffer {
                    core.bufs.recycle(buffer);
                }
                self.ended();
            }
            (Err(e), buffer) => {
                if let Some(buffer) = buffer {
                    core.bufs.recycle(buffer);
                }
                self.failed(core, &e, was_ending);
            }
        }
        self.wake_reader();
    }

    /// At the end of the tick it is looked at whether somebody took what is here.
    #[inline(always)]
    fn inspect_later(self: &Rc<Self>, core: &Core) {
        if !self.overfull.replace(true) {
            core.fairness.inspect_later(Rc::clone(self) as _);
        }
    }

    /// A receive found the end, which is none where a send was told of another.
    fn ended(&self) {
        self.receiving.set(Receiving::Over(self.cut_off.get()));
    }

    #[inline(always)]
    fn failed(self: &Rc<Self>, core: &Core, error: &io::Error, was_ending: bool) {
        match error.raw_os_error() {
            Some(libc::ENOBUFS) => {
                let counters = &core.shared.counters;
                let counter =
                    if core.bufs.has_some() { &counters.recv_ring_empty } else { &counters.recv_starved };
                counter.add(1);
                // Only a stream whose reader waits needs a buffer; another arms anew when it is read.
                if self.is_waited_for() && !was_ending {
                    self.starve(core);
                }
            }
            // Our own cancel, or the kernel's wish to be asked again.
            Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {}
            errno => self.receiving.set(Receiving::Over(Some(errno.unwrap_or(libc::EIO)))),
        }
    }

    fn wake_reader(self: &Rc<Self>) {
        // A reader that waits re-arms when it is polled and finds nothing.
        let reader = self.reader.borrow_mut().take();
        if !self.readers.is_empty() {
            return self.wake_all(reader);
        }
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Wakes several, the one that has waited longest first: one that has given up, or is not polled, keeps
    /// nobody else waiting.
    #[cold]
    fn wake_all(&self, first: Option<Waker>) {
        if let Some(first) = first {
            contained("a waker", || first.wake());
        }
        self.readers.wake_all();
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
        self.receiving.get() == Receiving::Starved && !self.released.get()
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
        let mut waiting = self.rest.take();
        let mut chain = self.chain.replace(Chain::EMPTY);
        while let Some(chunk) = core.bufs.pop(&mut chain) {
            waiting.push_back(chunk);
        }
        let has_bounds = matches!(self.kind, Kind::Datagram(_));
        let copied = core.bufs.copy_out(core.shared.clone(), &mut waiting, has_bounds);
        core.shared.counters.recv_spilt.add(copied as u64);
        let more = waiting.iter().any(|chunk| core.bufs.has_lent(chunk)) || self.is_receiving();
        self.rest.replace(waiting);
        self.is_known_idle.set(more);
        more
    }

    fn hold_back_at(&self) -> u32 {
        match self.kind {
            Kind::Stream => HOLD_BACK,
            Kind::Datagram(_) => HOLD_BACK_DATAGRAMS,
        }
    }

    fn end_receiving(&self, core: &Core) {
        if let Receiving::Armed(key) = self.receiving.get() {
            core.ops.cancel(&core.ring, key);
            self.receiving.set(Receiving::Ending(key));
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
        match self.receiving.get() {
            Receiving::Idle | Receiving::Over(_) => Poll::Ready(()),
            Receiving::Starved => {
                // It stands in the queue; when its turn comes it is found not to want a buffer, or to want
                // one again. Who waits for the receive that there will not be has to ask for another.
                self.receiving.set(Receiving::Idle);
                self.wake_reader();
                Poll::Ready(())
            }
            Receiving::Armed(_) | Receiving::Ending(_) => {
                self.wait(cx, place, |socket| !socket.is_receiving());
                Poll::Pending
            }
        }
    }

    /// Waits until no receive is armed.
    pub(crate) async fn quiet(self: &Rc<Self>) {
        let mut wait = ReadWait::new(self);
        poll_fn(|cx| Core::with(|core| wait.on.poll_quiet(core, cx, &mut wait.place))).await;
    }

    /// How receiving has ended, if it has: an error's errno, or none at the end of the stream. The kernel
    /// reports an error once, so who receives by other means must ask here first.
    pub(crate) fn over(&self) -> Option<Option<i32>> {
        match self.receiving.get() {
            Receiving::Over(end) => Some(end),
            _ => None,
        }
    }

    /// A send, or receiving by other means, has failed. If that is the connection's end, later receives are
    /// told of it.
    pub(crate) fn has_failed(&self, error: &io::Error) {
        if is_cut_off(error) && matches!(self.kind, Kind::Stream) {
            self.cut_off.set(error.raw_os_error());
        }
    }

    /// What was told of the connection's end, if it was.
    pub(crate) fn cut_off(&self) -> Option<i32> {
        self.cut_off.get()
    }

    /// Receiving by other means has found the end. What it is in truth: an error's errno, or none. Later
    /// receives find the same; one that is armed meanwhile, by a second reader, is told by the kernel.
    pub(crate) fn has_ended(&self) -> Option<i32> {
        if let Receiving::Idle = self.receiving.get() {
            self.ended();
        }
        self.cut_off.get()
    }

    /// Takes one chunk of what is there, without asking for more.
    pub(crate) fn take_chunk(&self, core: &Core) -> Option<Lease> {
        let rest = self.rest.borrow_mut().pop_front();
        if rest.is_some() {
            return rest;
        }
        let mut chain = self.chain.get();
        let lease = core.bufs.pop(&mut chain);
        self.chain.set(chain);
        lease
    }

    /// Gives back what is left of a chunk that was just taken: the next to be taken.
    pub(crate) fn put_back(self: &Rc<Self>, rest: Lease) {
        if !rest.is_empty() {
            self.rest.borrow_mut().push_front(rest);
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

    /// Waits until the socket is ready on one side.
    pub(crate) async fn ready(self: &Rc<Self>, ready: Ready) -> io::Result<()> {
        ask(PollOnce { fd: SocketFd(Rc::clone(self)), ready }).await
    }

    /// Nobody reads any more. Without a core the runtime has ended, and with it every operation.
    pub(super) fn stop_receiving(&self) {
        Core::try_with(|core| self.release(core));
    }

    /// A handle that could read, or one that could write, or both in one, is dropped. True: it was the last.
    pub(super) fn drop_handle(&self, read: bool, wrote: bool) -> bool {
        if read {
            self.stop_receiving();
        }
        self.unwritten.set(self.unwritten.get() || wrote);
        self.released.get() && self.unwritten.get()
    }

    /// The core has no more use for its place in the group.
    pub(super) fn leave_group(&self) {
        if let Kind::Datagram(Some(member)) = &self.kind {
            member.leave();
        }
    }

    /// The descriptor leaves the runtime.
    pub(super) fn give_up(&self) {
        self.ownership.borrow_mut().give_up();
    }

    /// The last handle gives the descriptor up: no operation holds the socket.
    pub(super) fn into_fd(mut self) -> OwnedFd {
        self.fd.take().expect("taken here and in Drop only")
    }

    /// Forgets who waited to receive. What dropping a waker does is not ours to know, so it comes last, and
    /// stays in here: this thread may be panicking.
    fn forget_reader(&self) {
        if let Some(reader) = self.reader.take() {
            contained("the destructor of a waker", || drop(reader));
        }
    }

    /// The reader is dropped: gives back what came and lets go of the receive.
    fn release(&self, core: &Core) {
        self.released.set(true);
        while self.take_chunk(core).is_some() {}
        if let Receiving::Armed(key) | Receiving::Ending(key) = self.receiving.replace(Receiving::Idle) {
            core.ops.abandon(&core.ring, key);
        }
        self.forget_reader();
    }
}

/// Whether an error is that of a connection, and not of the call. A reset is never told after the peer's end
/// has come (that is `EPIPE`, tcp_reset() in net/ipv4/tcp_input.c); the others may be, and then a stream that
/// was whole counts as cut off, which is the lesser evil.
fn is_cut_off(error: &io::Error) -> bool {
    use libc::{ECONNABORTED, ECONNRESET, EHOSTUNREACH, ENETDOWN, ENETUNREACH, ETIMEDOUT};
    let errnos = [ECONNABORTED, ECONNRESET, EHOSTUNREACH, ENETDOWN, ENETUNREACH, ETIMEDOUT];
    error.raw_os_error().is_some_and(|errno| errnos.contains(&errno))
}

/// One that waits to receive, and its place among those that do, if it is behind another.
pub(crate) struct ReadWait<'a> {
    on: &'a Rc<Socket>,
    place: Option<u64>,
}

impl<'a> ReadWait<'a> {
    pub(crate) fn new(on: &'a Rc<Socket>) -> Self {
        Self { on, place: None }
    }

    /// As [`Socket::poll_recv`].
    #[inline(always)]
    pub(crate) fn poll_recv(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        self.on.poll_recv(core, cx, &mut self.place)
    }
}

impl Drop for ReadWait<'_> {
    fn drop(&mut self) {
        self.on.wait_is_over(&mut self.place);
    }
}

/// A zero-copy send on a socket, which keeps it open, until the kernel has let go of its block.
pub(crate) struct ZcGuard(Rc<Socket>);

impl ZcGuard {
    pub(crate) fn new(socket: Rc<Socket>) -> Self {
        socket.lent.set(socket.lent.get() + 1);
        Self(socket)
    }

    pub(crate) fn socket(&self) -> &Rc<Socket> {
        &self.0
    }
}

impl Drop for ZcGuard {
    fn drop(&mut self) {
        self.0.lent.set(self.0.lent.get() - 1);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        match (self.fd.take(), &mut self.kind) {
            (Some(fd), Kind::Datagram(member)) => {
                // Nothing of it waits to be sent, so closing is quick. First the socket, then the word that
                // the address is free.
                drop(fd);
                drop(member.take());
            }
            // The last reference: no operation is in flight on this descriptor.
            (Some(fd), Kind::Stream) => close(fd, self.lingers.get()),
            (None, _) => {}
        }
        self.forget_reader();
    }
}

/// Closes the descriptor of a connection, from a core through its ring; without a core, close(2) does it. The
/// ring closes a socket on the core's own thread and, if it lingers, waits there (seen on 6.18), so one that
/// may is closed by a thread for blocking work.
pub(super) fn close(fd: OwnedFd, lingers: bool) {
    let mut fd = Some(fd);
    Core::try_with(|core| match fd.take() {
        Some(fd) if lingers => spawn_blocking(move || drop(fd)).detach(),
        Some(fd) => core.close(fd),
        None => {}
    });
}

/// Whether closing a socket that was made elsewhere may take long.
pub(super) fn lingers(fd: BorrowedFd<'_>) -> bool {
    // One that cannot say has no such option.
    rustix::net::sockopt::socket_linger(fd).is_ok_and(|linger| linger.is_some_and(|time| !time.is_zero()))
}

/// A socket as something that an operation keeps open.
#[derive(Clone)]
pub(crate) struct SocketFd(pub(crate) Rc<Socket>);

impl AsFd for SocketFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
