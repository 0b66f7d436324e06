//! An io_uring-based, NUMA-aware, thread-per-core runtime for Linux servers that move bytes.
pub use annulus_numa as numa;

mod sync;
#[allow(dead_code, reason = "used by the runtime, which is written beside this branch")]
mod core {
    pub(crate) mod mailbox;
}
#[allow(dead_code, reason = "used by the runtime, which is written beside this branch")]
mod buf {
    pub(crate) mod returns;
}
#[allow(dead_code, reason = "used by the runtime, which is written beside this branch")]
mod time {
    pub(crate) mod wheel;
}
