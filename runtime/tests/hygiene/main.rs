//! What the program around a runtime may count on: the runtime keeps to itself.
//!
//! What belongs to the whole process is looked at here, so the tests take turns.

#[path = "../common/mod.rs"]
mod common;
mod descriptors;
mod memlock;
mod memory;
mod origin;
mod several;
mod signals;
mod things;

use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use annulus::{Builder, Running};
use common::on_first_cpu;

fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait_for_stop(settings: Builder) -> Running {
    let running = settings.build().unwrap().start(|| async {
        annulus::cores::stopping().await;
        annulus::Ok(())
    });
    running.unwrap()
}

/// This program again, with one test (by its whole name) that does nothing unless it is a child.
fn child(test: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env("ANNULUS_CHILD", "1");
    command.stdin(Stdio::null());
    command
}

/// Runs it to its end. What it wrote is the test's output too: whoever reads why a test failed finds there
/// why its child did.
fn finish(mut child: Command) -> (ExitStatus, String) {
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // Marked, since a harness of tests tells its failures in the words of this one.
    said.lines()
        .chain(String::from_utf8_lossy(&output.stderr).lines())
        .for_each(|line| eprintln!("| {line}"));
    (output.status, said)
}

fn is_child() -> bool {
    std::env::var_os("ANNULUS_CHILD").is_some()
}
