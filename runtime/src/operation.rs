//! Your own operations: what `io_uring` can do and this crate has no function for.
//!
//! An [`Operation`] is a value that owns everything its entry points to. [`ask`] moves it to a cell of the
//! core, where it stays until the kernel's final CQE, even if the future is dropped. A dropped future sends a
//! cancel, and the operation is completed or dropped later. So another crate can add an opcode with one block
//! of code, and its users get the same promises. Entries are made with the crate [`io_uring`], in the version
//! that is re-exported here. A ring that is [sealed](crate::Builder::seal_rings) refuses opcodes that the
//! runtime itself does not use, with `EACCES`.
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
//! An operation that answers many times is a [`Multishot`], and [`stream`](fn@stream) gives its answers.
//!
//! To wait for a descriptor needs no operation of your own: see [`AsyncFd`](crate::fd::AsyncFd).

mod stream;

use std::io;

use crate::core::ask;
use crate::op::slots::Outcome;
use crate::op::{self, Sqes, check};

pub use io_uring;
pub use stream::{Multishot, Stream, stream};

/// An operation that has one answer, and what it owns.
///
/// # Safety
/// The implementation promises the following for as long as the kernel has the operation, which is until
/// [`complete`](Self::complete) is called or the value is dropped:
///
/// - What the entry points to lies in `self`, or in memory that `self` owns and that does not move when
///   `self` does not. `self` is at its final address when [`entry`](Self::entry) is called, and is not moved
///   until the kernel is done. Nobody else writes what the kernel reads, or touches what it writes.
/// - `self` keeps the descriptors open that the entry names.
/// - The entry has one completion. It is not multishot, not skipped on success (`IOSQE_CQE_SKIP_SUCCESS`),
///   has no notification after its result (`SEND_ZC`), and is not linked to others (`IOSQE_IO_LINK`,
///   `IOSQE_IO_DRAIN`). It chooses no buffer of a group (`IOSQE_BUFFER_SELECT`), because the groups are the
///   runtime's.
/// - It changes nothing of the ring itself: no registration, and no cancel of other operations
///   (`ASYNC_CANCEL` by descriptor or of all).
///
/// `user_data` is the runtime's: the entry's value is overwritten.
///
/// Nothing of the runtime's is borrowed while either method runs, so they may do whatever a task may. A panic
/// of either is passed to the future, or is logged.
pub unsafe trait Operation: 'static {
    /// For logs.
    const NAME: &'static str;
    /// What the future gives.
    type Output;

    /// What is asked of the kernel. Called once.
    fn entry(&mut self) -> io_uring::squeue::Entry;

    /// What came of it. It is also called when nobody waits any more, and its output is then dropped. That
    /// closes a descriptor that came late.
    ///
    /// An operation that was interrupted (`EINTR`) may be asked for again.
    fn complete(self, result: io::Result<u32>) -> Self::Output;
}

/// Asks the kernel for `operation` and waits for its answer.
///
/// A word that a thread changes, and tells of by `futex(2)` (`IORING_OP_FUTEX_WAIT`, Linux 6.7):
///
/// ```
/// use std::io;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use annulus::operation::{self, io_uring::{opcode, squeue}};
///
/// /// Until it is not 0.
/// struct Changed(Arc<AtomicU32>);
///
/// // SAFETY: the entry points to the word of an `Arc`, which `self` holds, and which is changed by atomic
/// // stores only. It has one completion.
/// unsafe impl operation::Operation for Changed {
///     const NAME: &'static str = "futex";
///     type Output = io::Result<()>;
///
///     fn entry(&mut self) -> squeue::Entry {
///         // FUTEX2_SIZE_U32 | FUTEX2_PRIVATE (linux/futex.h).
///         opcode::FutexWait::new(self.0.as_ptr().cast_const(), 0, u64::from(u32::MAX), 2 | 128).build()
///     }
///
///     fn complete(self, result: io::Result<u32>) -> Self::Output {
///         match result {
///             // It had changed before.
///             Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
///             other => other.map(drop),
///         }
///     }
/// }
/// # annulus::Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?.run(|| async {
/// let word = Arc::new(AtomicU32::new(0));
/// let theirs = Arc::clone(&word);
/// let thread = std::thread::spawn(move || {
///     theirs.store(1, Ordering::Release);
///     rustix::thread::futex::wake(&theirs, rustix::thread::futex::Flags::PRIVATE, 1)
/// });
/// match operation::ask(Changed(Arc::clone(&word))).await {
///     Ok(()) => assert_eq!(word.load(Ordering::Acquire), 1),
///     // Of a kernel that does not know the operation.
///     Err(e) => assert_eq!(e.raw_os_error(), Some(22), "{e}"),
/// }
/// annulus::spawn_blocking(move || thread.join()).await?.expect("no panic").map_err(io::Error::from)?;
/// # annulus::Ok(())
/// # })?;
/// # annulus::Ok(())
/// ```
///
/// # Cancellation
/// Dropped before its first poll, it has asked for nothing. Dropped later, it asks the kernel to cancel. What
/// the kernel still brings is [completed](Operation::complete) and dropped on this core in a later tick.
///
/// # Panics
/// On a thread that is no core's.
pub async fn ask<T: Operation>(operation: T) -> T::Output {
    ask::ask(Own(operation)).await
}

struct Own<T>(T);

// SAFETY: the implementation of the public trait has made the same promise.
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
