//! The limit of locked memory is respected, or the runtime refuses to start and says what to do.

use annulus::ErrorKind;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::common::small;
use crate::things::tcp;
use crate::{alone, child, is_child, on_first_cpu};

/// A child that may lock so many bytes, and is not above the limit, starts a runtime and says how it went.
#[test]
fn starts_with_little_locked_memory() {
    if !is_child() {
        return;
    }
    let limit: u64 = std::env::var("ANNULUS_MEMLOCK").map_or(0, |limit| limit.parse().unwrap());
    give_up_ipc_lock();
    setrlimit(Resource::Memlock, Rlimit { current: Some(limit), maximum: Some(limit) }).unwrap();
    let started = on_first_cpu(small()).build().unwrap().start(|| async {
        // It works, too.
        drop(tcp().await?);
        annulus::Ok(())
    });
    println!();
    match started.and_then(|running| {
        let fixed = running.report().cores[0].ring.fixed_buffers;
        running.wait().map(|()| fixed)
    }) {
        Ok(fixed) => println!("says runs, registered blocks: {fixed}"),
        Err(e) => println!("says {:?}: {e}", e.kind()),
    }
}

/// CAP_IPC_LOCK is above RLIMIT_MEMLOCK (io_uring, `__io_account_mem`).
fn give_up_ipc_lock() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::IPC_LOCK);
    sets.permitted.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, sets).unwrap();
}

/// Seen to fail: with the remedy for `ENOMEM` taken out of `explain`. (No limit that is tried here refuses a registration,
/// whose remedy is `not_registered`'s.)
#[test]
fn a_memlock_limit_is_respected_or_refused_with_the_remedy() {
    if is_child() {
        return;
    }
    let _turn = alone();
    let tried: Vec<String> = [0, 16 << 10, 256 << 10, 1 << 20, 8 << 20]
        .iter()
        .map(|limit: &u64| {
            let child = child("memlock::starts_with_little_locked_memory")
                .env("ANNULUS_MEMLOCK", limit.to_string())
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&child.stdout).into_owned();
            let says = told.lines().find_map(|line| line.strip_prefix("says "));
            let says = says.unwrap_or_else(|| panic!("with {limit} bytes: {told}")).to_owned();
            let refused =
                says.starts_with(&format!("{:?}", ErrorKind::Platform)) && says.contains("RLIMIT_MEMLOCK");
            assert!(says.starts_with("runs") || refused, "with {limit} bytes: {says}");
            says
        })
        .collect();
    assert!(tried[4].starts_with("runs"), "8 MiB is what Linux gives everyone: {tried:?}");
    assert!(!tried[0].ends_with("true"), "blocks were registered beyond the limit: {tried:?}");
}
