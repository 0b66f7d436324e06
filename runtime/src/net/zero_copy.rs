//! How long the zero-copy sends of a dropped stream may keep their blocks.
//!
//! The network keeps a block until the peer has acknowledged its bytes. Closing changes nothing in that, so a
//! peer that never reads would keep it for ever. What helps is a reset, which throws the send queue away:
//! `connect(2)` to `AF_UNSPEC` (tcp_disconnect()), which needs no descriptor to be closed first.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::socket::Socket;
use crate::core::Core;

/// Bytes that the peer of a dropped stream must take in each span of patience, to be given another.
const LEAST_PROGRESS: u32 = 16 << 10;

impl Socket {
    /// A handle that could read, or one that could write, or both in one, is dropped. With the last of them,
    /// somebody must see to what the network was lent; at the end of the core its end does.
    pub(super) fn handle_dropped(self: &Rc<Self>, read: bool, wrote: bool) {
        if self.drop_handle(read, wrote) {
            self.reap_lent_blocks();
        }
    }

    /// No handle here is left: sees to it that blocks do not stay with the network for ever.
    pub(super) fn reap_lent_blocks(self: &Rc<Self>) {
        if self.lent() == 0 {
            return;
        }
        Core::try_with(|core| {
            if !core.tasks.is_ending() {
                let patience = core.zero_copy.patience;
                crate::spawn(reap_lent_blocks(Rc::downgrade(self), patience)).detach();
            }
        });
    }
}

/// Sees a dropped stream's zero-copy sends to their end: when the peer takes too little, they are thrown
/// away. While another has the connection, no time counts.
async fn reap_lent_blocks(socket: Weak<Socket>, patience: Duration) {
    loop {
        let Some(before) = unacknowledged(&socket) else { return };
        let counts = socket.upgrade().is_some_and(|socket| socket.is_ours());
        crate::time::sleep(patience).await;
        let Some(after) = unacknowledged(&socket) else { return };
        if counts && before.saturating_sub(after) < LEAST_PROGRESS {
            if let Some(socket) = socket.upgrade() {
                socket.reset("its stream was dropped and its peer takes too little");
            }
            return;
        }
    }
}

/// Bytes that the peer has not acknowledged; `None` when the network holds no block of this socket any more.
fn unacknowledged(socket: &Weak<Socket>) -> Option<u32> {
    let socket = socket.upgrade().filter(|socket| socket.lent() > 0)?;
    // Of a socket that cannot say, no progress is seen.
    Some(queued(socket.fd()).unwrap_or(0))
}

/// `SIOCOUTQ` (tcp(7)): bytes in the send queue, sent or not.
fn queued(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int through the pointer (tcp(7)); `bytes` is one.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes.unsigned_abs()) }
}
