//! The idle pipes of a core.
//!
//! A pipe is held only while bytes are under way, so ten thousand idle relays hold none. One that still has
//! bytes is closed, never pooled: the next transfer would send them. For a user without `CAP_SYS_RESOURCE`
//! the kernel bounds all pipes together (`pipe-user-pages-soft`, 64 MiB): past it `F_SETPIPE_SZ` fails with
//! `EPERM` and new pipes shrink, so the size is read back and a small pipe is used as it is (`pipe(7)`).

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};
use rustix::process::{Resource, getrlimit};

use crate::error::os;
use crate::metrics::counters::CoreCounters;

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
    pub(crate) size: usize,
}

impl PipePool {
    pub(crate) fn new() -> Rc<Self> {
        // Two descriptors each: where there are few, an idle pipe is worth less than a connection.
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let keep = KEEP.min((limit / 64) as usize);
        Rc::new(Self { idle: RefCell::new(Vec::with_capacity(keep)), keep })
    }

    /// The ends of an empty pipe: an idle one, or a new one, which is counted.
    pub(crate) fn take(&self, counters: &CoreCounters) -> io::Result<Ends> {
        let idle = self.idle.borrow_mut().pop();
        match idle {
            Some(ends) => Ok(ends),
            None => make(Some(PIPE_SIZE)).inspect(|_| counters.pipes_made.add(1)),
        }
    }

    /// Keeps an empty pipe for the next transfer, if there are not enough.
    pub(crate) fn give_back(&self, ends: Ends) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.keep {
            idle.push(ends);
        }
    }
}

/// Whether a pipe could not be had for lack of something that comes back: then bytes are copied instead.
pub(crate) fn is_lack(e: &io::Error) -> bool {
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
