//! Child processes: this process starts them, talks to them, and waits for them.
//!
//! A [blocking thread](crate::spawn_blocking) starts them, with all CPUs of this process and the memory
//! policy that it was started with ([`numa::thread::unpin`](crate::numa::thread::unpin)), and not with those
//! of a core. Their pidfds report their ends (`pidfd_open(2)`; Linux 5.3), without a handler for `SIGCHLD`.
//!
//! ```
//! # annulus::Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?.run(|| async {
//! use std::process::{Command, Stdio};
//! use annulus::process::spawn;
//!
//! let mut command = Command::new("tr");
//! command.args(["a-z", "A-Z"]).stdin(Stdio::piped()).stdout(Stdio::piped());
//! let mut child = spawn(command).await?;
//! let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
//! input.write_all("through a child").await?;
//! drop(input); // the end, for the child
//! let (_, text) = output.read(Vec::with_capacity(64)).await?;
//! assert_eq!(text, b"THROUGH A CHILD");
//! assert!(child.wait().await?.success());
//! # annulus::Ok(())
//! # })?;
//! # annulus::Ok(())
//! ```

use std::fmt;
use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal as Sent, pidfd_open, pidfd_send_signal};

use crate::contained::told;
use crate::core::Core;
use crate::error::os;
use crate::fd::AsyncFd;
use crate::pipe::{PipeReader, PipeWriter};
use crate::{Error, ErrorKind, Result, spawn_blocking};

/// A process that was started by [`spawn`].
///
/// # Cancellation
/// Dropping it ends nothing unless [`kill_on_drop`](Self::kill_on_drop) was asked for: the process runs on,
/// and its core waits for its end, so that no zombie is left while the core runs.
pub struct Child {
    /// Its standard input, if that was [`Stdio::piped`].
    pub stdin: Option<PipeWriter>,
    /// Its standard output, if that was [`Stdio::piped`].
    pub stdout: Option<PipeReader>,
    /// Its standard error, if that was [`Stdio::piped`].
    pub stderr: Option<PipeReader>,
    /// `None` only in `drop`.
    process: Option<Process>,
    kill_on_drop: bool,
}

/// The process that is waited for.
struct Process {
    child: std::process::Child,
    pidfd: AsyncFd<OwnedFd>,
    /// Set once it has ended.
    status: Option<ExitStatus>,
}

/// Starts a process.
///
/// Standard input, output and error are inherited unless the command says otherwise.
///
/// # Errors
/// [`ErrorKind::Io`] with the system's reason, naming the program: `ENOENT` where there
/// is none; [`BlockingError`](crate::BlockingError) when no thread could be had.
///
/// # Cancellation
/// A process that was started meanwhile is killed.
pub async fn spawn(mut command: Command) -> Result<Child> {
    let started = spawn_blocking(move || {
        let program = command.get_program().to_string_lossy().into_owned();
        crate::numa::thread::unpin(&mut command)?;
        let child = command.spawn().map_err(|e| Error::io(format!("cannot start {program}"), e))?;
        // It is wrapped before anything can fail, so that a child that nobody gets is killed.
        let mut started = Started(Some(child));
        let pid = started.0.as_ref().map(Pid::from_child);
        let pid = pid.ok_or_else(|| Error::new(ErrorKind::Platform, "a child without a number"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK);
        let pidfd = pidfd.map_err(|e| Error::io(format!("cannot watch {program}"), os(e)))?;
        let pipes =
            started.0.as_mut().map(|child| (child.stdin.take(), child.stdout.take(), child.stderr.take()));
        Result::<_>::Ok((started, pidfd, pipes.unwrap_or_default()))
    });
    let (mut started, pidfd, (stdin, stdout, stderr)) = started.await??;
    let reader = |fd: OwnedFd| PipeReader::from_fd(fd);
    let stdin = stdin.map(|fd| PipeWriter::from_fd(fd.into())).transpose()?;
    let stdout = stdout.map(|fd| reader(fd.into())).transpose()?;
    let stderr = stderr.map(|fd| reader(fd.into())).transpose()?;
    let child = started.0.take().ok_or_else(|| Error::new(ErrorKind::Platform, "a child was lost"))?;
    let process = Some(Process { child, pidfd: AsyncFd::new(pidfd), status: None });
    Ok(Child { stdin, stdout, stderr, process, kill_on_drop: false })
}

/// A process that nobody has got yet.
struct Started(Option<std::process::Child>);

impl Drop for Started {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        // One that cannot be killed has ended already.
        let killed = child.kill();
        let wait = move || {
            if let Err(e) = killed.and_then(|()| child.wait()) {
                told(|| tracing::warn!("a child cannot be ended: {e}"));
            }
        };
        // A killed process ends soon, but a core does not wait for it.
        if Core::is_here() { spawn_blocking(wait).detach() } else { wait() }
    }
}

/// Runs a process to its end, without standard input, and returns all that it wrote, in memory.
///
/// ```
/// # annulus::Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?.run(|| async {
/// let said = annulus::process::output(std::process::Command::new("uname")).await?;
/// assert!(said.status.success());
/// assert_eq!(said.stdout, b"Linux\n");
/// # annulus::Ok(())
/// # })?;
/// # annulus::Ok(())
/// ```
///
/// # Errors
/// As for [`spawn`], [`PipeReader::read`](crate::pipe::PipeReader::read) and [`Child::wait`]. A process that
/// fails is no error here.
///
/// # Cancellation
/// The process is killed.
pub async fn output(mut command: Command) -> Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command).await?;
    child.kill_on_drop(true);
    child.wait_with_output().await
}

impl Child {
    /// Its process number, until it has been waited for.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().filter(|process| process.status.is_none()).map(|process| process.child.id())
    }

    /// Whether dropping this kills the process (`SIGKILL`). The default is no.
    pub fn kill_on_drop(&mut self, kill: bool) {
        self.kill_on_drop = kill;
    }

    /// Closes its standard input, because it may be waiting for the end of that, and waits for its end. It
    /// may be called again.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when somebody else has waited for it (`ECHILD`), or `SIGCHLD` is ignored.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        self.stdin = None;
        match &mut self.process {
            Some(process) => process.wait().await,
            None => Err(Error::new(ErrorKind::Ended, "there is no process to wait for")),
        }
    }

    /// Its status if it has ended.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.process {
            Some(process) => process.ended(),
            None => Ok(None),
        }
    }

    /// Reads all that it writes, waits for its end, and returns both. Output that is not piped is empty.
    ///
    /// # Errors
    /// As for [`PipeReader::read`](crate::pipe::PipeReader::read) and [`wait`](Self::wait).
    ///
    /// # Cancellation
    /// As for dropping the child.
    pub async fn wait_with_output(mut self) -> Result<Output> {
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        // Both are read at once, because a child that fills one pipe waits before it closes the other.
        let stderr = crate::spawn(async move { all_of(stderr).await });
        let stdout = all_of(stdout).await?;
        let stderr = stderr.await??;
        Ok(Output { status: self.wait().await?, stdout, stderr })
    }

    /// Sends it a signal, such as `SIGTERM`. If another process has its number by now, that one does not get
    /// it.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] with the system's reason: `ESRCH` when it has ended and was waited for, `EPERM`.
    pub fn signal(&self, signal: crate::signal::Signal) -> Result<()> {
        let number = signal.as_raw();
        let sent = Sent::from_named_raw(number)
            .ok_or_else(|| Error::new(ErrorKind::Input, format!("there is no signal {number}")))?;
        self.send(sent)
    }

    /// Ends it at once (`SIGKILL`); [`wait`](Self::wait) returns when it has ended.
    ///
    /// # Errors
    /// As for [`signal`](Self::signal). A process that has ended and was not waited for is no error.
    pub fn kill(&self) -> Result<()> {
        self.send(Sent::KILL)
    }

    fn send(&self, signal: Sent) -> Result<()> {
        let Some(process) = &self.process else { return Ok(()) };
        pidfd_send_signal(&process.pidfd, signal)
            .map_err(|e| Error::io("cannot send a signal to a child", os(e)))
    }
}

impl Process {
    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait().map_err(|e| Error::io("cannot wait for a child", e))?;
        }
        Ok(self.status)
    }

    async fn wait(&mut self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            self.pidfd.readable().await?;
        }
    }
}

async fn all_of(pipe: Option<PipeReader>) -> Result<Vec<u8>> {
    /// The least number of free bytes for a read.
    const STEP: usize = 16 << 10;
    let mut all = Vec::new();
    let Some(pipe) = pipe else { return Ok(all) };
    loop {
        all.reserve(STEP);
        let (n, back) = pipe.read(all).await?;
        all = back;
        if n == 0 {
            return Ok(all);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.kill_on_drop
            && self.id().is_some()
            && let Err(e) = self.kill()
        {
            told(|| tracing::warn!("a child cannot be killed: {e}"));
        }
        let Some(mut process) = self.process.take().filter(|process| process.status.is_none()) else {
            return;
        };
        if Core::is_here() {
            crate::spawn(async move {
                if let Err(e) = process.wait().await {
                    tracing::debug!("nobody waited for a child, and this cannot either: {e}");
                }
            })
            .detach();
        }
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("id", &self.id()).finish_non_exhaustive()
    }
}
