//! The parts that touch no kernel, one by one: `cargo bench -p annulus-benches --bench pure`.
//!
//! They are private to their crates, so their files are included by path: nothing has to be made public for a
//! bench, and what is measured is what runs. `scripts/bench-commits` compares two commits.

/// Files of the runtime. Each folder is a module, so that the files find the ones below them.
#[path = "../../../runtime/src"]
#[allow(unused, reason = "the runtime uses all of it, a bench does not; cargo builds benches with cfg(test)")]
mod runtime {
    pub(crate) mod fs {
        pub(crate) mod residency;
    }
    pub(crate) mod op {
        pub(crate) mod slots;
    }
    pub(crate) mod time {
        pub(crate) mod wheel;
    }
}

/// Files of the server.
#[path = "../../../server/src"]
#[allow(unused, reason = "the program uses all of it, a bench does not; cargo builds benches with cfg(test)")]
mod server {
    pub(crate) mod http;
}

/// The wake path, where it finds its atomics.
#[path = "../../../runtime/src/sync"]
#[allow(unused, reason = "the runtime uses all of it, a bench does not; cargo builds benches with cfg(test)")]
mod sync {
    mod atomics;
    pub(crate) mod mailbox;
    pub(crate) mod one_thread;

    pub(crate) use atomics::atomic;
}

mod heads;
mod operations;
mod pool;
mod roads;
mod timers;
mod wakes;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    pure,
    heads::bench,
    operations::bench,
    pool::bench,
    roads::bench,
    timers::bench,
    wakes::bench
);
criterion_main!(pure);
