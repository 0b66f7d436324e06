//! What the tests of the library share.
#![allow(dead_code, reason = "not every test file uses everything")]

use std::future::Future;
use std::sync::Mutex;
use std::sync::mpsc;

use annulus::{Builder, Result, Runtime};

/// Runs `root` on one core (the first that is allowed) and gives its output.
pub(crate) fn on_one_core<F, Fut, T>(root: F) -> T
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<T>> + 'static,
    T: Send + 'static,
{
    on_one_core_of(small(), root)
}

/// As [`on_one_core`], on a runtime with these settings.
pub(crate) fn on_one_core_of<F, Fut, T>(settings: Builder, root: F) -> T
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<T>> + 'static,
    T: Send + 'static,
{
    let first = annulus::numa::thread::affinity_of_current().unwrap().first().unwrap();
    let settings = settings.cores(first.to_string().parse().unwrap());
    run(settings, Mutex::new(Some(root)), |root: &Mutex<Option<F>>| {
        let root = root.lock().unwrap().take().expect("one core, one call");
        root()
    })
    .pop()
    .unwrap()
}

/// Runs `root` on each core of `list` and gives the outputs in the order in which they ended.
pub(crate) fn on_cores<S, F, Fut, T>(list: &str, state: S, root: F) -> Vec<T>
where
    S: Send + Sync + 'static,
    F: Fn(&S) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T>> + 'static,
    T: Send + 'static,
{
    run(small().cores(list.parse().unwrap()), state, root)
}

/// Settings that an unprivileged user can have several of.
pub(crate) fn small() -> Builder {
    Runtime::builder().pool_bytes(4 << 20).ring_entries(1024)
}

fn run<S, F, Fut, T>(settings: Builder, state: S, root: F) -> Vec<T>
where
    S: Send + Sync + 'static,
    F: Fn(&S) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T>> + 'static,
    T: Send + 'static,
{
    let (tx, rx) = mpsc::channel();
    let tx = Mutex::new(tx);
    let runtime = settings.build().unwrap();
    let running = runtime
        .start(move || {
            let tx = tx.lock().unwrap().clone();
            let future = root(&state);
            async move {
                tx.send(future.await?).expect("the test waits");
                annulus::Ok(())
            }
        })
        .unwrap();
    let mut ended =
        [rustix::event::PollFd::from_borrowed_fd(running.finished_fd(), rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut ended, None).unwrap();
    for counters in running.counters() {
        assert_eq!(
            counters.ops_leaked, 0,
            "the kernel kept operations of core {} beyond the end",
            counters.core
        );
    }
    running.wait().unwrap();
    rx.into_iter().collect()
}

/// How many bytes to move where `len` would be right: in a guest, whose CPUs are emulated, a sixteenth.
pub(crate) fn bulk(len: usize) -> usize {
    if std::env::var_os("ANNULUS_GUEST").is_some_and(|guest| guest == "1") { len / 16 } else { len }
}
