//! A connected socket: what it has, and how it is closed.
//!
//! The multishot receive holds the socket by a counted reference, so the descriptor is closed only after the
//! kernel's last CQE for it. Chunks that came and were not taken yet are a list linked through the core's
//! buffer table: no allocation, however many they are. Receiving has a pure state machine ([`receiving`]),
//! which `receive.rs` runs; `waiting.rs` has the tasks that wait for it. `lending.rs` has what the network
//! holds of zero-copy sends, and `travelling.rs` how a connection moves from core to core.

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
use crate::contained::told;
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
    /// Datagrams, each in its own buffer behind its sender's address. Errors do not end receiving. It has the
    /// group that the socket is bound in.
    Datagram(Option<Member>),
}

/// A connected socket, or one for datagrams. Its stream and the operations on it share it.
pub(crate) struct Socket {
    fd: Option<OwnedFd>,
    kind: Kind,
    receiving: Receiving<Key>,
    chain: Cell<Chain>,
    /// It is in the core's list of streams that are inspected when the tick ends.
    overfull: Cell<bool>,
    /// It is in the core's list of streams that nobody reads.
    is_known_idle: Cell<bool>,
    /// Its writer has been dropped.
    unwritten: Cell<bool>,
    /// The waker of a task that waits to receive, if only one does.
    reader: RefCell<Option<Waker>>,
    /// Tasks that wait behind another, in their order.
    readers: Waiters,
    /// What is known of zero-copy sends to its peer. It is looked up at the first of them.
    remote_host: OnceCell<Rc<RemoteHost>>,
    /// Zero-copy sends whose blocks the kernel holds. Each is an operation of the core's table, which holds
    /// 2^24 at most.
    lent: Cell<u32>,
    ownership: RefCell<Ownership>,
    /// Whether closing it may take long (`SO_LINGER`), as far as is known.
    lingers: Cell<bool>,
    /// Its connection was reset, to get blocks back.
    was_reset: Cell<bool>,
    /// What comes before the chain: the rest of a chunk that was taken in part, what came with the socket
    /// from another core, and everything that is received in [fragments](crate::buf::fragments).
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

    /// Ends the connection by a reset (`connect(2)` with `AF_UNSPEC`): unsent bytes are discarded. A Unix
    /// socket knows no reset, and stays as it is.
    pub(crate) fn abort(&self) {
        if let Err(e) = sys::disconnect(self.fd()) {
            told(|| tracing::trace!("a connection cannot be reset: {e}"));
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

    /// A handle that could read, write or both is dropped. `true`: it was the last.
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
                // No bytes of it wait to be sent, so closing is quick. The socket is closed before the
                // address is reported free.
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

/// Closes the descriptor of a connection: on a core through its ring, else by close(2). The ring closes a
/// socket on the core's own thread and waits there if it lingers (seen on 6.18), so a blocking thread closes
/// a socket that may linger.
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
    // A socket that cannot say has no such option.
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
