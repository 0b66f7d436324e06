//! How long the zero-copy sends of a dropped stream may keep their blocks.
//!
//! The network keeps a block until the peer has acknowledged its bytes. Closing does not change that, so a
//! peer that never reads would keep it for ever. A reset discards the send queue: `connect(2)` to `AF_UNSPEC`
//! (tcp_disconnect()), which needs no descriptor to be closed first.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::socket::Socket;
use crate::core::Core;

/// Bytes that the peer of a dropped stream must take in each span of patience to get another span.
const LEAST_PROGRESS: u32 = 16 << 10;

impl Socket {
    /// A handle that could read, or write, or both, is dropped. After the last of them a task gets the blocks
    /// back that the network was lent; at the end of the core its end does.
    pub(super) fn handle_dropped(self: &Rc<Self>, read: bool, wrote: bool) {
        if self.drop_handle(read, wrote) {
            self.reap_lent_blocks();
        }
    }

    /// No handle is left here. This makes sure that blocks do not stay with the network for ever.
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

/// Waits for the end of a dropped stream's zero-copy sends, and discards them when the peer takes too little.
/// While another socket has the connection, no time counts.
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
    // A socket that cannot say shows no progress.
    Some(queued(socket.fd()).unwrap_or(0))
}

/// `SIOCOUTQ` (tcp(7)): bytes in the send queue, sent or not.
fn queued(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int through the pointer (tcp(7)); `bytes` is one.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes.unsigned_abs()) }
}
