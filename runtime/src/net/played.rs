//! The seam at which the system calls on connections are played that go by the ring: for the library's own
//! tests ([`crate::played`]).

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::rc::Rc;

/// Who answers for descriptors that stand for played connections; `None` for others.
pub(crate) trait PlayedSockets {
    fn shutdown(&self, fd: RawFd, how: Shutdown) -> Option<io::Result<()>>;
    /// `connect(2)` to `AF_UNSPEC`: the connection is reset.
    fn disconnect(&self, fd: RawFd) -> Option<io::Result<()>>;
    /// What came, as many bytes at most.
    fn recv(&self, fd: RawFd, most: usize) -> Option<io::Result<Vec<u8>>>;
    fn send(&self, fd: RawFd, bytes: &[u8]) -> Option<io::Result<usize>>;
    fn is_gone(&self, fd: RawFd) -> Option<bool>;
    fn splice(&self, from: RawFd, into: RawFd, len: usize) -> Option<io::Result<usize>>;
}

thread_local! {
    static SOCKETS: RefCell<Option<Rc<dyn PlayedSockets>>> = const { RefCell::new(None) };
}

/// From now on `sockets` answers on this thread.
pub(crate) fn set(sockets: Option<Rc<dyn PlayedSockets>>) {
    SOCKETS.set(sockets);
}

/// What it answers.
pub(crate) fn ask<T>(call: impl FnOnce(&dyn PlayedSockets) -> Option<T>) -> Option<T> {
    let sockets = SOCKETS.with_borrow(Clone::clone)?;
    call(&*sockets)
}
