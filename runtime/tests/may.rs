//! Sentences of the page "What you may do, and what you may not" (`runtime/src/guide/may.md`) that have no
//! test elsewhere.

mod common;

use std::process::Command;
use std::task::{Context, Waker};
use std::time::Duration;

use annulus::net::{TcpListener, TcpStream};
use annulus::numa::CpuSet;
use annulus::numa::thread::{affinity_of_current, affinity_of_process, unpin};
use common::on_one_core;

/// The page, and the files of tests that it names.
const PAGE: &str = include_str!("../src/guide/may.md");
const FILES: &[(&str, &str)] = &[
    ("src/op/tests/foreign/events.rs", include_str!("../src/op/tests/foreign/events.rs")),
    ("tests/blocking.rs", include_str!("../tests/blocking.rs")),
    ("tests/foreign.rs", include_str!("../tests/foreign.rs")),
    ("tests/handed_blocks.rs", include_str!("../tests/handed_blocks.rs")),
    ("tests/hygiene/descriptors.rs", include_str!("../tests/hygiene/descriptors.rs")),
    ("tests/hygiene/memory.rs", include_str!("../tests/hygiene/memory.rs")),
    ("tests/may.rs", include_str!("../tests/may.rs")),
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

/// Seen to fail: with a closure before exec that does nothing.
#[test]
fn a_child_of_a_core_has_the_cores_cpu_or_those_of_the_process() {
    let process = affinity_of_process().unwrap();
    let (core, plain, unpinned) = on_one_core(|| async {
        // It blocks the core for a moment, which nobody else uses.
        let core = affinity_of_current()?;
        Ok((core, cpus_of(&mut grep()), cpus_of(unpin(&mut grep())?)))
    });
    assert_eq!(plain, core);
    assert_eq!(unpinned, process);
}

/// Polls a future once, which must wait.
fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// What is forgotten keeps its memory, and nothing else: the core still comes to its end, and others are
/// served.
#[test]
fn what_is_forgotten_costs_memory_and_no_end() {
    on_one_core(|| async {
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
