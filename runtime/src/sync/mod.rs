//! What threads have in common: the wake list and the doorbell, the queue into a core, tasks that wait in
//! order, and the atomics and locks that loom checks.

mod atomics;
pub(crate) mod mailbox;
pub(crate) mod one_thread;
pub(crate) mod oneshot;
pub(crate) mod queue;
pub(crate) mod space;
pub(crate) mod waiters;

#[cfg(all(test, loom))]
pub(crate) use atomics::model;
pub(crate) use atomics::{atomic, locks};
