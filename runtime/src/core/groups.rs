//! The sockets of a runtime by address, and the cores that they are on.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::unix_path::Bound;
use crate::place::Place;

/// What a core asks for at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A listening socket with this backlog; on `[::]`, for IPv6 alone or for both families.
    Stream { backlog: i32, only_v6: bool },
    /// A socket for datagrams.
    Datagram,
}

impl Ask {
    /// Whether sockets that were asked for in these two ways may share an address.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

pub(crate) struct Group {
    /// Distinguishes it from a later group on the same address.
    pub(crate) id: u64,
    pub(crate) ask: Ask,
    pub(crate) requested: Place,
    pub(crate) bound: Place,
    /// Which cores have a socket of it.
    pub(crate) members: Vec<bool>,
    /// Its sockets that are still open: the socket of a dropped listener closes with the last CQE of its
    /// accept. Each has a descriptor, so there are never too many to be counted.
    pub(crate) sockets: usize,
    /// The single open socket of a Unix address.
    pub(crate) one: Option<Bound>,
}

/// All groups of a runtime.
#[derive(Default)]
pub(crate) struct Groups(Mutex<Table>);

#[derive(Default)]
pub(crate) struct Table {
    pub(crate) groups: Vec<Group>,
    /// The id of the next group. 2^64 are never given out.
    pub(crate) next: u64,
}

impl Groups {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
