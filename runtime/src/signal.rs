//! Signals that a task can wait for.
//!
//! The runtime installs no signal handler and blocks nothing but `SIGPIPE`, on its own threads. A program
//! that waits for signals blocks them before its first thread starts ([`block_before_threads`]), so that no
//! thread is ever interrupted, and reads them from a descriptor (`signalfd(2)`, Linux 2.6.27) that the ring
//! watches.
//!
//! ```
//! use annulus::signal::{self, Signal, Signals};
//!
//! fn main() -> annulus::Result<()> {
//!     signal::block_before_threads(&[Signal::INTERRUPT, Signal::TERMINATE])?;
//!     annulus::Runtime::builder().pool_bytes(1 << 20).build()?.run(|| async {
//!         if annulus::cores::index() == 0 {
//!             let signals = Signals::new(&[Signal::INTERRUPT, Signal::TERMINATE])?;
//! #           let (own, term) = (rustix::process::getpid(), rustix::process::Signal::TERM);
//! #           rustix::process::kill_process(own, term).unwrap();
//!             let signal = signals.recv().await?;
//!             println!("ending: {signal}");
//!         }
//!         Ok(())
//!     })
//! }
//! ```

use std::fmt;
use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;

use crate::core::ask::ask;
use crate::error::os;
use crate::op::poll::{PollOnce, Ready};
use crate::{Error, ErrorKind, Result, task};

/// A signal that can be waited for (`signal(7)`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(i32);

impl Signal {
    /// `SIGINT`: Ctrl-C at the terminal.
    pub const INTERRUPT: Signal = Signal(libc::SIGINT);
    /// `SIGTERM`: a request to end.
    pub const TERMINATE: Signal = Signal(libc::SIGTERM);
    /// `SIGQUIT`: Ctrl-\ at the terminal.
    pub const QUIT: Signal = Signal(libc::SIGQUIT);
    /// `SIGHUP`: the terminal has gone. Many servers read their configuration again.
    pub const HANGUP: Signal = Signal(libc::SIGHUP);
    /// `SIGUSR1`.
    pub const USER1: Signal = Signal(libc::SIGUSR1);
    /// `SIGUSR2`.
    pub const USER2: Signal = Signal(libc::SIGUSR2);
    /// `SIGCHLD`: a child has ended. Several that end together may be reported once.
    pub const CHILD: Signal = Signal(libc::SIGCHLD);
    /// `SIGWINCH`: the terminal has another size.
    pub const WINDOW_CHANGE: Signal = Signal(libc::SIGWINCH);

    /// The signal of this number; `None` for those that cannot be waited for: `SIGKILL`, `SIGSTOP`, what a
    /// fault of the program itself raises (`SIGSEGV`, `SIGBUS`, `SIGFPE`, `SIGILL`, `SIGTRAP`, `SIGSYS`), and
    /// numbers that are no signal or glibc's own.
    pub fn from_raw(number: i32) -> Option<Signal> {
        let refused = [
            libc::SIGKILL,
            libc::SIGSTOP,
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGSYS,
        ];
        let exists = (1..32).contains(&number) || (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number);
        (exists && !refused.contains(&number)).then_some(Signal(number))
    }

    /// Its number.
    pub fn as_raw(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Signal::INTERRUPT => "SIGINT",
            Signal::TERMINATE => "SIGTERM",
            Signal::QUIT => "SIGQUIT",
            Signal::HANGUP => "SIGHUP",
            Signal::USER1 => "SIGUSR1",
            Signal::USER2 => "SIGUSR2",
            Signal::CHILD => "SIGCHLD",
            Signal::WINDOW_CHANGE => "SIGWINCH",
            Signal(number) => return write!(f, "signal {number}"),
        };
        f.write_str(name)
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Blocks `signals` on the calling thread and on all that it starts from now on: call it in `main`, before
/// anything that starts a thread, and before the runtime is built. A thread that was started earlier is still
/// interrupted, or killed, by them. Children inherit the mask too (`execve(2)` keeps it), so one that Ctrl-C
/// is to end needs it reset. `pthread_sigmask(3)`.
///
/// # Errors
/// Those of `pthread_sigmask(3)`; in practice none.
pub fn block_before_threads(signals: &[Signal]) -> Result<()> {
    let set = set_of(signals);
    // SAFETY: the set was made by `set_of`, and a null pointer for the old mask is allowed.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        errno => Err(Error::io("cannot block signals", io::Error::from_raw_os_error(errno))),
    }
}

fn set_of(signals: &[Signal]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the whole set before anything reads it; the numbers are those of
    // existing signals.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal.0);
        }
        set.assume_init()
    }
}

/// Whether the calling thread blocks `signal`.
fn is_blocked(signal: Signal) -> bool {
    let mut set = set_of(&[]);
    // SAFETY: without a new mask the call only writes the present one into `set`.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut set);
        libc::sigismember(&raw const set, signal.0) == 1
    }
}

/// Signals that can be waited for, on the core that made it. It is not `Send`.
#[derive(Debug)]
pub struct Signals {
    fd: Rc<OwnedFd>,
}

/// A signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// The signal.
    pub signal: Signal,
    /// The process that sent it, 0 if the kernel did.
    pub pid: u32,
    /// That process's user.
    pub uid: u32,
}

impl fmt::Display for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from process {} of user {}", self.signal, self.pid, self.uid)
    }
}

impl Signals {
    /// Asks for `signals` on the current core (`signalfd(2)`, Linux 2.6.27). A signal is delivered once: of
    /// several cores, or several `Signals` of one core, that ask for the same signal one gets it.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when one of them is not blocked on the core's thread: it would kill the process
    /// instead. [`ErrorKind::Io`] when no descriptor is left.
    pub fn new(signals: &[Signal]) -> Result<Self> {
        if let Some(signal) = signals.iter().find(|signal| !is_blocked(**signal)) {
            return Err(Error::new(
                ErrorKind::Input,
                format!("{signal} is not blocked; call annulus::signal::block_before_threads first in main"),
            ));
        }
        let set = set_of(signals);
        // SAFETY: signalfd reads the set and makes a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(Error::io("cannot make a signalfd", io::Error::last_os_error()));
        }
        // SAFETY: signalfd has just made this descriptor, and nobody else knows it.
        Ok(Self { fd: Rc::new(unsafe { OwnedFd::from_raw_fd(fd) }) })
    }

    /// Receives the next signal. The ring reports that there is one (Linux 5.1), and then the core reads it.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] with the system's reason.
    ///
    /// # Cancellation
    /// Safe: no signal is lost.
    pub async fn recv(&self) -> Result<Received> {
        let failed = |e| Error::io("cannot read a signal", e);
        // This comes before a signal is taken, because after that there must be no await in which it could be
        // dropped.
        task::consume_budget().await;
        loop {
            let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
            match rustix::io::read(&self.fd, &mut info) {
                Ok(_) => {
                    let word =
                        |at: usize| u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
                    return Ok(Received {
                        signal: Signal(word(offset_of!(libc::signalfd_siginfo, ssi_signo)) as i32),
                        pid: word(offset_of!(libc::signalfd_siginfo, ssi_pid)),
                        uid: word(offset_of!(libc::signalfd_siginfo, ssi_uid)),
                    });
                }
                Err(rustix::io::Errno::AGAIN) => {
                    let poll = PollOnce { fd: Watched(Rc::clone(&self.fd)), ready: Ready::Read };
                    ask(poll).await.map_err(failed)?;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(failed(os(e))),
            }
        }
    }
}

/// The descriptor, which the poll keeps open.
struct Watched(Rc<OwnedFd>);

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Completes at the next Ctrl-C (`SIGINT`), which must have been [blocked](block_before_threads). One that
/// came before the call and was not taken counts.
///
/// # Errors
/// As for [`Signals::new`] and [`Signals::recv`].
///
/// # Cancellation
/// Safe: no signal is lost.
pub async fn ctrl_c() -> Result<()> {
    Signals::new(&[Signal::INTERRUPT])?.recv().await.map(drop)
}
