//! Listening sockets: what accepting has in common for TCP and Unix.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{SocketFlags, SocketType, accept_with, sockopt};

use super::connection::{Connection, adopt};
use super::family::Family;
use super::fd_budget::FdBudget;
use super::group::Member;
use super::listen_options::{BACKLOG, ListenOptions};
use super::socket::lingers;
use crate::contained::told;
use crate::core::Core;
use crate::error::os;
use crate::net::op::accept::{Accept, Accepting};
use crate::op::slots::Key;
use crate::place::Place;
use crate::sync::waiters::Waiters;
use crate::{Error, ErrorKind, Result};

/// Accepted connections that may wait for a call of `accept` before the kernel's backlog has to hold them.
const HOLD_BACK: usize = 64;
/// How long accepting rests when the process has no descriptor left.
const BACK_OFF: Duration = Duration::from_millis(20);

#[derive(Clone, Copy)]
enum AcceptState {
    Idle,
    Armed(Key),
    Ending(Key),
}

/// The part of a listener that the multishot accept keeps alive.
struct Shared {
    fd: Option<OwnedFd>,
    bound: Place,
    /// None for a socket that was made elsewhere.
    member: Option<Member>,
    /// Whether its socket is open on other cores as well. Connections are then accepted one by one: the
    /// kernel wakes the first in its queue, and a core that accepts again is queued at the end, so the cores
    /// get connections in turn. A multishot accept would keep its place in the queue.
    is_shared: Cell<bool>,
    accepting: Cell<AcceptState>,
    fd_budget: FdBudget,
    /// Whether closing an accepted connection may take long, which connections inherit. Only a socket that
    /// was made elsewhere can have that.
    lingers: bool,
    accepted: RefCell<VecDeque<io::Result<OwnedFd>>>,
    /// Each connection wakes all of them, so one that has given up, or is not polled, keeps nobody else
    /// waiting.
    waiters: Waiters,
}

impl Shared {
    fn new(fd: OwnedFd, bound: Place, member: Option<Member>) -> Rc<Self> {
        Rc::new(Self {
            fd_budget: FdBudget::new(fd.as_fd()),
            lingers: member.is_none() && lingers(fd.as_fd()),
            fd: Some(fd),
            bound,
            is_shared: Cell::new(member.as_ref().is_none_or(|member| member.is_shared)),
            member,
            accepting: Cell::new(AcceptState::Idle),
            accepted: RefCell::default(),
            waiters: Waiters::default(),
        })
    }

    /// Whether no accept is armed.
    fn is_quiet(&self) -> bool {
        matches!(self.accepting.get(), AcceptState::Idle)
    }

    fn end(&self, core: &Core) {
        if let AcceptState::Armed(key) = self.accepting.get() {
            core.ops.cancel(&core.ring, key);
            self.accepting.set(AcceptState::Ending(key));
        }
    }
}

impl Accepting for Shared {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("taken in Drop only").as_fd()
    }

    fn accepted(&self, core: &Core, result: io::Result<OwnedFd>, last: bool) {
        if last {
            self.accepting.set(AcceptState::Idle);
        }
        match result {
            Ok(fd) => {
                core.shared.counters.accepts.add(1);
                self.fd_budget.accepted(fd.as_fd());
                self.accepted.borrow_mut().push_back(Ok(fd));
            }
            // The connection ended before it was accepted, or the accept was cancelled. The next one is
            // tried.
            Err(e)
                if matches!(e.raw_os_error(), Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN))
                    || aborted(&e) => {}
            Err(e) => self.accepted.borrow_mut().push_back(Err(e)),
        }
        if self.accepted.borrow().len() >= HOLD_BACK || !self.fd_budget.for_many() {
            self.end(core);
        }
        self.waiters.wake_all();
    }
}

/// One task that waits for a listener, and its place in the queue, if it had to wait.
struct Wait<'a> {
    on: &'a Shared,
    place: Option<u64>,
}

impl<'a> Wait<'a> {
    fn new(on: &'a Shared) -> Self {
        Self { on, place: None }
    }

    /// Waits. `has_come` checks once more for what it waits for.
    fn wait(&mut self, cx: &Context<'_>, has_come: impl FnOnce(&Shared) -> bool) {
        self.place = Some(self.on.waiters.wait(self.place, cx.waker(), |_| has_come(self.on)));
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.on.waiters.leave(place);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The socket is dropped first, and then the address is reported free.
        drop(self.fd.take());
        drop(self.member.take());
    }
}

/// Errors of one connection, not of the listener (`accept(2)`, "Error handling").
fn aborted(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
        )
    )
}

/// A lack of a resource that comes back by itself, or a refusal by a firewall or a security module, which
/// would come again at once. Trying again without a pause would only waste CPU time.
fn exhausted(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS | libc::EPERM | libc::EOPNOTSUPP)
    )
}

/// A listening socket of the current core: a [`TcpListener`](super::TcpListener) or a
/// [`UnixListener`](super::UnixListener).
///
/// Dropping it closes it; connections that wait in its backlog are reset unless [`drain`](Self::drain) took
/// them, or another core shares the socket.
pub struct Listener<F: Family> {
    shared: Rc<Shared>,
    _family: PhantomData<F>,
}

impl<F: Family> Listener<F> {
    pub(super) fn listen_on(place: Place, options: &ListenOptions) -> Result<Self> {
        Core::with(|core| {
            let (fd, member) = Member::join(core, options.ask(), place)?;
            // From here on it ends as any listener does, whatever fails next.
            let this = Self::of(Shared::new(fd, member.bound.clone(), Some(member)));
            options.steer(this.shared.fd(), &this.shared.bound, core.shared.cpu)?;
            Ok(this)
        })
    }

    /// Takes over a socket that listens already: one that the service manager opened
    /// ([`inherited_sockets`](super::inherited_sockets)). It is made non-blocking and close-on-exec; its
    /// other options stay as they are.
    ///
    /// Give each core a clone of the one descriptor ([`OwnedFd::try_clone`]): all accept from its one
    /// backlog, one connection at a time, and the kernel wakes the core that has waited longest. Dropping the
    /// listener closes the descriptor and nothing more: whoever else has the socket open may go on with it.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when it is no listening stream socket of this family. `socket(7)`: `SO_DOMAIN`,
    /// `SO_TYPE`, `SO_ACCEPTCONN`.
    ///
    /// # Panics
    /// On a thread that is no core's.
    pub fn from_owned_fd(fd: OwnedFd) -> Result<Self> {
        adopt::<F>(&fd, SocketType::STREAM, F::LISTENER)?;
        let listens = sockopt::socket_acceptconn(&fd);
        if !listens.map_err(|e| Error::io("cannot read SO_ACCEPTCONN", os(e)))? {
            let what = "a socket that does not listen was given to a listener; call listen(2) on it first";
            return Err(Error::new(ErrorKind::Input, what));
        }
        let bound = Place::of(&fd)?;
        // It panics here, and not at the first accept, if there is no core.
        Core::with(|_| Ok(Self::of(Shared::new(fd, bound, None))))
    }

    /// Declares that nobody else accepts from a socket that was taken over, no other core and no other
    /// process. Connections are then accepted by one multishot operation, as on a socket of our own.
    pub fn sole(self) -> Self {
        self.shared.is_shared.set(false);
        self
    }

    /// Accepts connections one by one from now on, each when it is [asked for](Self::accept). The others wait
    /// in the backlog, however many there are. Without this some connections may be accepted before anybody
    /// asks for them.
    pub fn one_by_one(&self) {
        self.shared.is_shared.set(true);
    }

    fn of(shared: Rc<Shared>) -> Self {
        Self { shared, _family: PhantomData }
    }

    pub(super) fn place(&self) -> &Place {
        &self.shared.bound
    }

    /// Accepts the next connection.
    ///
    /// The first call arms a multishot accept that stays armed (Linux 5.19). Where `RLIMIT_NOFILE` is near,
    /// connections are accepted one by one, and a quarter of the descriptors (at most 256) is left to files
    /// and pipes: past that accepting rests for 20 ms at a time, and clients wait in the backlog meanwhile
    /// and are not lost. So a server should raise its limit before it listens.
    ///
    /// Several tasks may wait. Each connection wakes all of them, in the order in which they came, and one
    /// gets it.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when the listener itself fails.
    ///
    /// # Cancellation
    /// Safe: a connection that comes later waits for the next call.
    pub async fn accept(&self) -> Result<Connection<F>> {
        let mut resting = false;
        loop {
            let mut wait = Wait::new(&self.shared);
            let accepted = poll_fn(|cx| Core::with(|core| self.poll_accept(core, cx, &mut wait))).await;
            drop(wait);
            match accepted {
                Ok(fd) => return Ok(self.connection(fd)),
                Err(e) if exhausted(&e) => {
                    Core::with(|core| core.shared.counters.accept_backoffs.add(1));
                    if !std::mem::replace(&mut resting, true) {
                        tracing::warn!(
                            "accepting on {} rests until resources come back: {e}",
                            self.shared.bound
                        );
                    }
                    crate::time::sleep(BACK_OFF).await;
                }
                Err(e) => return Err(Error::io(format!("cannot accept on {}", self.shared.bound), e)),
            }
        }
    }

    fn connection(&self, fd: OwnedFd) -> Connection<F> {
        Connection::from_fd(fd).lingering(self.shared.lingers)
    }

    fn poll_accept(
        &self,
        core: &Core,
        cx: &mut Context<'_>,
        wait: &mut Wait<'_>,
    ) -> Poll<io::Result<OwnedFd>> {
        if core.budget.poll(cx).is_pending() {
            return Poll::Pending;
        }
        let next = self.shared.accepted.borrow_mut().pop_front();
        if let Some(result) = next {
            core.budget.spend();
            return Poll::Ready(result);
        }
        if self.shared.is_quiet() {
            let many_fit = self.shared.fd_budget.for_many();
            let many = many_fit && !self.shared.is_shared.get();
            if !many_fit && !self.shared.fd_budget.for_one(self.shared.fd()) {
                return Poll::Ready(Err(io::Error::from_raw_os_error(libc::EMFILE)));
            }
            let key = core.ops.submit_multi(&core.ring, Accept { listener: Rc::clone(&self.shared), many });
            self.shared.accepting.set(AcceptState::Armed(key));
        }
        wait.wait(cx, |shared| !shared.accepted.borrow().is_empty() || shared.is_quiet());
        Poll::Pending
    }

    /// Stops listening and returns every connection that was complete by then, so that none is reset. When
    /// the backlog cannot be emptied, for lack of descriptors for example, the connections that were taken
    /// until then are returned, and a line is logged. `accept4(2)`, after the ring's own accept was cancelled
    /// (`io_uring_prep_cancel64(3)`, Linux 5.5).
    ///
    /// # Cancellation
    /// Dropping the future closes the listener and what it had taken.
    pub async fn drain(self) -> Vec<Connection<F>> {
        let mut wait = Wait::new(&self.shared);
        poll_fn(|cx| {
            Core::with(|core| {
                self.shared.end(core);
                if self.shared.is_quiet() {
                    return Poll::Ready(());
                }
                wait.wait(cx, Shared::is_quiet);
                Poll::Pending
            })
        })
        .await;
        drop(wait);
        let mut streams = Vec::new();
        for result in self.shared.accepted.take() {
            match result {
                Ok(fd) => streams.push(self.connection(fd)),
                // Contained, as what is told below: those that were taken would be lost.
                Err(e) => told(|| {
                    tracing::warn!("a connection on {} could not be taken at the end: {e}", self.shared.bound)
                }),
            }
        }
        // Clients that connect while this runs are taken too, but not for ever: a backlog holds no more.
        for _ in 0..BACKLOG {
            match accept_with(self.shared.fd(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).map_err(os) {
                Ok(fd) => streams.push(self.connection(fd)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted || aborted(&e) => {}
                Err(e) => {
                    told(|| {
                        tracing::warn!("connections in the backlog of {} are lost: {e}", self.shared.bound)
                    });
                    break;
                }
            }
            crate::task::consume_budget().await;
        }
        streams
    }
}

impl<F: Family> AsFd for Listener<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.fd()
    }
}

impl<F: Family> std::fmt::Debug for Listener<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("address", &self.shared.bound).finish_non_exhaustive()
    }
}

impl<F: Family> Drop for Listener<F> {
    fn drop(&mut self) {
        let mut still_listens = None;
        if let Some(member) = &self.shared.member {
            // The descriptor closes with the last CQE of its accept, a tick later. Until then it must not get
            // clients of a listener that binds the address again. So it is taken out of the kernel's table at
            // once (inet_shutdown()). The last member does so with a shared socket.
            if !member.is_unix() {
                still_listens = rustix::net::shutdown(self.shared.fd(), rustix::net::Shutdown::Read).err();
            }
            member.leave();
        }
        Core::try_with(|core| {
            if let AcceptState::Armed(key) | AcceptState::Ending(key) = self.shared.accepting.get() {
                core.ops.abandon(&core.ring, key);
            }
        });
        if let Some(e) = still_listens {
            told(|| tracing::debug!("{} listens for a moment longer: {e}", self.shared.bound));
        }
    }
}
