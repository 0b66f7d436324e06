//! Pipes: what spliced bytes pass through, pooled per core.
//!
//! A pipe is held only while bytes are under way, so ten thousand idle relays hold none. One that still has bytes is
//! closed, never pooled: the next transfer would send them. For a user without `CAP_SYS_RESOURCE` the kernel bounds all
//! pipes together (`pipe-user-pages-soft`, 64 MiB): past it `F_SETPIPE_SZ` fails with `EPERM` and new pipes shrink, so
//! the size is read back and a small pipe is used as it is (`pipe(7)`).

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::Waker;

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};
use rustix::process::{Resource, getrlimit};

use crate::core::Core;
use crate::error::os;
use crate::net::SocketFd;
use crate::op::poll::Ready;
use crate::op::splice::Splice;
use crate::op::{Asked, ask};

/// Size asked for. 16 of them are half of what an unprivileged user may hold.
const PIPE_SIZE: usize = 1 << 20;
/// Pipes that a core keeps for the next transfer.
const KEEP: usize = 16;

/// The idle pipes of a core.
pub(crate) struct PipePool {
    idle: RefCell<Vec<Ends>>,
    keep: usize,
}

/// Both ends of a pipe, which never wait.
pub(crate) struct Ends {
    pub(crate) read: OwnedFd,
    pub(crate) write: OwnedFd,
    size: usize,
}

impl PipePool {
    pub(crate) fn new() -> Rc<Self> {
        // Two descriptors each: where there are few, an idle pipe is worth less than a connection.
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let keep = KEEP.min((limit / 64) as usize);
        Rc::new(Self { idle: RefCell::new(Vec::with_capacity(keep)), keep })
    }

    /// An empty pipe of the current core.
    pub(crate) fn take() -> io::Result<Rc<Pipe>> {
        Core::with(|core| {
            let idle = core.pipes.idle.borrow_mut().pop();
            let ends = match idle {
                Some(ends) => ends,
                None => make(Some(PIPE_SIZE)).inspect(|_| core.shared.counters.pipes_made.add(1))?,
            };
            let pool = Rc::clone(&core.pipes);
            Ok(Rc::new(Pipe { ends: Some(ends), held: Cell::new(0), busy: Cell::new(false), pool }))
        })
    }
}

/// Whether a pipe could not be had for lack of something that comes back: then bytes are copied instead.
pub(super) fn is_lack(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// Makes a pipe, of so many bytes if the kernel lets us, or of the size that it usually has.
pub(crate) fn make(size: Option<usize>) -> io::Result<Ends> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(os)?;
    match size.map_or(Ok(0), |size| fcntl_setpipe_size(&write, size)) {
        Ok(_) | Err(rustix::io::Errno::PERM | rustix::io::Errno::BUSY | rustix::io::Errno::NOMEM) => {}
        Err(e) => return Err(os(e)),
    }
    let size = fcntl_getpipe_size(&write).map_err(os)?;
    Ok(Ends { read, write, size })
}

/// A splice from a socket into a pipe of the pool.
pub(super) type Fill = Splice<SocketFd, WriteEnd>;
/// A splice from a pipe of the pool into a socket.
pub(super) type Empty = Splice<ReadEnd, SocketFd>;

/// A pipe in use, and how many bytes are in it. Operations of the ring hold it too, so a result that comes after its
/// transfer was dropped is still counted before the pipe's fate is decided.
pub(crate) struct Pipe {
    ends: Option<Ends>,
    held: Cell<usize>,
    /// An operation of the ring moves bytes in or out, and has not answered.
    busy: Cell<bool>,
    pool: Rc<PipePool>,
}

impl Pipe {
    fn ends(&self) -> &Ends {
        self.ends.as_ref().expect("taken in Drop only")
    }

    /// Bytes that fit, at most.
    pub(crate) fn size(&self) -> usize {
        self.ends().size
    }

    /// Bytes inside.
    pub(crate) fn held(&self) -> usize {
        self.held.get()
    }

    /// Splices into the pipe on the core. `EAGAIN` when the source has nothing; the pipe must have room.
    pub(crate) fn fill_now(
        &self,
        from: BorrowedFd<'_>,
        offset: Option<&mut u64>,
        len: usize,
    ) -> io::Result<usize> {
        let n = now(from, offset, self.ends().write.as_fd(), len, false)?;
        self.held.set(self.held.get() + n);
        Ok(n)
    }

    /// Splices out of the pipe on the core. `EAGAIN` when the target has no room.
    pub(crate) fn empty_now(&self, into: BorrowedFd<'_>, more: bool) -> io::Result<usize> {
        let n = now(self.ends().read.as_fd(), None, into, self.held.get(), more)?;
        self.held.set(self.held.get() - n);
        Ok(n)
    }

    /// Asks the ring to splice into the pipe from a socket, once it is readable. The answer is to be [counted](Self::filled).
    pub(super) fn ask_to_fill(self: &Rc<Self>, core: &Core, from: SocketFd, waker: &Waker) -> Asked<Fill> {
        Asked::new(core, self.to_fill(from, None, self.size()), waker)
    }

    /// Asks the ring to splice out of the pipe, once the socket has room. The answer is to be [counted](Self::emptied).
    pub(super) fn ask_to_empty(self: &Rc<Self>, core: &Core, into: SocketFd, waker: &Waker) -> Asked<Empty> {
        Asked::new(core, self.to_empty(into, false), waker)
    }

    fn to_fill<I>(self: &Rc<Self>, from: I, offset: Option<u64>, len: usize) -> Splice<I, WriteEnd> {
        // If nobody sees the answer the pipe stays busy, and is closed with the operation.
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

    /// The ring has answered: how many bytes are in the pipe that were not.
    pub(super) fn filled(&self, answer: io::Result<u32>) -> io::Result<usize> {
        let n = self.settle(answer)?;
        self.held.set(self.held.get() + n);
        Ok(n)
    }

    /// The ring has answered: how many bytes have left the pipe.
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

    /// An operation has answered. Only a plain answer says that no byte moves any more: one that was cancelled or
    /// interrupted leaves the pipe under suspicion until the next plain answer.
    fn settle(&self, answer: io::Result<u32>) -> io::Result<usize> {
        let errno = answer.as_ref().err().and_then(io::Error::raw_os_error);
        self.busy.set(matches!(errno, Some(libc::ECANCELED | libc::EINTR)));
        answer.map(|n| n as usize)
    }

    /// Splices out of the pipe by the ring, once the socket has room.
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
    let mut flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    flags.set(SpliceFlags::MORE, more);
    splice(from, offset, into, None, len, flags).map_err(os)
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        if self.held.get() > 0 || self.busy.get() {
            Core::try_with(|core| core.shared.counters.pipes_spoilt.add(1));
            return;
        }
        let mut idle = self.pool.idle.borrow_mut();
        if idle.len() < self.pool.keep {
            idle.push(ends);
        }
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
