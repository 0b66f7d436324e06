//! Where the program's orders come from: its signals, or the process that has started it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::processes::member::{Member, Order};
use crate::signals::Signals;

/// Where the program's orders come from.
#[derive(Debug)]
pub(crate) enum Orders {
    /// The signals of this process.
    Signals(Signals),
    /// The process that started it, which has signals of its own. Those that come here as well, to the whole
    /// group of a terminal or of a service, are blocked and ignored: otherwise they would count twice.
    Parent(Arc<Member>),
}

impl Orders {
    /// The next order that waits, or `None`. Does not block.
    ///
    /// # Errors
    /// What read(2) says, other than "nothing there".
    pub(crate) fn next(&self) -> io::Result<Option<Order>> {
        match self {
            Orders::Signals(signals) => Ok(signals.next()?.map(Order::Signal)),
            Orders::Parent(member) => member.next(),
        }
    }
}

impl AsFd for Orders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Orders::Signals(signals) => signals.as_fd(),
            Orders::Parent(member) => member.as_fd(),
        }
    }
}
