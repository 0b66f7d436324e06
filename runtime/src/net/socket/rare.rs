//! What few sockets need. Most connections of a server wait, with one task that reads and sends in turn, and
//! never come to have it.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::Socket;
use crate::buf::Lease;
use crate::core::remote_hosts::RemoteHost;
use crate::net::group::Member;
use crate::net::ownership::Ownership;
use crate::sync::waiters::Waiters;

/// The part of a socket's state that is made when it is first needed, and stays.
#[derive(Default)]
pub(super) struct Rare {
    /// What comes before the chain: the rest of a chunk that was taken in part, what came with the socket
    /// from another core, and everything that is received in [fragments](crate::buf::fragments).
    pub(super) rest: RefCell<VecDeque<Lease>>,
    /// Tasks that wait behind another to receive, in their order.
    pub(super) readers: Waiters,
    /// Tasks that wait for one that sends.
    writers: Waiters,
    /// What is known of zero-copy sends to its peer. It is looked up at the first of them.
    pub(super) remote_host: OnceCell<Rc<RemoteHost>>,
    /// Zero-copy sends whose blocks the kernel holds. Each is an operation of the core's table, which holds
    /// 2^24 at most.
    pub(super) lent: Cell<u32>,
    /// Its connection was reset, to get blocks back.
    pub(super) was_reset: Cell<bool>,
    pub(super) ownership: RefCell<Ownership>,
    /// The group that a socket for datagrams is bound in.
    pub(super) member: Option<Member>,
}

impl Rare {
    pub(super) fn of_member(member: Member) -> Self {
        Self { member: Some(member), ..Self::default() }
    }
}

impl Socket {
    /// What few need, made if it is not there. Whoever only asks for it takes what [`rare`](Socket::rare)
    /// has.
    #[inline(always)]
    pub(super) fn rare(&self) -> &Rare {
        match self.rare.get() {
            Some(rare) => rare,
            None => self.make_rare(),
        }
    }

    #[cold]
    #[inline(never)]
    fn make_rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    /// Whether there is something before the chain.
    pub(super) fn has_rest(&self) -> bool {
        self.rare.get().is_some_and(|rare| !rare.rest.borrow().is_empty())
    }

    /// Where tasks wait for one that sends.
    pub(in crate::net) fn writers(&self) -> &Waiters {
        &self.rare().writers
    }

    /// The same, if some do.
    #[inline(always)]
    pub(in crate::net) fn waiting_writers(&self) -> Option<&Waiters> {
        self.rare.get().map(|rare| &rare.writers).filter(|writers| !writers.is_empty())
    }
}
