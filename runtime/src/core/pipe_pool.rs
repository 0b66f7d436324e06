//! The pipes of a core: the idle ones, and how many there may be.
//!
//! A pipe is held only while bytes are in transfer, so ten thousand idle relays hold none. A pipe that still
//! has bytes is closed and never pooled, because the next transfer would send them. The kernel may give a
//! smaller pipe than was asked for, so the size is read back.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};
use rustix::process::{Resource, getrlimit};

use super::pipe_budget::{PipeBudget, SMALL};
use crate::error::os;
use crate::metrics::counters::CoreCounters;

/// Idle pipes that a core keeps for the next transfer.
const KEEP: usize = 16;

/// The pipes of a core.
pub(crate) struct PipePool {
    idle: RefCell<Vec<Ends>>,
    keep: usize,
    budget: Cell<PipeBudget>,
}

/// Both ends of a pipe. Neither ever blocks.
pub(crate) struct Ends {
    pub(crate) read: OwnedFd,
    pub(crate) write: OwnedFd,
    pub(crate) size: usize,
}

impl PipePool {
    /// The pipes of one core of `cores`.
    pub(crate) fn new(cores: usize) -> Rc<Self> {
        // A pipe has two descriptors: where descriptors are few, a connection is worth more than an idle
        // pipe.
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let keep = KEEP.min((limit / 64) as usize);
        let (idle, budget) = (Vec::with_capacity(keep), PipeBudget::of_core(cores));
        Rc::new(Self { idle: RefCell::new(idle), keep, budget: Cell::new(budget) })
    }

    /// The ends of an empty pipe: an idle one, or a new one. Both cases are counted, and so is a failure.
    ///
    /// # Errors
    /// Those of making it. `ENFILE`, as from `pipe(2)` for a user with too many pipes, when the core's share
    /// is used up or the kernel gives a pipe that is too small to pay.
    pub(crate) fn take(&self, counters: &CoreCounters) -> io::Result<Ends> {
        let idle = self.idle.borrow_mut().pop();
        if let Some(ends) = idle {
            return Ok(ends);
        }
        match self.make() {
            Ok(ends) => {
                counters.pipes_made.add(1);
                Ok(ends)
            }
            Err(e) => {
                counters.pipes_refused.add(1);
                Err(e)
            }
        }
    }

    /// Bytes in the pipes that are idle: none.
    #[cfg(all(any(test, feature = "played"), not(loom)))]
    pub(crate) fn idle_bytes(&self) -> u64 {
        self.idle.borrow().iter().map(|ends| rustix::io::ioctl_fionread(&ends.read).unwrap_or(0)).sum()
    }

    fn make(&self) -> io::Result<Ends> {
        let none = || io::Error::from_raw_os_error(libc::ENFILE);
        #[cfg(all(any(test, feature = "played"), not(loom)))]
        crate::ring::played::descriptor()?;
        let mut budget = self.budget.get();
        let ends = make(Some(budget.next().ok_or_else(none)?))?;
        if ends.size < SMALL {
            // The user's other processes have used the limit up.
            return Err(none());
        }
        budget.take(ends.size);
        self.budget.set(budget);
        Ok(ends)
    }

    /// Keeps an empty pipe for the next transfer, if fewer than [`KEEP`] are idle.
    pub(crate) fn give_back(&self, ends: Ends) {
        let is_enough = self.idle.borrow().len() >= self.keep || self.budget.get().has_better(ends.size);
        if is_enough {
            return self.close(ends);
        }
        self.idle.borrow_mut().push(ends);
    }

    /// Closes a pipe that was taken.
    pub(crate) fn close(&self, ends: Ends) {
        let mut budget = self.budget.get();
        budget.give_back(ends.size);
        self.budget.set(budget);
        drop(ends);
    }
}

/// Whether a pipe could not be made for lack of a resource that comes back: bytes are copied instead.
pub(crate) fn is_lack(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// Makes a pipe, of `size` bytes if the kernel allows it, else of the usual size.
pub(crate) fn make(size: Option<usize>) -> io::Result<Ends> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(os)?;
    match size.map_or(Ok(0), |size| fcntl_setpipe_size(&write, size)) {
        Ok(_) | Err(rustix::io::Errno::PERM | rustix::io::Errno::BUSY | rustix::io::Errno::NOMEM) => {}
        Err(e) => return Err(os(e)),
    }
    let size = fcntl_getpipe_size(&write).map_err(os)?;
    Ok(Ends { read, write, size })
}
