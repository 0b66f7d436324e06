//! What threads have in common: the wake list and the doorbell, the queue into a core, who waits in order,
//! and the atomics that loom checks.

mod atomics;
pub(crate) mod mailbox;
pub(crate) mod queue;
pub(crate) mod waiters;

pub(crate) use atomics::atomic;
#[cfg(all(test, loom))]
pub(crate) use atomics::model;
