//! What few sockets need. Most connections of a server wait, with one task that reads and sends in turn, and
//! never come to have it.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

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
    pub(super) writers: Waiters,
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
