//! A lease on a file: whoever opens the file waits until its holder gives it back (`fcntl(2)`, `F_SETLEASE`).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// A lease. It is given back when it is dropped.
pub struct Lease(File);

impl Lease {
    /// Takes a lease on a file that nobody else has open. `None`, with a note, where the file system has no
    /// leases.
    ///
    /// # Panics
    /// When the file cannot be opened.
    #[track_caller]
    pub fn take(path: &Path) -> Option<Lease> {
        let file = File::options().read(true).write(true).open(path);
        let file = file.unwrap_or_else(|e| panic!("opening {}: {e}", path.display()));
        // SAFETY: signal(2) and fcntl(2) on a descriptor of ours. The default action of SIGIO, the lease's
        // word, is to end the process; here it is ignored.
        let taken = unsafe {
            libc::signal(libc::SIGIO, libc::SIG_IGN);
            libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK)
        };
        if taken != 0 {
            eprintln!("note: no lease on {}: {}", path.display(), io::Error::last_os_error());
            return None;
        }
        Some(Lease(file))
    }

    /// Whether somebody waits to open the file.
    pub fn is_asked_for(&self) -> bool {
        // SAFETY: fcntl(2) on a descriptor of ours.
        let held = unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_GETLEASE) };
        held != libc::F_WRLCK
    }
}
