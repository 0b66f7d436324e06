//! Operations: what is asked of the kernel, and who owns its memory until the kernel is done with it.
//!
//! An operation is one declarative block (the files of this folder): what it owns, the SQE that it becomes,
//! and what its result means. When it is [asked](crate::core::ask) for, it moves into its cell of the
//! [`arena`], where it stays until the final CQE; its future keeps only the [`slots::Key`]. Dropping the
//! future does not end the operation. It sends a cancel, and whatever the kernel answers later (a descriptor,
//! bytes in a pipe) belongs to the operation, which cleans it up.
//!
//! Operations on sockets are files of `net/op/`: they know the socket that they serve.

pub(crate) mod advise;
pub(crate) mod arena;
pub(crate) mod fallocate;
pub(crate) mod mkdir;
pub(crate) mod open;
pub(crate) mod poll;
pub(crate) mod read;
pub(crate) mod rename;
pub(crate) mod slots;
pub(crate) mod splice;
pub(crate) mod statx;
pub(crate) mod sync;
pub(crate) mod table;
pub(crate) mod truncate;
pub(crate) mod unlink;
mod untyped;
pub(crate) mod waits_for;
pub(crate) mod write;
pub(crate) mod write_vectored;

use std::io;

use io_uring::squeue;

use slots::Outcome;
use waits_for::WaitsFor;

/// The SQEs of an operation: one, or one behind a poll that must succeed first.
pub(crate) struct Sqes {
    pub(crate) after: Option<squeue::Entry>,
    pub(crate) main: squeue::Entry,
}

impl From<squeue::Entry> for Sqes {
    fn from(main: squeue::Entry) -> Self {
        Self { after: None, main }
    }
}

/// Makes the kernel release the memory of an operation.
pub(crate) type ForceRelease = Box<dyn FnOnce()>;

/// An operation that answers once.
///
/// # Safety
/// The entry of [`sqes`](Self::sqes) may point only into `self`, or into memory that `self` owns and that
/// does not move when `self` does not. `self` keeps the descriptors open that the entry names. `self` is at
/// its final address when `sqes` is called.
pub(crate) unsafe trait Operation: Sized + 'static {
    /// For logs.
    const NAME: &'static str;
    /// A poll is linked before it, so a cancel must look for either.
    const LINKED: bool = false;
    /// What the owner gets.
    type Output;

    /// The SQE, without `user_data`.
    fn sqes(&mut self) -> Sqes;

    /// Whether the kernel always hands this to an io-wq worker, so that it is counted as such.
    fn runs_on_iowq(&self) -> bool {
        false
    }

    /// What its owner waits for. Runs no code that is not ours: the operation lies in its cell.
    fn waits_for(&self) -> WaitsFor {
        WaitsFor::Others
    }

    /// The result: `outcome.result` is a count or a negative errno.
    fn complete(self, outcome: Outcome) -> Self::Output;

    /// The result came when nobody waited any more. What it brings must not leak. Dropping the output
    /// suffices for all operations whose output owns what came.
    fn late(self, outcome: Outcome) {
        drop(self.complete(outcome));
    }

    /// The core ends, and the kernel has had time to give the operation back: what makes it release the
    /// memory at once, if there is such a thing. The closure runs when the operation is not borrowed any
    /// more. This method runs no foreign code.
    fn force_release(&self) -> Option<ForceRelease> {
        None
    }

    /// The kernel has answered with this errno, whether anybody still waits or not. It is called before the
    /// owner sees the answer, and before any later answer is handled, because others may have to know what
    /// the kernel says only once. It runs no foreign code, because the operation is borrowed in its cell.
    fn failed(&self, errno: i32) {
        let _ = errno;
    }

    /// The notification after the result: the kernel has released the memory. Zero-copy sends only. It runs
    /// no foreign code, because the operation is borrowed in its cell.
    fn notified(&self, outcome: Outcome) {
        let _ = outcome;
    }
}

/// An [`Operation`] whose only result is success or failure: most of those on names and files.
///
/// # Safety
/// As for [`Operation`].
pub(crate) unsafe trait UnitOperation: Sized + 'static {
    /// For logs.
    const NAME: &'static str;

    /// The SQE, without `user_data`.
    fn sqes(&mut self) -> Sqes;

    /// As [`Operation::runs_on_iowq`]. Nearly all of these do.
    fn runs_on_iowq(&self) -> bool {
        true
    }
}

// SAFETY: the implementation of `UnitOperation` made the same promise.
unsafe impl<T: UnitOperation> Operation for T {
    const NAME: &'static str = <T as UnitOperation>::NAME;
    type Output = io::Result<()>;

    fn sqes(&mut self) -> Sqes {
        UnitOperation::sqes(self)
    }

    fn runs_on_iowq(&self) -> bool {
        UnitOperation::runs_on_iowq(self)
    }

    fn waits_for(&self) -> WaitsFor {
        WaitsFor::Disk
    }

    fn complete(self, outcome: Outcome) -> Self::Output {
        check(outcome).map(drop)
    }
}

/// An operation that answers many times, and whose owner is a socket, not a future. `C` is the context that
/// its answers are handled with: the core, which this folder does not know.
///
/// # Safety
/// As for [`Operation`].
pub(crate) unsafe trait Multishot<C>: Sized + 'static {
    /// For logs.
    const NAME: &'static str;
    /// What tasks wait for that wait for its answers.
    const WAITS_FOR: WaitsFor = WaitsFor::Receive;

    /// The SQE, without `user_data`.
    fn sqes(&mut self) -> Sqes;

    /// One answer. `owned` is false once the socket has given the operation up; what came is then given back.
    /// `last` says that the operation has ended, for whatever reason.
    fn item(&self, context: &C, outcome: Outcome, owned: bool, last: bool);
}

/// `-errno` as an error, a count as it is. An interrupted `splice` can return the kernel-internal restart
/// codes 512..=516 (seen on 6.18), which mean the same as `EINTR`.
pub(crate) fn check(outcome: Outcome) -> io::Result<u32> {
    match outcome.result {
        n if n >= 0 => Ok(n as u32),
        n if (-516..=-512).contains(&n) => Err(io::Error::from_raw_os_error(libc::EINTR)),
        n => Err(io::Error::from_raw_os_error(-n)),
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
