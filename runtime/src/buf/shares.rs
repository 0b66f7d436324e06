//! Who still uses a buffer: a count that any thread may lower. The last share gives the buffer back.
//!
//! A share is a lease, or the core's own. The core has one while the kernel goes on in the buffer, or while
//! chunks in it wait to be taken. Only the holder of a share makes another, so a count of one cannot rise
//! while its only holder reads it.
//!
//! A share that is forgotten (`mem::forget`) stays counted, and its buffer stays out. Forgetting 2^31 shares
//! of one buffer ends the process, as with an `Arc`: a count that wrapped to zero would give the buffer to
//! the kernel while leases show its bytes.

use std::io::{self, Write};

use crate::sync::atomic::{AtomicU32, Ordering};

/// The count at which the process ends. Up to 2^31 threads may each add one before it has ended.
const MOST: u32 = i32::MAX as u32;

/// The shares of one buffer.
pub(crate) struct Shares(AtomicU32);

impl Shares {
    /// No share: the buffer is free.
    pub(super) fn none() -> Self {
        Self(AtomicU32::new(0))
    }

    /// The first share, of a buffer that nobody else knows: no ordering is needed.
    pub(super) fn begin(&self) {
        self.0.store(1, Ordering::Relaxed);
    }

    /// Adds a share. The caller's own share keeps the count above zero meanwhile.
    pub(super) fn add(&self) {
        if self.0.fetch_add(1, Ordering::Relaxed) >= MOST {
            too_many();
        }
    }

    /// Gives the caller's share up. `true`: it was the last, and the caller gives the buffer back.
    #[must_use = "the holder of the last share gives the buffer back"]
    pub(super) fn give_up(&self) -> bool {
        // The usual case, a buffer with one share, needs no locked instruction. Acquire: what others did with
        // the buffer happens before it goes back.
        self.0.load(Ordering::Acquire) == 1 || self.0.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

#[cold]
fn too_many() -> ! {
    // Not a panic: the count is wrong already, and code that catches the panic would go on.
    let why = "annulus: 2^31 leases on one receive buffer, nearly all of them forgotten (mem::forget)";
    let _not_told = writeln!(io::stderr(), "{why}");
    std::process::abort()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    const CHILD: &str = "ANNULUS_TEST_TOO_MANY_SHARES";

    /// The test starts itself again as a process that is to end.
    ///
    /// Seen to fail: without the limit the count wraps, and the child exits well.
    #[test]
    fn a_count_that_is_about_to_come_round_ends_the_process() {
        if std::env::var_os(CHILD).is_some() {
            let shares = Shares(AtomicU32::new(MOST - 1));
            shares.add();
            assert!(!shares.give_up(), "up to the limit it counts");
            shares.add();
            shares.add();
            return;
        }
        let this = "buf::shares::tests::a_count_that_is_about_to_come_round_ends_the_process";
        let tests = std::env::current_exe().unwrap();
        let child =
            Command::new(tests).args([this, "--exact", "--nocapture"]).env(CHILD, "1").output().unwrap();
        assert_eq!(child.status.signal(), Some(libc::SIGABRT), "{child:?}");
        let told = String::from_utf8_lossy(&child.stderr);
        assert!(told.contains("2^31 leases on one receive buffer"), "{told}");
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
