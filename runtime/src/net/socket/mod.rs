//! A connected socket: what it has, and how it is closed.
//!
//! The multishot receive holds the socket by a counted reference, so the descriptor is closed only after the
//! kernel's last CQE for it. Chunks that came and were not taken yet are a list linked through the core's
//! buffer table: no allocation, however many they are. Receiving has a pure state machine ([`receiving`]),
//! which `receive.rs` runs; `waiting.rs` has the tasks that wait for it. `lending.rs` has what the network
//! holds of zero-copy sends, and `travelling.rs` how a connection moves from core to core. What few sockets
//! need is apart (`rare.rs`), because a server may have very many that only wait.

mod fragments;
mod lending;
mod rare;
mod receive;
mod receiving;
mod travelling;
mod waiting;
mod write_state;

use std::cell::{Cell, OnceCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::Waker;

use super::group::Member;
use super::sys;
use crate::buf::chain::Chain;
use crate::contained::told;
use crate::core::Core;
use crate::core::ask::ask;
use crate::op::poll::{PollOnce, Ready};
use crate::op::slots::Key;
use crate::spawn_blocking;
use crate::sync::waiters::Waiters;
pub(crate) use lending::ZcGuard;
use rare::Rare;
use receiving::Receiving;
pub(super) use travelling::DetachedState;
pub(crate) use waiting::ReadWait;
pub(super) use write_state::Writing;

/// What comes.
#[derive(Clone, Copy)]
enum Kind {
    /// Bytes, which have an end.
    Stream,
    /// Datagrams, each in its own buffer behind its sender's address. Errors do not end receiving.
    Datagram,
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
    /// Whether closing it may take long (`SO_LINGER`), as far as is known.
    lingers: Cell<bool>,
    pub(super) writing: Cell<Writing>,
    /// The waker of a task that waits to receive, if only one does.
    reader: Cell<Option<Waker>>,
    /// Present once it was needed.
    rare: OnceCell<Box<Rare>>,
}

impl Socket {
    /// Of a connection.
    pub(crate) fn new(fd: OwnedFd) -> Rc<Self> {
        Self::of(fd, Kind::Stream, OnceCell::new())
    }

    /// For datagrams.
    pub(super) fn datagram(fd: OwnedFd, member: Option<Member>) -> Rc<Self> {
        let rare = member.map(|member| Box::new(Rare::of_member(member)));
        Self::of(fd, Kind::Datagram, rare.map_or_else(OnceCell::new, OnceCell::from))
    }

    fn of(fd: OwnedFd, kind: Kind, rare: OnceCell<Box<Rare>>) -> Rc<Self> {
        Rc::new(Self {
            fd: Some(fd),
            kind,
            receiving: Receiving::new(),
            chain: Cell::new(Chain::EMPTY),
            overfull: Cell::new(false),
            is_known_idle: Cell::new(false),
            unwritten: Cell::new(false),
            lingers: Cell::new(false),
            writing: Cell::new(Writing::Free),
            reader: Cell::new(None),
            rare,
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
        if let Some(member) = self.rare.get().and_then(|rare| rare.member.as_ref()) {
            member.leave();
        }
    }

    /// What few need, made if it is not there. Whoever only asks for it takes what [`rare`](Socket::rare)
    /// has.
    #[inline(always)]
    fn rare(&self) -> &Rare {
        match self.rare.get() {
            Some(rare) => rare,
            None => self.make_rare(),
        }
    }

    #[cold]
    #[inline(never)]
    fn make_rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    /// Whether there is something before the chain.
    fn has_rest(&self) -> bool {
        self.rare.get().is_some_and(|rare| !rare.rest.borrow().is_empty())
    }

    /// Where tasks wait for one that sends.
    pub(super) fn writers(&self) -> &Waiters {
        &self.rare().writers
    }

    /// The same, if some do.
    #[inline(always)]
    pub(super) fn waiting_writers(&self) -> Option<&Waiters> {
        self.rare.get().map(|rare| &rare.writers).filter(|writers| !writers.is_empty())
    }

    /// The last handle gives the descriptor up: no operation holds the socket.
    pub(super) fn into_fd(mut self) -> OwnedFd {
        self.fd.take().expect("taken here and in Drop only")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        match (self.fd.take(), self.kind) {
            (Some(fd), Kind::Datagram) => {
                // No bytes of it wait to be sent, so closing is quick. The socket is closed before the
                // address is reported free.
                drop(fd);
                drop(self.rare.get_mut().and_then(|rare| rare.member.take()));
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
