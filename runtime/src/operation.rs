//! Operations of one's own: what `io_uring` can do and this crate does not ask it for.
//!
//! An [`Operation`] is a value that owns everything its entry points to. [`ask`] moves it to a place of the
//! core where it stays until the kernel has had its last word, whatever becomes of the future: dropped, it
//! sends a cancel, and the operation is completed or dropped later. So a crate outside can add an opcode by
//! one block, and its users get the promises of the others. Entries are made by the crate [`io_uring`], in
//! the version that is shown here. A ring that is [sealed](crate::Builder::seal_rings) refuses them, with
//! `EACCES`.
//!
//! Bytes that wait in a socket, by a command to it (`IORING_OP_URING_CMD`, `SOCKET_URING_OP_SIOCINQ`; Linux
//! 6.7):
//!
//! ```
//! use std::io;
//! use std::os::fd::{AsRawFd, OwnedFd};
//! use std::rc::Rc;
//! use annulus::operation::{self, io_uring::{opcode, squeue, types}};
//!
//! struct Waiting(Rc<OwnedFd>);
//!
//! // SAFETY: the entry names a descriptor that the `Rc` keeps open, and points to nothing.
//! unsafe impl operation::Operation for Waiting {
//!     const NAME: &'static str = "SIOCINQ";
//!     type Output = io::Result<u32>;
//!
//!     fn entry(&mut self) -> squeue::Entry {
//!         opcode::UringCmd16::new(types::Fd(self.0.as_raw_fd()), 0).build()
//!     }
//!
//!     fn complete(self, result: io::Result<u32>) -> Self::Output {
//!         result
//!     }
//! }
//! # annulus::Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?.run(|| async {
//! use std::io::Write;
//!
//! let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! let mut client = std::net::TcpStream::connect(listener.local_addr()?)?;
//! let socket = Rc::new(OwnedFd::from(listener.accept()?.0));
//! client.write_all(b"seven..")?;
//! match operation::ask(Waiting(socket)).await {
//!     Ok(bytes) => assert_eq!(bytes, 7),
//!     // Of a kernel that does not know the command, or not of this socket.
//!     Err(e) => assert!(matches!(e.raw_os_error(), Some(22 | 95)), "{e}"),
//! }
//! # annulus::Ok(())
//! # })?;
//! # annulus::Ok(())
//! ```
//!
//! What needs no operation of its own: a descriptor to wait for is an [`AsyncFd`](crate::fd::AsyncFd).

use std::io;

use crate::core::ask;
use crate::op::slots::Outcome;
use crate::op::{self, Sqes, check};

pub use io_uring;

/// An operation that has one answer, and what it owns.
///
/// # Safety
/// Whoever implements it promises, for as long as the kernel has the operation, which is until
/// [`complete`](Self::complete) is called or the value is dropped:
///
/// - What the entry points to lies in `self`, which is at its final address when [`entry`](Self::entry) is
///   called and is not moved until then, or in memory that `self` owns and that does not move when `self`
///   does not. Nobody else writes what the kernel reads, or touches what it writes.
/// - Descriptors that the entry names are kept open by `self`.
/// - The entry has one completion: it is not multishot, not skipped on success (`IOSQE_CQE_SKIP_SUCCESS`),
///   has no notification after its result (`SEND_ZC`), is not linked to others (`IOSQE_IO_LINK`,
///   `IOSQE_IO_DRAIN`), and chooses no buffer of a group (`IOSQE_BUFFER_SELECT`), whose groups are the
///   runtime's.
/// - It changes nothing of the ring itself: no registration, no cancel of what others asked for
///   (`ASYNC_CANCEL` by descriptor or of all).
///
/// `user_data` is the runtime's; what the entry says there is overwritten.
///
/// Neither method is called with anything of the runtime's borrowed; they may do whatever a task may, and a
/// panic of either is the future's, or is logged.
pub unsafe trait Operation: 'static {
    /// For logs.
    const NAME: &'static str;
    /// What the future gives.
    type Output;

    /// What is asked of the kernel. Called once.
    fn entry(&mut self) -> io_uring::squeue::Entry;

    /// What came of it. It is called too when nobody waits any more, and its output dropped: a descriptor
    /// that came late is closed by that.
    ///
    /// An operation that was interrupted (`EINTR`) may be asked for again.
    fn complete(self, result: io::Result<u32>) -> Self::Output;
}

/// Asks the kernel for `operation` and waits for its answer.
///
/// # Cancellation
/// Dropped before its first poll, nothing was asked. Dropped later, the kernel is asked to cancel, and what
/// it still brings is [completed](Operation::complete) and dropped on this core in a later tick.
///
/// # Panics
/// On a thread that is no core's.
pub async fn ask<T: Operation>(operation: T) -> T::Output {
    ask::ask(Own(operation)).await
}

struct Own<T>(T);

// SAFETY: whoever implemented the public trait has promised the same.
unsafe impl<T: Operation> op::Operation for Own<T> {
    const NAME: &'static str = T::NAME;
    type Output = T::Output;

    fn sqes(&mut self) -> Sqes {
        self.0.entry().into()
    }

    fn complete(self, outcome: Outcome) -> Self::Output {
        self.0.complete(check(outcome))
    }
}
