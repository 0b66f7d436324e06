//! Signals are the program's.

use std::net::Shutdown;
use std::path::Path;

use annulus::fs::{File, OpenOptions};
use annulus::pipe::pipe;
use annulus::transfer::{Road, send_file};

use crate::common::{Scratch, on_one_core, small};
use crate::things::{pair, with_everything_open};
use crate::{alone, child, finish, is_child, on_first_cpu, wait_for_stop};

/// A mask of /proc/.../status, such as `SigCgt`.
fn mask(task: impl AsRef<Path>, name: &str) -> u64 {
    let status = std::fs::read_to_string(task.as_ref().join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
}

const SIGPIPE: u64 = 1 << (libc::SIGPIPE - 1);
const SIGUSR2: u64 = 1 << (libc::SIGUSR2 - 1);

/// Seen to fail, run alone: with SIGUSR1 ignored from the start of a core on. (What is ignored, unlike a
/// handler, is inherited by the child, so that tests before this one may hide it.)
#[test]
fn signals_are_left_to_the_program() {
    // In a process in which no runtime has been before.
    if !is_child() {
        let _turn = alone();
        let (ended, _) = finish(child("signals::signals_are_left_to_the_program"));
        assert!(ended.success(), "{ended}");
        return;
    }
    let process = || ["SigCgt", "SigIgn"].map(|name| mask("/proc/thread-self", name));
    let (before, blocked) = (process(), mask("/proc/thread-self", "SigBlk"));
    let (while_up, on_worker) =
        with_everything_open(move || (process(), mask("/proc/thread-self", "SigBlk")));
    assert_eq!(while_up, before, "caught and ignored signals are the program's");
    assert_eq!(process(), before);
    // A core's thread blocks SIGPIPE and nothing else of its own. What was asked for is blocked by who asks.
    assert_eq!(on_worker, blocked | SIGPIPE | SIGUSR2);
    let running = wait_for_stop(on_first_cpu(small()));
    assert_eq!(mask("/proc/thread-self", "SigBlk"), blocked, "the starter's mask is its own");
    running.stop();
    running.wait().unwrap();
}

/// A program in which SIGPIPE kills, unlike in Rust's own: writing to who has gone is an error all the same.
///
/// Seen to fail: with `block_sigpipe` left out the child dies of the signal.
#[test]
fn who_has_gone_is_an_error_and_no_signal() {
    if !is_child() {
        let _turn = alone();
        let (ended, _) = finish(child("signals::who_has_gone_is_an_error_and_no_signal"));
        assert!(ended.success(), "{ended}");
        return;
    }
    // SAFETY: the default action, in a process that this test has for itself.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let scratch = Scratch::new("hygiene-sigpipe");
    let path = scratch.0.join("file");
    std::fs::write(&path, [1; 10_000]).unwrap();
    on_one_core(move || async move {
        let file = File::open(&path, OpenOptions::new()).await?;
        for road in [Road::Inline, Road::Ring] {
            let (_listener, connected, _accepted) = pair().await?;
            connected.shutdown(Shutdown::Write)?;
            let e = send_file(&connected, &file, 0..10_000, road).await.expect_err("it was shut");
            assert_eq!(e.error.io_error().and_then(|e| e.raw_os_error()), Some(libc::EPIPE), "{road}");
        }
        let (reader, writer) = pipe()?;
        drop(reader);
        let e = writer.write_all("to nobody").await.expect_err("nobody reads");
        assert_eq!(e.error.io_error().and_then(|e| e.raw_os_error()), Some(libc::EPIPE));
        Ok(())
    });
}
