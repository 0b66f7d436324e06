//! What the network holds of a socket's zero-copy sends, and whose the connection is meanwhile.

use std::rc::Rc;

use super::Socket;
use crate::contained::told;
use crate::core::Core;
use crate::net::sys;

impl Socket {
    /// The kernel has released a zero-copy send's pages, and says whether it copied them.
    pub(crate) fn zc_notified(&self, core: &Core, copied: bool) {
        if copied {
            core.shared.counters.zc_copied.add(1);
        }
        if let Some(host) = self.rare.get().and_then(|rare| rare.remote_host.get()) {
            host.notified(copied);
        }
    }

    /// Whether sending without a copy pays on the way to this peer, as far as is known.
    pub(crate) fn may_skip_copy(&self, core: &Core) -> bool {
        let host = self.rare().remote_host.get_or_init(|| core.zero_copy.remote_host_of(self.fd()));
        host.may_skip_copy()
    }

    /// Zero-copy sends whose blocks the kernel has not released.
    pub(crate) fn lent(&self) -> u32 {
        self.rare.get().map_or(0, |rare| rare.lent.get())
    }

    /// Whether the connection is this core's, or was closed by the owner that it was given to.
    pub(crate) fn is_ours(&self) -> bool {
        self.rare.get().is_none_or(|rare| rare.ownership.borrow().is_ours())
    }

    /// Resets the connection, so that the network releases the blocks that it was lent. Does nothing if the
    /// connection is another's by now.
    pub(crate) fn reset(&self, why: &str) {
        if !self.is_ours() || self.rare().was_reset.replace(true) {
            return;
        }
        let reset = sys::disconnect(self.fd());
        Core::try_with(|core| core.shared.counters.zc_resets.add(1));
        told(|| match reset {
            Ok(()) => tracing::debug!("connection reset with zero-copy sends under way: {why}"),
            Err(e) => tracing::warn!("connection with zero-copy sends under way cannot be reset: {e}"),
        });
    }

    /// The socket cannot send without a copy at all. Unix sockets cannot.
    pub(crate) fn never_skip_copy(&self) {
        self.rare().remote_host.get_or_init(Rc::default).never_skip_copy();
    }

    /// The descriptor leaves the runtime.
    pub(crate) fn give_up(&self) {
        self.rare().ownership.borrow_mut().give_up();
    }
}

/// A zero-copy send on a socket. It keeps the socket open until the kernel has released its block.
pub(crate) struct ZcGuard(Rc<Socket>);

impl ZcGuard {
    pub(crate) fn new(socket: Rc<Socket>) -> Self {
        let lent = &socket.rare().lent;
        lent.set(lent.get() + 1);
        Self(socket)
    }

    pub(crate) fn socket(&self) -> &Rc<Socket> {
        &self.0
    }
}

impl Drop for ZcGuard {
    fn drop(&mut self) {
        let lent = &self.0.rare().lent;
        lent.set(lent.get() - 1);
    }
}
