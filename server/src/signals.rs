//! Signals as a file descriptor.
//!
//! The signals are blocked before the first thread starts, so that every thread inherits the mask and none
//! is ever interrupted; the main thread then reads them from a signalfd (man signalfd(2)) beside the cores'
//! end.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT or SIGTERM: end.
    End,
    /// SIGUSR1: print the counters, the stalled cores and the placement report.
    Show,
    /// SIGUSR2: open the files of the logs again.
    Reopen,
    /// SIGHUP: read the configuration again.
    Reload,
    /// The first real-time signal: have a new program take this one's place.
    Upgrade,
    /// The second one, of the program to itself: a new program has taken its place.
    HandedOver,
    /// The process that gave orders has ended: end at once.
    Gone,
}

/// The signal that orders an upgrade: the first real-time signal that the C library leaves (`signal(7)`), of
/// which no shell, terminal or service manager sends one by itself.
pub(crate) fn upgrade_signal() -> rustix::process::Signal {
    real_time(0)
}

/// The signal by which the program tells its main thread that another one has taken its place.
pub(crate) fn handed_over_signal() -> rustix::process::Signal {
    real_time(1)
}

fn real_time(which: i32) -> rustix::process::Signal {
    // SAFETY: the C library uses none of those from SIGRTMIN() on, and there are thirty of them.
    unsafe { rustix::process::Signal::from_raw_unchecked(libc::SIGRTMIN() + which) }
}

/// The blocked signals.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: File,
}

impl Signals {
    /// Blocks SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 and those of upgrades for this thread and all that it
    /// starts. Call it before the first thread.
    ///
    /// # Errors
    /// What pthread_sigmask(3) or signalfd(2) say; in practice only a lack of file descriptors.
    pub(crate) fn block() -> io::Result<Self> {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the whole set before anything reads it, and `set` lives across
        // all calls; the signal numbers are valid constants; a null pointer for the old mask is allowed
        // (sigprocmask(2)).
        let raw = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            libc::sigaddset(set.as_mut_ptr(), upgrade_signal().as_raw());
            libc::sigaddset(set.as_mut_ptr(), handed_over_signal().as_raw());
            match libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) {
                0 => libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK),
                errno => return Err(io::Error::from_raw_os_error(errno)),
            }
        };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd has just made this descriptor, and nobody else knows it.
        Ok(Signals { fd: File::from(unsafe { OwnedFd::from_raw_fd(raw) }) })
    }

    /// The next signal that waits, or `None`. Does not block.
    ///
    /// # Errors
    /// What read(2) says, other than "nothing there".
    pub(crate) fn next(&self) -> io::Result<Option<Signal>> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        match (&self.fd).read(&mut info) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        // ssi_signo is the first field, a u32 (signalfd(2)).
        let [a, b, c, d, ..] = info;
        let number = u32::from_ne_bytes([a, b, c, d]);
        Ok(Some(match number as i32 {
            libc::SIGUSR1 => Signal::Show,
            libc::SIGUSR2 => Signal::Reopen,
            libc::SIGHUP => Signal::Reload,
            number if number == upgrade_signal().as_raw() => Signal::Upgrade,
            number if number == handed_over_signal().as_raw() => Signal::HandedOver,
            _ => Signal::End,
        }))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Sends a signal to this thread only, so that tests on other threads never see it.
    pub(crate) fn raise(signal: libc::c_int) {
        // SAFETY: pthread_self is this living thread, and the number is a valid signal.
        assert_eq!(unsafe { libc::pthread_kill(libc::pthread_self(), signal) }, 0);
    }

    #[test]
    fn signals_are_read_and_kill_nobody() {
        let signals = Signals::block().unwrap();
        assert_eq!(signals.next().unwrap(), None);
        for (number, signal) in [
            (libc::SIGINT, Signal::End),
            (libc::SIGUSR1, Signal::Show),
            (libc::SIGUSR2, Signal::Reopen),
            (libc::SIGHUP, Signal::Reload),
            (libc::SIGTERM, Signal::End),
            (libc::SIGRTMIN(), Signal::Upgrade),
            (libc::SIGRTMIN() + 1, Signal::HandedOver),
        ] {
            raise(number);
            assert_eq!(signals.next().unwrap(), Some(signal));
        }
        assert_eq!(signals.next().unwrap(), None);
    }
}
