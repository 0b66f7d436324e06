//! Sentences of the page "What you may do, and what you may not" (`runtime/src/guide/may.md`) that have no
//! test elsewhere.

mod common;

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use annulus::fs::{File, OpenOptions};
use annulus::net::{TcpListener, TcpStream};
use annulus::numa::CpuSet;
use annulus::numa::thread::{affinity_of_current, affinity_of_process, unpin};
use common::on_one_core;

/// The page, and the files of tests that it names.
const PAGE: &str = include_str!("../src/guide/may.md");
const FILES: &[(&str, &str)] = &[
    ("tests/compat_tokio.rs", include_str!("../tests/compat_tokio.rs")),
    ("tests/foreign.rs", include_str!("../tests/foreign.rs")),
    ("tests/handed_blocks.rs", include_str!("../tests/handed_blocks.rs")),
    ("tests/hygiene/descriptors.rs", include_str!("../tests/hygiene/descriptors.rs")),
    ("tests/hygiene/memory.rs", include_str!("../tests/hygiene/memory.rs")),
    ("tests/may.rs", include_str!("../tests/may.rs")),
    ("tests/operation.rs", include_str!("../tests/operation.rs")),
    ("tests/operation_streams.rs", include_str!("../tests/operation_streams.rs")),
    ("tests/process.rs", include_str!("../tests/process.rs")),
    ("tests/readiness.rs", include_str!("../tests/readiness.rs")),
    ("tests/roots.rs", include_str!("../tests/roots.rs")),
    ("tests/stopping.rs", include_str!("../tests/stopping.rs")),
    ("tests/submit.rs", include_str!("../tests/submit.rs")),
    ("tests/tcp.rs", include_str!("../tests/tcp.rs")),
];

/// Seen to fail: with a test renamed, and with a sentence that names none.
#[test]
fn each_sentence_of_the_page_names_a_test_that_there_is() {
    let sentences: Vec<&str> = PAGE.lines().filter(|line| line.starts_with("- ")).collect();
    assert!(sentences.len() > 10);
    for sentence in sentences {
        let named = sentence.rsplit_once("(`").and_then(|(_, last)| last.strip_suffix("`)."));
        let (file, name) = named.and_then(|it| it.split_once("`: `")).unwrap_or_else(|| panic!("{sentence}"));
        let source = FILES.iter().find(|(path, _)| *path == file);
        let (_, source) = source.unwrap_or_else(|| panic!("{file} is not in the list of this test"));
        assert!(source.contains(&format!("fn {name}(")), "{file} has no {name}");
    }
}

/// The CPUs that a process has which `command` starts.
fn cpus_of(command: &mut Command) -> CpuSet {
    let output = command.output().expect("starting grep");
    let said = String::from_utf8(output.stdout).expect("text");
    said.split_whitespace().nth(1).expect("a list").parse().expect("CPUs")
}

fn grep() -> Command {
    let mut command = Command::new("grep");
    command.args(["^Cpus_allowed_list:", "/proc/self/status"]);
    command
}

/// The memory policy that a process has which `command` starts (numa(7), /proc/PID/numa_maps); none on a
/// kernel without NUMA.
fn policy_of(command: &mut Command) -> Option<String> {
    let maps = command.output().expect("starting cat").stdout;
    String::from_utf8_lossy(&maps).split_whitespace().nth(1).map(str::to_owned)
}

fn numa_maps() -> Command {
    let mut command = Command::new("cat");
    command.arg("/proc/self/numa_maps").stderr(std::process::Stdio::null());
    command
}

/// Seen to fail: with a closure before exec that does nothing.
#[test]
fn a_child_of_a_core_has_the_cores_cpu_or_those_of_the_process() {
    let process = affinity_of_process().unwrap();
    let policy = policy_of(&mut numa_maps());
    let (core, [plain, unpinned], policies) = on_one_core(|| async {
        // It blocks the core for a moment, which nobody else uses.
        let core = affinity_of_current()?;
        let cpus = [cpus_of(&mut grep()), cpus_of(unpin(&mut grep())?)];
        Ok((core, cpus, [policy_of(&mut numa_maps()), policy_of(unpin(&mut numa_maps())?)]))
    });
    assert_eq!(plain, core);
    assert_eq!(unpinned, process);
    assert_eq!(policies[1], policy);
    // None where the kernel has no NUMA; and a filter may have kept the core from setting its own.
    if policies[0] == policy {
        println!("the core has the policy of the process: {policy:?}");
    }
}

/// Seen to fail: with the wait in a task of the core, which then waits for ever.
#[test]
fn what_waits_keeps_a_core_from_all_else_and_a_blocking_thread_does_not() {
    on_one_core(|| async {
        let (tell, heard) = std::sync::mpsc::channel();
        let told = annulus::spawn(async move { tell.send(()) });
        // The core's thread waits, whatever for: its other task, which is ready, is not polled.
        std::thread::spawn(std::thread::yield_now).join().expect("it only yields");
        assert_eq!(heard.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty));
        annulus::spawn_blocking(move || heard.recv()).await?.expect("told by the core that went on");
        told.await?.expect("somebody listened");
        Ok(())
    });
}

/// Polls a future once, which must wait.
fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// What is forgotten keeps its memory and descriptors, and nothing else: the core still comes to its end, and
/// others are served.
///
/// Seen to fail: with the connection dropped in place of forgotten, whose peer then sees the end.
#[test]
fn what_is_forgotten_costs_memory_and_no_end() {
    let (mut dropped, mut forgotten) = on_one_core(|| async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()).await?;
        let server = listener.accept().await?;
        client.send_all("hello").await?;
        // A lease, a future that waits, a timer, a task's handle, a connection.
        std::mem::forget(server.recv().await?);
        let mut waits = Box::pin(async move { server.recv().await.map(drop) });
        assert!(poll_once(&mut waits));
        std::mem::forget(waits);
        let mut sleep = Box::pin(annulus::time::sleep(Duration::from_secs(3600)));
        assert!(poll_once(&mut sleep));
        std::mem::forget(sleep);
        std::mem::forget(annulus::spawn(std::future::pending::<()>()));
        std::mem::forget(client);
        // The core goes on.
        let client = TcpStream::connect(listener.local_addr()).await?;
        let server = listener.accept().await?;
        client.send_all("again").await?;
        assert_eq!(&server.recv().await?.expect("bytes")[..], b"again");
        // Whether a descriptor is open is seen by the other end.
        let mut peers = Vec::new();
        for forget in [false, true] {
            let peer = std::net::TcpStream::connect(listener.local_addr()).expect("connecting");
            peer.set_nonblocking(true).expect("an option");
            let server = listener.accept().await?;
            if forget {
                std::mem::forget(server);
            }
            peers.push(peer);
        }
        Ok((peers.remove(0), peers.remove(0)))
    });
    assert_eq!(dropped.read(&mut [0]).expect("closed"), 0);
    let open = forgotten.read(&mut [0]).map_err(|e| e.kind());
    assert_eq!(
        open,
        Err(std::io::ErrorKind::WouldBlock),
        "a forgotten connection is open as long as the process"
    );
}

#[test]
fn a_runtime_that_is_run_on_a_core_stops_that_core_meanwhile() {
    let runs = || common::on_first_cpu(common::small()).build().unwrap().block_on(async || 7);
    on_one_core(move || async move {
        let ran = std::rc::Rc::new(Cell::new(false));
        let tells = std::rc::Rc::clone(&ran);
        let other = annulus::spawn(async move { tells.set(true) });
        assert_eq!((runs()?, ran.get()), (7, false), "its other task was polled");
        other.await?;
        let waits = annulus::spawn(annulus::yield_now());
        let closure = annulus::spawn_blocking(runs);
        waits.await?;
        assert_eq!(closure.await??, 7);
        Ok(())
    });
}

/// A subscriber whose methods use the core that they are called on.
#[derive(Default)]
struct Acts {
    /// How often each did: new_span, enter, exit, event.
    times: [AtomicUsize; 4],
    spawned: AtomicUsize,
    finished: AtomicUsize,
}

thread_local! {
    static ACTING: Cell<bool> = const { Cell::new(false) };
    /// What an operation of an earlier call left, and whom to wake.
    static KEPT: RefCell<Vec<Pin<Box<dyn Future<Output = ()>>>>> = const { RefCell::new(Vec::new()) };
}

/// A shared [`Acts`].
#[derive(Clone)]
struct Acting(Arc<Acts>);

impl Acting {
    /// At most so often, as a spawned task is an occasion for more.
    const MOST: usize = 20;

    fn act(&self, method: usize) {
        if ACTING.replace(true) {
            return;
        }
        if self.0.times[method].load(Ordering::Relaxed) < Self::MOST {
            self.0.times[method].fetch_add(1, Ordering::Relaxed);
            drop(KEPT.take());
            let mut operation: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async {
                drop(File::open("/proc/self/status", OpenOptions::new().read(true)).await)
            });
            assert!(poll_once(&mut operation));
            KEPT.with_borrow_mut(|kept| kept.push(operation));
            self.0.spawned.fetch_add(1, Ordering::Relaxed);
            let acts = Arc::clone(&self.0);
            annulus::spawn(async move {
                annulus::yield_now().await;
                acts.finished.fetch_add(1, Ordering::Relaxed);
            })
            .detach();
        }
        ACTING.set(false);
    }
}

impl tracing::Subscriber for Acting {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        self.act(0);
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.act(3);
    }
    fn enter(&self, _: &tracing::span::Id) {
        self.act(1);
    }
    fn exit(&self, _: &tracing::span::Id) {
        self.act(2);
    }
}

/// Seen to fail: with a subscriber that does nothing at events.
#[test]
fn a_subscriber_may_use_its_core_at_events_and_spans() {
    on_one_core(|| async {
        let acting = Acting(Arc::new(Acts::default()));
        let guard = tracing::subscriber::set_default(acting.clone());
        let acts = &acting.0;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        while acts.times.iter().any(|times| times.load(Ordering::Relaxed) < Acting::MOST) {
            let client = TcpStream::connect(listener.local_addr()).await?;
            let server = listener.accept().await?;
            client.send_all("hello").await?;
            assert_eq!(&server.recv().await?.expect("bytes")[..], b"hello");
            // What is dropped while it waits is an event later.
            assert!(poll_once(&mut Box::pin(server.recv())));
            annulus::yield_now().await;
        }
        drop(guard);
        drop(KEPT.take());
        while acts.finished.load(Ordering::Relaxed) < acts.spawned.load(Ordering::Relaxed) {
            annulus::yield_now().await;
        }
        Ok(())
    });
}

/// A waker is only a sign: one that outlives its task and its core does nothing.
#[test]
fn a_waker_may_outlive_its_core() {
    let waker = on_one_core(|| async {
        Ok(std::future::poll_fn(|cx| std::task::Poll::Ready(cx.waker().clone())).await)
    });
    waker.wake_by_ref();
    let again = waker.clone();
    drop(waker);
    again.wake();
}
