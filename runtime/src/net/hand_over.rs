//! A connection moves to another core: it is quiesced here and built again there, and no byte is lost.
//!
//! An overloaded core gives *connections* away, never pieces of work: all work for a connection then happens
//! on one core, near its memory.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::panic::Location;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::fcntl_dupfd_cloexec;

use super::connection::Connection;
use super::family::Family;
use super::socket::{DetachedState, Socket, close};
use crate::core::Core;
use crate::core::submit::send;
use crate::error::os;
use crate::task::spawn_at;
use crate::{Error, ErrorKind};

/// A connection that belongs to no core: it can be sent to any, and [attached](Detached::attach) there.
/// Dropping it closes the connection.
///
/// It holds all that the connection had: bytes that had come and were not taken (as leases, which go back to
/// the core that received them when they are dropped), whether the peer has ended its side or receiving has
/// failed, and whether the write side is poisoned. Half-closed sides and socket options are the kernel's and
/// stay as they are.
pub struct Detached<F: Family> {
    /// Taken when it is attached, and in `drop`.
    content: Option<(OwnedFd, DetachedState)>,
    _family: PhantomData<fn() -> F>,
}

impl<F: Family> Detached<F> {
    /// Makes a connection of the current core of it.
    ///
    /// # Panics
    /// On a thread that is no core's.
    pub fn attach(mut self) -> Connection<F> {
        Core::with(|_| ());
        let (fd, state) = self.content.take().expect("taken here and in Drop only");
        Connection::of(Socket::arrived(fd, state))
    }
}

impl<F: Family> Drop for Detached<F> {
    fn drop(&mut self) {
        // Where it does not linger, close(2) is quick, and done when this returns.
        if let Some((fd, state)) = self.content.take()
            && state.lingers
        {
            close(fd, true);
        }
    }
}

impl<F: Family> fmt::Debug for Detached<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = self.content.as_ref().map(|(fd, state)| (fd, state.chunks.len()));
        f.debug_struct("Detached")
            .field("fd", &content.map(|(fd, _)| fd))
            .field("chunks", &content.map(|(_, chunks)| chunks))
            .finish_non_exhaustive()
    }
}

impl<F: Family> Connection<F> {
    /// Takes the connection off this core: it stops receiving and packs all that the connection has, to be
    /// sent elsewhere.
    ///
    /// Where an operation still holds the socket (a send that was dropped and is being cancelled, a zero-copy
    /// send whose notification is due), the descriptor in the detached connection is a duplicate. Blocks that
    /// were sent without a copy stay lent by this core until the network releases them. While somebody has
    /// the connection, or the detached connection, this core does not reset it, not even at its own end. When
    /// it has been closed, the rules of [`send_zc`](Self::send_zc) apply again.
    ///
    /// # Errors
    /// Such a duplicate cannot be made (`EMFILE`, `fcntl(2)`). The connection comes back as it was.
    ///
    /// # Cancellation
    /// Closes the connection.
    pub async fn detach(self) -> Result<Detached<F>, HandOverError<F>> {
        let chunks = VecDeque::from(self.quiesce().await);
        let socket = self.into_socket();
        let state = socket.leave(chunks);
        let fd = match Rc::try_unwrap(socket) {
            Ok(socket) => socket.into_fd(),
            Err(shared) => match fcntl_dupfd_cloexec(shared.fd(), 0) {
                Ok(fd) => {
                    shared.reap_lent_blocks();
                    fd
                }
                Err(e) => {
                    let error = Error::io("cannot duplicate a socket that is still in use", os(e));
                    shared.stay(state);
                    return Err(HandOverError { error, connection: Some(Connection::of(shared)) });
                }
            },
        };
        Ok(Detached { content: Some((fd, state)), _family: PhantomData })
    }

    /// Gives the connection to core `core`, which runs `f` with it as a task of its own. It completes when
    /// that core has the connection.
    ///
    /// [`cores::neighbours`](crate::cores::neighbours) says which cores are near.
    ///
    /// # Errors
    /// There is no such core, or it has ended and did not take the connection. Then the connection comes back
    /// as it was. Also those of [`detach`](Self::detach).
    ///
    /// # Cancellation
    /// Closes the connection, unless the other core has it already.
    #[track_caller]
    pub fn hand_over<H>(
        self,
        core: usize,
        f: H,
    ) -> impl Future<Output = Result<(), HandOverError<F>>> + use<F, H>
    where
        H: AsyncFnOnce(Connection<F>) + Send + 'static,
    {
        let at = Location::caller();
        let target = Core::with(|here| here.peers.get(core).cloned().ok_or(here.peers.len()));
        async move {
            let target = match target {
                Ok(target) => target,
                Err(cores) => {
                    let what = format!("there is no core {core}: the runtime has {cores}, counted from 0");
                    let error = Error::new(ErrorKind::Input, what);
                    return Err(HandOverError { error, connection: Some(self) });
                }
            };
            // It stays here until the other core takes it. If that core does not, it comes back.
            let parked = Arc::new(Mutex::new(Some(self.detach().await?)));
            let take = |parked: &Mutex<Option<Detached<F>>>| {
                parked.lock().unwrap_or_else(PoisonError::into_inner).take()
            };
            let there = Arc::clone(&parked);
            let to = Arc::clone(&target);
            let handed = send(
                target,
                async move || {
                    if let Some(detached) = take(&there) {
                        spawn_at(at, async move { f(detached.attach()).await }).detach();
                    }
                },
                at,
            );
            match handed.await {
                Ok(()) => {
                    Core::with(|here| here.peers.count_handed(&here.shared.counters, &to));
                    Ok(())
                }
                Err(e) => {
                    Err(HandOverError { error: e.into(), connection: take(&parked).map(Detached::attach) })
                }
            }
        }
    }
}

/// A connection was not handed over.
#[non_exhaustive]
pub struct HandOverError<F: Family> {
    /// Why.
    pub error: Error,
    /// The connection, a connection of the core that wanted to give it away. None when the other core had
    /// taken it and then ended.
    pub connection: Option<Connection<F>>,
}

impl<F: Family> fmt::Debug for HandOverError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandOverError")
            .field("error", &self.error)
            .field("connection", &self.connection)
            .finish()
    }
}

impl<F: Family> fmt::Display for HandOverError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the connection was not handed over: {}", self.error)
    }
}

impl<F: Family> std::error::Error for HandOverError<F> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Closes the connection, if it came back.
impl<F: Family> From<HandOverError<F>> for Error {
    fn from(e: HandOverError<F>) -> Self {
        e.error
    }
}
