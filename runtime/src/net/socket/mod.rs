//! A connected socket: what it has, and how it is closed.
//!
//! The multishot receive holds the socket by a counted reference, so the descriptor is closed only after the
//! kernel's last CQE for it. Chunks that came and were not taken yet are a list linked through the core's
//! buffer table: no allocation, however many.
//! Receiving has a pure state machine ([`receiving`]), which `receive.rs` runs; `waiting.rs` is who waits for
//! it. `lending.rs` is what the network holds of zero-copy sends, `travelling.rs` how a connection leaves its
//! core and comes to another.

mod fragments;
mod lending;
mod receive;
mod receiving;
mod travelling;
mod waiting;
mod write_state;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::Waker;

use super::group::Member;
use super::ownership::Ownership;
use super::sys;
use crate::buf::Lease;
use crate::buf::chain::Chain;
use crate::core::Core;
use crate::core::ask::ask;
use crate::core::remote_hosts::RemoteHost;
use crate::op::poll::{PollOnce, Ready};
use crate::op::slots::Key;
use crate::spawn_blocking;
use crate::sync::waiters::Waiters;
pub(crate) use lending::ZcGuard;
use receiving::Receiving;
pub(super) use travelling::DetachedState;
pub(crate) use waiting::ReadWait;
pub(super) use write_state::Writing;

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
    receiving: Receiving<Key>,
    chain: Cell<Chain>,
    /// It is in the core's list of streams that are inspected when the tick ends.
    overfull: Cell<bool>,
    /// Stands in the core's list of streams that nobody reads.
    is_known_idle: Cell<bool>,
    /// Its writer has been dropped.
    unwritten: Cell<bool>,
    /// Who waits to receive, of those that wait alone.
    reader: RefCell<Option<Waker>>,
    /// Those that wait behind another, in their order.
    readers: Waiters,
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
    /// from another core, and all that comes in [fragments](crate::buf::fragments) of buffers.
    rest: RefCell<VecDeque<Lease>>,
    pub(super) writing: Cell<Writing>,
    pub(super) writers: Waiters,
}

impl Socket {
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
            receiving: Receiving::new(),
            chain: Cell::new(Chain::EMPTY),
            overfull: Cell::new(false),
            is_known_idle: Cell::new(false),
            unwritten: Cell::new(false),
            reader: RefCell::new(None),
            readers: Waiters::default(),
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

    /// Waits until the socket is ready on one side.
    pub(crate) async fn ready(self: &Rc<Self>, ready: Ready) -> io::Result<()> {
        ask(PollOnce { fd: SocketFd(Rc::clone(self)), ready }).await
    }

    /// A handle that could read, or one that could write, or both in one, is dropped. True: it was the last.
    pub(super) fn drop_handle(&self, read: bool, wrote: bool) -> bool {
        if read {
            self.stop_receiving();
        }
        self.unwritten.set(self.unwritten.get() || wrote);
        self.receiving.is_released() && self.unwritten.get()
    }

    /// The core has no more use for its place in the group.
    pub(super) fn leave_group(&self) {
        if let Kind::Datagram(Some(member)) = &self.kind {
            member.leave();
        }
    }

    /// The last handle gives the descriptor up: no operation holds the socket.
    pub(super) fn into_fd(mut self) -> OwnedFd {
        self.fd.take().expect("taken here and in Drop only")
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
