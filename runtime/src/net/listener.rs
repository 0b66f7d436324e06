//! Listening sockets.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::net::{SocketFlags, accept_with, sockopt};

use super::TcpStream;
use super::group::BACKLOG;
use super::room::Room;
use crate::core::Core;
use crate::error::os;
use crate::op::accept::Accept;
use crate::op::slots::Key;
use crate::runtime::state::RuntimeShared;
use crate::{Error, ErrorKind, Result};

/// Accepted connections that may wait for a call of `accept` before the kernel's backlog has to hold them.
const HOLD_BACK: usize = 64;
/// How long accepting rests when the process has no descriptor left.
const BACK_OFF: Duration = Duration::from_millis(20);

#[derive(Clone, Copy)]
enum Accepting {
    Idle,
    Armed(Key),
    Ending(Key),
}

/// The part of a listener that the multishot accept keeps alive.
pub(crate) struct Shared {
    fd: Option<OwnedFd>,
    requested: SocketAddr,
    bound: SocketAddr,
    runtime: Arc<RuntimeShared>,
    accepting: Cell<Accepting>,
    room: Room,
    came: RefCell<VecDeque<io::Result<OwnedFd>>>,
    waiter: RefCell<Option<Waker>>,
}

impl Shared {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("taken in Drop only").as_fd()
    }

    /// A CQE of the accept.
    pub(crate) fn accepted(&self, core: &Core, result: io::Result<OwnedFd>, last: bool) {
        if last {
            self.accepting.set(Accepting::Idle);
        }
        match result {
            Ok(fd) => {
                core.shared.counters.accepts.add(1);
                self.room.accepted(fd.as_fd());
                self.came.borrow_mut().push_back(Ok(fd));
            }
            // The connection ended before it was accepted, or the accept was cancelled: the next one.
            Err(e)
                if matches!(e.raw_os_error(), Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN))
                    || aborted(&e) => {}
            Err(e) => self.came.borrow_mut().push_back(Err(e)),
        }
        if self.came.borrow().len() >= HOLD_BACK || !self.room.for_many() {
            self.end(core);
        }
        let waiter = self.waiter.borrow_mut().take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    fn wait(&self, cx: &Context<'_>) {
        // The old waker is dropped after the borrow: what dropping it does is not ours to know.
        drop(self.waiter.replace(Some(cx.waker().clone())));
    }

    fn end(&self, core: &Core) {
        if let Accepting::Armed(key) = self.accepting.get() {
            core.ops.cancel(&core.ring, key);
            self.accepting.set(Accepting::Ending(key));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // First the socket, then the word that the address is free of it.
        drop(self.fd.take());
        self.runtime.groups.closed(self.requested, self.bound);
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

/// Lack of something that comes back by itself, or a refusal by a firewall or a security module, which would come again
/// at once: trying again without a rest would only burn the core.
fn exhausted(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS | libc::EPERM | libc::EOPNOTSUPP)
    )
}

/// A listening socket of the current core.
///
/// Each core that binds the same address gets its own socket of one group, and the kernel spreads connections over
/// those that listen. Port 0 gives one real port, the same for all cores. Dropping the listener closes it; connections
/// that wait in its backlog are reset unless [`drain`](Self::drain) took them.
pub struct TcpListener {
    shared: Rc<Shared>,
}

impl TcpListener {
    /// This core's member of the group that listens on `address`. It listens when this returns.
    ///
    /// Give an address, not a name: a name is looked up by the system's resolver, which holds the core up, and only
    /// the first address that it gives is used.
    ///
    /// # Errors
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) when the address cannot be read, the port is taken, the address is not this machine's or the port needs a privilege.
    ///
    /// # Panics
    /// On a thread that is no core's.
    pub fn bind(address: impl ToSocketAddrs) -> Result<Self> {
        let address = address
            .to_socket_addrs()
            .and_then(|mut all| all.next().ok_or_else(|| io::ErrorKind::NotFound.into()))
            .map_err(|e| Error::with_source(ErrorKind::Input, "this is no address to listen on", e))?;
        Core::with(|core| {
            let runtime = Arc::clone(&core.shared.runtime);
            let (fd, bound) = runtime.groups.join(address, core.shared.index, runtime.cores())?;
            let room = Room::new(fd.as_fd());
            let shared = Shared {
                room,
                fd: Some(fd),
                requested: address,
                bound,
                runtime,
                accepting: Cell::new(Accepting::Idle),
                came: RefCell::default(),
                waiter: RefCell::default(),
            };
            Ok(Self { shared: Rc::new(shared) })
        })
    }

    /// The address that it listens on, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.bound
    }

    /// Asks the kernel to give this core the connections whose packets arrive on its CPU (`SO_INCOMING_CPU`, socket(7)), in
    /// place of spreading them by a hash. Then interrupt, kernel's memory of the connection and core are on one node. Call it
    /// on every core of the group; a connection that arrives on another CPU goes by the hash as before.
    ///
    /// Worth it where packets arrive on all CPUs (one receive queue for each, or RPS). Where they arrive on few, those few cores
    /// get all the work. A group heeds it since Linux 6.2; before, nothing changes.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when the kernel refuses the option.
    pub fn prefer_own_cpu(&self) -> Result<()> {
        let cpu = Core::with(|core| core.shared.cpu);
        sockopt::set_socket_incoming_cpu(self.shared.fd(), cpu.0)
            .map_err(|e| Error::io(format!("cannot ask for the connections of CPU {}", cpu.0), os(e)))
    }

    /// The next connection.
    ///
    /// The first call arms a multishot accept that stays armed (Linux 5.19). Where `RLIMIT_NOFILE` is near, connections
    /// are accepted one by one, and a quarter of the descriptors (at most 256) is left to files and pipes: past it
    /// accepting rests for 20 ms at a time, and clients wait in the backlog meanwhile and are not lost. So a server does
    /// well to raise its limit before it listens.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when the listener itself fails.
    ///
    /// # Cancellation
    /// Safe: a connection that comes later waits for the next call.
    pub async fn accept(&self) -> Result<TcpStream> {
        let mut resting = false;
        loop {
            match poll_fn(|cx| Core::with(|core| self.poll_accept(core, cx))).await {
                Ok(fd) => return Ok(TcpStream::from_fd(fd)),
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

    fn poll_accept(&self, core: &Core, cx: &mut Context<'_>) -> Poll<io::Result<OwnedFd>> {
        if core.budget.poll(cx).is_pending() {
            return Poll::Pending;
        }
        let next = self.shared.came.borrow_mut().pop_front();
        if let Some(result) = next {
            core.budget.spend();
            return Poll::Ready(result);
        }
        if let Accepting::Idle = self.shared.accepting.get() {
            let many = self.shared.room.for_many();
            if !many && !self.shared.room.for_one(self.shared.fd()) {
                return Poll::Ready(Err(io::Error::from_raw_os_error(libc::EMFILE)));
            }
            let key = core.ops.submit_multi(&core.ring, Accept { listener: Rc::clone(&self.shared), many });
            self.shared.accepting.set(Accepting::Armed(key));
        }
        self.shared.wait(cx);
        Poll::Pending
    }

    /// Stops listening and gives every connection that was complete by then, so that none is reset. When the backlog
    /// cannot be emptied, for lack of descriptors for example, what was taken until then is given, and a line is logged.
    ///
    ///
    /// # Cancellation
    /// Dropping the future closes the listener and what it had taken.
    pub async fn drain(self) -> Vec<TcpStream> {
        poll_fn(|cx| {
            Core::with(|core| {
                self.shared.end(core);
                if let Accepting::Idle = self.shared.accepting.get() {
                    return Poll::Ready(());
                }
                self.shared.wait(cx);
                Poll::Pending
            })
        })
        .await;
        let mut streams = Vec::new();
        for result in self.shared.came.take() {
            match result {
                Ok(fd) => streams.push(TcpStream::from_fd(fd)),
                Err(e) => {
                    tracing::warn!("a connection on {} could not be taken at the end: {e}", self.shared.bound)
                }
            }
        }
        // Clients that connect while this runs are taken too, but not for ever: a backlog holds no more than this.
        for _ in 0..BACKLOG {
            match accept_with(self.shared.fd(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).map_err(os) {
                Ok(fd) => streams.push(TcpStream::from_fd(fd)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted || aborted(&e) => {}
                Err(e) => {
                    tracing::warn!("connections in the backlog of {} are lost: {e}", self.shared.bound);
                    break;
                }
            }
            crate::task::consume_budget().await;
        }
        streams
    }
}

impl std::fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpListener").field("address", &self.shared.bound).finish_non_exhaustive()
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        // The descriptor closes with the last word of its accept, a turn later. Until then it must not be handed clients
        // that mean a listener bound anew: shutting it down takes it out of the kernel's table at once (inet_shutdown()).
        if let Err(e) = rustix::net::shutdown(self.shared.fd(), rustix::net::Shutdown::Read) {
            tracing::debug!("{} listens for a moment longer: {e}", self.shared.bound);
        }
        Core::try_with(|core| {
            let Shared { requested, bound, runtime, .. } = &*self.shared;
            runtime.groups.leave(*requested, *bound, core.shared.index);
            if let Accepting::Armed(key) | Accepting::Ending(key) = self.shared.accepting.get() {
                core.ops.abandon(&core.ring, key);
            }
        });
    }
}
