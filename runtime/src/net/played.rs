//! The seam at which the system calls are played that bypass the ring: for tests ([`crate::played`]).

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;

/// Who answers for the kernel. `None` for a descriptor that stands for no played connection.
pub(crate) trait PlayedCalls {
    fn shutdown(&self, fd: RawFd, how: Shutdown) -> Option<io::Result<()>>;
    /// `connect(2)` to `AF_UNSPEC`: the connection is reset.
    fn disconnect(&self, fd: RawFd) -> Option<io::Result<()>>;
    /// What came, as many bytes at most.
    fn recv(&self, fd: RawFd, most: usize) -> Option<io::Result<Vec<u8>>>;
    fn send(&self, fd: RawFd, bytes: &[u8]) -> Option<io::Result<usize>>;
    fn is_gone(&self, fd: RawFd) -> Option<bool>;
    /// Whether the peer's end had come on a connection that has gone.
    fn fin_has_come(&self, fd: RawFd) -> Option<Option<bool>>;
    fn splice(&self, from: RawFd, into: RawFd, len: usize) -> Option<io::Result<usize>>;
    /// `sendfile(2)` from a place in a file.
    fn send_file(&self, into: RawFd, file: BorrowedFd<'_>, at: u64, len: usize) -> Option<io::Result<usize>>;
    /// `preadv2(2)` with `RWF_NOWAIT`; nothing where the first byte is not in memory.
    fn read_now(
        &self,
        file: BorrowedFd<'_>,
        offset: u64,
        into: &mut [MaybeUninit<u8>],
    ) -> Option<io::Result<Option<usize>>>;
}

thread_local! {
    static CALLS: RefCell<Option<Rc<dyn PlayedCalls>>> = const { RefCell::new(None) };
}

/// From now on `calls` answers on this thread.
pub(crate) fn set(calls: Option<Rc<dyn PlayedCalls>>) {
    CALLS.set(calls);
}

/// What it answers.
pub(crate) fn ask<T>(call: impl FnOnce(&dyn PlayedCalls) -> Option<T>) -> Option<T> {
    let calls = CALLS.with_borrow(Clone::clone)?;
    call(&*calls)
}
