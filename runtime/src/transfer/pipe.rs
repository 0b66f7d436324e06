//! A pipe that spliced bytes pass through. It is held only while bytes are under way.

use std::cell::Cell;
use std::io;
#[cfg(all(any(test, feature = "played"), not(loom)))]
use std::os::fd::AsRawFd as _;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::task::Waker;

use rustix::pipe::{SpliceFlags, splice};

use crate::core::Core;
use crate::core::ask::{InFlight, ask};
use crate::core::pipe_pool::{Ends, PipePool};
use crate::error::os;
use crate::net::SocketFd;
use crate::op::poll::Ready;
use crate::op::splice::Splice;

/// A splice from a socket into a pipe of the pool.
pub(super) type Fill = Splice<SocketFd, WriteEnd>;
/// A splice from a pipe of the pool into a socket.
pub(super) type Empty = Splice<ReadEnd, SocketFd>;

/// A pipe in use, and how many bytes are in it. Operations of the ring hold it too, so a result that comes
/// after its transfer was dropped is still counted before it is decided whether the pipe is used again.
pub(crate) struct Pipe {
    ends: Option<Ends>,
    held: Cell<usize>,
    /// An operation of the ring moves bytes in or out, and its result has not come.
    busy: Cell<bool>,
    pool: Rc<PipePool>,
}

impl Pipe {
    /// An empty pipe of the current core.
    pub(crate) fn take() -> io::Result<Rc<Self>> {
        Core::with(|core| {
            let ends = core.pipes.take(&core.shared.counters)?;
            let pool = Rc::clone(&core.pipes);
            Ok(Rc::new(Self { ends: Some(ends), held: Cell::new(0), busy: Cell::new(false), pool }))
        })
    }

    fn ends(&self) -> &Ends {
        self.ends.as_ref().expect("taken in Drop only")
    }

    /// How many bytes fit, at most.
    pub(crate) fn size(&self) -> usize {
        self.ends().size
    }

    /// How many bytes are in it.
    pub(crate) fn held(&self) -> usize {
        self.held.get()
    }

    /// Splices into the pipe on the core. `EAGAIN` when the source has nothing. The pipe must not be full, or
    /// its own `EAGAIN` would be taken for the source's: debug builds assert it, as far as bytes tell.
    pub(crate) fn fill_now(
        &self,
        from: BorrowedFd<'_>,
        offset: Option<&mut u64>,
        len: usize,
    ) -> io::Result<usize> {
        debug_assert!(self.held.get() < self.size(), "filling a full pipe");
        let n = now(from, offset, self.ends().write.as_fd(), len, false)?;
        self.held.set(self.held.get() + n);
        Ok(n)
    }

    /// Splices out of the pipe on the core. `EAGAIN` when the target takes nothing.
    pub(crate) fn empty_now(&self, into: BorrowedFd<'_>, more: bool) -> io::Result<usize> {
        let n = now(self.ends().read.as_fd(), None, into, self.held.get(), more)?;
        self.held.set(self.held.get() - n);
        Ok(n)
    }

    /// Asks the ring to splice into the pipe from a socket, once the socket is readable. The result must be
    /// [counted](Self::filled).
    pub(super) fn ask_to_fill(self: &Rc<Self>, core: &Core, from: SocketFd, waker: &Waker) -> InFlight<Fill> {
        InFlight::new(core, self.to_fill(from, None, self.size()), waker)
    }

    /// Asks the ring to splice out of the pipe, once the socket is writable. The result must be
    /// [counted](Self::emptied).
    pub(super) fn ask_to_empty(
        self: &Rc<Self>,
        core: &Core,
        into: SocketFd,
        waker: &Waker,
    ) -> InFlight<Empty> {
        InFlight::new(core, self.to_empty(into, false), waker)
    }

    fn to_fill<I>(self: &Rc<Self>, from: I, offset: Option<u64>, len: usize) -> Splice<I, WriteEnd> {
        // If nobody sees the result the pipe stays busy, and is closed with the operation.
        self.busy.set(true);
        let wait = offset.is_none().then_some(Ready::Read);
        let (into, len) = (WriteEnd(Rc::clone(self)), len.min(1 << 30) as u32);
        Splice { from, offset, into, into_offset: None, len, wait, more: false }
    }

    fn to_empty<O>(self: &Rc<Self>, into: O, more: bool) -> Splice<ReadEnd, O> {
        self.busy.set(true);
        let (from, len) = (ReadEnd(Rc::clone(self)), self.held.get() as u32);
        Splice { from, offset: None, into, into_offset: None, len, wait: Some(Ready::Write), more }
    }

    /// Counts the ring's result: how many bytes have come into the pipe.
    pub(super) fn filled(&self, answer: io::Result<u32>) -> io::Result<usize> {
        let n = self.settle(answer)?;
        self.held.set(self.held.get() + n);
        Ok(n)
    }

    /// Counts the ring's result: how many bytes have left the pipe.
    pub(super) fn emptied(&self, answer: io::Result<u32>) -> io::Result<usize> {
        let n = self.settle(answer)?;
        self.held.set(self.held.get() - n);
        Ok(n)
    }

    /// Splices into the pipe by the ring: from a file at `offset`, or from a socket once it is readable.
    pub(crate) async fn fill<I: AsFd + 'static>(
        self: &Rc<Self>,
        from: I,
        offset: Option<u64>,
        len: usize,
    ) -> io::Result<usize> {
        let answer = ask(self.to_fill(from, offset, len)).await;
        self.filled(answer)
    }

    /// Takes an operation's result. Only success or a plain error shows that no byte moves any more: after a
    /// cancelled or interrupted operation the pipe counts as busy until the next plain result.
    fn settle(&self, answer: io::Result<u32>) -> io::Result<usize> {
        let errno = answer.as_ref().err().and_then(io::Error::raw_os_error);
        self.busy.set(matches!(errno, Some(libc::ECANCELED | libc::EINTR)));
        answer.map(|n| n as usize)
    }

    /// Splices out of the pipe by the ring, once the socket is writable.
    pub(crate) async fn empty<O: AsFd + 'static>(self: &Rc<Self>, into: O, more: bool) -> io::Result<usize> {
        let answer = ask(self.to_empty(into, more)).await;
        self.emptied(answer)
    }
}

/// `splice(2)` that never waits.
pub(super) fn now(
    from: BorrowedFd<'_>,
    offset: Option<&mut u64>,
    into: BorrowedFd<'_>,
    len: usize,
    more: bool,
) -> io::Result<usize> {
    #[cfg(all(any(test, feature = "played"), not(loom)))]
    if let Some(answer) = crate::net::played::ask(|p| p.splice(from.as_raw_fd(), into.as_raw_fd(), len)) {
        return answer;
    }
    let mut flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    flags.set(SpliceFlags::MORE, more);
    splice(from, offset, into, None, len, flags).map_err(os)
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        if self.held.get() > 0 || self.busy.get() {
            Core::try_with(|core| core.shared.counters.pipes_spoilt.add(1));
            return self.pool.close(ends);
        }
        self.pool.give_back(ends);
    }
}

pub(super) struct ReadEnd(Rc<Pipe>);

impl AsFd for ReadEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.ends().read.as_fd()
    }
}

pub(super) struct WriteEnd(Rc<Pipe>);

impl AsFd for WriteEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.ends().write.as_fd()
    }
}
