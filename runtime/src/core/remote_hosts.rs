//! The remote hosts for which zero-copy sends pay.
//!
//! A path that copies (loopback, veth, a network card that cannot gather) copies for every connection to the
//! same address. So what one connection learns is kept for the next, in a small table by address. It is asked
//! once per socket, at its first zero-copy send.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

/// Consecutive zero-copy sends that the kernel copied after all, at which no more are made to that host.
const COPIED_IN_A_ROW: u8 = 4;
/// Connections to a host after which zero-copy is tried once more, because routes change.
const TRY_AGAIN: u32 = 256;
/// Hosts that are remembered. The one that was not asked for longest is forgotten first.
const REMOTE_HOSTS: usize = 64;

/// How the kernel handles zero-copy sends to one host.
#[derive(Debug, Default)]
pub(crate) struct RemoteHost {
    /// Sends that the kernel copied, since the last one that it did not copy.
    copied: Cell<u8>,
    /// Connections since zero-copy sends were given up.
    passed: Cell<u32>,
}

impl RemoteHost {
    /// The kernel has released a send's pages, and says whether it copied them.
    pub(crate) fn notified(&self, copied: bool) {
        self.copied.set(if copied { self.copied.get().saturating_add(1) } else { 0 });
    }

    /// Whether sending without a copy pays, as far as is known.
    pub(crate) fn may_skip_copy(&self) -> bool {
        self.copied.get() < COPIED_IN_A_ROW
    }

    /// Zero-copy sends are impossible for this host.
    pub(crate) fn never_skip_copy(&self) {
        self.copied.set(COPIED_IN_A_ROW);
    }

    fn met_again(&self) {
        if self.may_skip_copy() {
            return;
        }
        self.passed.set(self.passed.get() + 1);
        if self.passed.get() >= TRY_AGAIN {
            self.passed.set(0);
            self.copied.set(COPIED_IN_A_ROW - 1);
        }
    }
}

/// A core's zero-copy sends.
pub(crate) struct ZeroCopy {
    /// How long the zero-copy sends of a dropped stream may last, if its peer takes nothing.
    pub(crate) patience: Duration,
    /// In order of use: the host that was asked for last comes last.
    hosts: RefCell<VecDeque<(IpAddr, Rc<RemoteHost>)>>,
}

impl ZeroCopy {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, hosts: RefCell::default() }
    }

    /// What is known of the host at the other end of a connected socket, for as long as the socket lives. It
    /// searches the table.
    pub(crate) fn remote_host_of(&self, fd: BorrowedFd<'_>) -> Rc<RemoteHost> {
        let address = rustix::net::getpeername(fd).ok().flatten();
        match address.and_then(|address| SocketAddr::try_from(address).ok()) {
            Some(address) => self.remote_host(address.ip()),
            // The connection has ended already, or its address is one that no other connection can have.
            None => Rc::default(),
        }
    }

    fn remote_host(&self, address: IpAddr) -> Rc<RemoteHost> {
        let mut peers = self.hosts.borrow_mut();
        let known = peers.iter().position(|(known, _)| *known == address).and_then(|at| peers.remove(at));
        let (_, peer) = match known {
            Some(known) => {
                known.1.met_again();
                known
            }
            None => {
                if peers.len() >= REMOTE_HOSTS {
                    peers.pop_front();
                }
                (address, Rc::default())
            }
        };
        peers.push_back((address, Rc::clone(&peer)));
        peer
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(n).into()
    }

    #[test]
    fn a_peer_is_remembered_from_one_connection_to_the_next() {
        let known = ZeroCopy::new(Duration::ZERO);
        let first = known.remote_host(address(1));
        for _ in 0..COPIED_IN_A_ROW {
            assert!(first.may_skip_copy());
            first.notified(true);
        }
        assert!(
            !known.remote_host(address(1)).may_skip_copy() && known.remote_host(address(2)).may_skip_copy()
        );
        first.notified(false);
        assert!(
            known.remote_host(address(1)).may_skip_copy(),
            "one that was not copied makes it worth while again"
        );
    }

    #[test]
    fn a_peer_that_copies_is_tried_now_and_then() {
        let known = ZeroCopy::new(Duration::ZERO);
        let peer = known.remote_host(address(1));
        (0..COPIED_IN_A_ROW).for_each(|_| peer.notified(true));
        let tries = (0..10 * TRY_AGAIN).filter(|_| {
            let again = known.remote_host(address(1));
            let tries = again.may_skip_copy();
            if tries {
                again.notified(true);
            }
            tries
        });
        assert_eq!(tries.count(), 10);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_was_not_met_for_longest() {
        let known = ZeroCopy::new(Duration::ZERO);
        let lasting = known.remote_host(address(0));
        for n in 1..1000 {
            known.remote_host(address(n));
            assert!(Rc::ptr_eq(&lasting, &known.remote_host(address(0))));
            assert!(known.hosts.borrow().len() <= REMOTE_HOSTS);
        }
        let recent = known.remote_host(address(999));
        assert!(Rc::strong_count(&recent) == 2);
        assert!(!known.hosts.borrow().iter().any(|(peer, _)| *peer == address(1)));
    }
}
