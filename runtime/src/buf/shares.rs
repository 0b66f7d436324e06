//! Who still uses a buffer: a count that any thread may lower, and whose last share takes the buffer home.
//!
//! A share is a lease, or the core's own: the core has one for as long as the kernel goes on in the buffer,
//! or chunks in it wait to be taken. Only who has a share makes another, so a count of one never rises behind
//! the back of who has it.
//!
//! A share that is forgotten (`mem::forget`) stays counted, and its buffer out. Whoever forgets 2^31 of one
//! buffer ends the process, as with an `Arc`: a count that came round to zero would give the buffer to the
//! kernel while leases show its bytes.

use std::io::{self, Write};

use crate::sync::atomic::{AtomicU32, Ordering};

/// Shares of one buffer at which the process ends. As many threads as are left to 2^32 may each add one
/// before it has.
const MOST: u32 = i32::MAX as u32;

/// The shares of one buffer.
pub(crate) struct Shares(AtomicU32);

impl Shares {
    /// None: the buffer is free.
    pub(super) fn none() -> Self {
        Self(AtomicU32::new(0))
    }

    /// The first, of a buffer that nobody else knows: no ordering is needed.
    pub(super) fn begin(&self) {
        self.0.store(1, Ordering::Relaxed);
    }

    /// One more. The caller's own keeps the count above zero meanwhile.
    pub(super) fn add(&self) {
        if self.0.fetch_add(1, Ordering::Relaxed) >= MOST {
            too_many();
        }
    }

    /// Gives the caller's share up. True: it was the last, and the caller takes the buffer home.
    #[must_use = "who has the last share takes the buffer home"]
    pub(super) fn give_up(&self) -> bool {
        // The usual case, a buffer with one share, needs no locked instruction. Acquire: what others did with
        // the buffer happened before it goes back.
        self.0.load(Ordering::Acquire) == 1 || self.0.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

#[cold]
fn too_many() -> ! {
    // Not by a panic: the count is wrong already, and who catches it would go on.
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

    /// Run once more as a process of its own, which is to end.
    ///
    /// Seen to fail: without the limit the count comes round, and the child ends well.
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
