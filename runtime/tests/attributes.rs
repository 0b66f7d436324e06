//! Tests that are written with `#[annulus::test]`, and programs with `#[annulus::main]`.

mod common;

use std::cell::Cell;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use annulus::cores;
use annulus::net::UnixStream;

#[annulus::test]
async fn a_test_has_a_core_of_its_own() {
    let held = Rc::new(Cell::new(0));
    let task = annulus::spawn({
        let held = Rc::clone(&held);
        async move { held.set(7) }
    });
    task.await.unwrap();
    assert_eq!((held.get(), cores::index(), cores::count()), (7, 0, 1));
}

#[annulus::test(pool_bytes = 1 << 20, name = "named")]
async fn a_test_may_return_what_is_not_send() -> Result<(), Box<dyn std::error::Error>> {
    let (a, b) = UnixStream::pair()?;
    a.send_all("ping").await?;
    assert_eq!(b.recv().await?.as_deref(), Some(&b"ping"[..]));
    let name = thread::current().name().map(str::to_owned);
    assert_eq!(name, Some(format!("named-{}", cores::cpu())));
    Ok(())
}

#[annulus::test]
#[should_panic(expected = "the words of the body")]
async fn a_panic_of_the_body_is_the_tests() {
    annulus::yield_now().await;
    panic!("the words of the body, {}", cores::index());
}

#[annulus::test(cores = 2)]
async fn other_cores_serve_while_the_body_runs() {
    for core in 0..cores::count() {
        assert_eq!(cores::submit_to(core, async || cores::index()).await.unwrap(), core);
    }
}

mod renamed {
    pub(super) use annulus as library;
}

#[renamed::library::test(crate = "crate::renamed::library")]
async fn the_crate_may_have_another_name() {
    assert_eq!(cores::count(), 1);
}

/// One of the many below, and a test by itself.
#[annulus::test]
async fn a_connection_of_its_own() -> annulus::Result<()> {
    let (a, b) = UnixStream::pair()?;
    for _ in 0..10 {
        a.send_all(vec![1; 10_000]).await?;
        let mut came = 0;
        while came < 10_000 {
            came += b.recv().await?.expect("more is sent").len();
        }
    }
    // None of the many ends before all have begun.
    BEGUN.fetch_add(1, Ordering::Relaxed);
    while BEGUN.load(Ordering::Relaxed) < TOGETHER.load(Ordering::Relaxed) {
        annulus::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

static BEGUN: AtomicUsize = AtomicUsize::new(0);
static TOGETHER: AtomicUsize = AtomicUsize::new(0);

/// Within the memory that Linux lets everyone lock. Seen to fail: with blocks registered for every test, some
/// rings cannot be made on Linux 6.14 and later.
#[test]
fn many_tests_run_at_once_in_one_process() {
    let many = thread::spawn(|| {
        give_up_ipc_lock();
        // Started by this thread, they are not above the limit either.
        TOGETHER.store(64, Ordering::Relaxed);
        let one = || {
            let ended = std::panic::catch_unwind(a_connection_of_its_own);
            if ended.is_err() {
                // The others do not wait for this one.
                TOGETHER.store(0, Ordering::Relaxed);
            }
            ended.unwrap()
        };
        let threads: Vec<_> = (0..64).map(|_| thread::spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(many.join().unwrap(), vec![ExitCode::SUCCESS; 64]);
}

/// `CAP_IPC_LOCK` is above `RLIMIT_MEMLOCK` (`io_uring`, `__io_account_mem`). Of the calling thread only.
fn give_up_ipc_lock() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::IPC_LOCK);
    sets.permitted.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, sets).unwrap();
}

mod program {
    /// What the program of [`super::the_exit_code_is_that_of_the_body`] does is told by its environment.
    #[annulus::main(cores = "all", pool_bytes = 1 << 20)]
    pub(super) async fn main() -> Result<(), Box<dyn std::error::Error>> {
        match std::env::var("ANNULUS_TEST_BODY")?.as_str() {
            "fails" => Err("the body's own error".into()),
            "panics" => panic!("the body's own words"),
            _ => Ok(()),
        }
    }
}

mod nowhere {
    #[annulus::main(cores = "4000")]
    pub(super) async fn main() {}
}

/// Run by the tests below in a process of its own; says nothing otherwise.
#[test]
fn is_a_program() {
    let Ok(body) = std::env::var("ANNULUS_TEST_BODY") else { return };
    let code = if body == "nowhere" { nowhere::main() } else { program::main() };
    // `ExitCode` tells its number to nobody but `main`.
    let number = (0..=255).find(|number| ExitCode::from(*number) == code);
    std::process::exit(number.expect("a code is a byte").into());
}

fn ran(body: &str) -> (Option<i32>, String) {
    let program = std::env::current_exe().unwrap();
    let ended = Command::new(program)
        .args(["is_a_program", "--exact", "--nocapture"])
        .env("ANNULUS_TEST_BODY", body)
        .env_remove("ANNULUS_HOSTILE")
        .output()
        .unwrap();
    (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
}

/// Seen to fail: with 1 for every error of the start.
#[test]
fn the_exit_code_is_that_of_the_body() {
    let (code, told) = ran("succeeds");
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = ran("fails");
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("Error: \"the body's own error\""), "{told}");
    let (code, told) = ran("panics");
    assert_eq!(code, Some(101), "{told}");
    assert!(told.contains("the body's own words"), "{told}");
    let (code, told) = ran("nowhere");
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("Error: CPU 4000 does not exist"), "{told}");
}
