//! The side of the running program: it starts the new one and hands over.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{getpid, kill_process};

use super::bundle::Bundle;
use super::outcome::{self, Outcome};
use super::{Down, Up, VARIABLE};
use crate::admin::Handle;
use crate::exit::say;
use crate::lifecycle::{self, Stage};
use crate::listen::open::OpenEndpoints;
use crate::processes::line::{Heard, Line};
use crate::service_manager::notify;
use crate::signals::handed_over_signal;

/// How long the new program may take until every core accepts. Pools of a large machine take minutes.
const PATIENCE: Duration = Duration::from_secs(300);

/// The path of the program's file. Another program may be there when it is used.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
static HAS_GIVEN: AtomicBool = AtomicBool::new(false);

/// Stores the path of the program's file. Call it at the start, because the kernel only reports a replaced
/// file as deleted (`proc(5)`).
pub(crate) fn note_program() {
    match std::env::current_exe() {
        Ok(path) => drop(PROGRAM.set(path)),
        Err(error) => tracing::debug!(%error, "the program does not know its own file"),
    }
}

/// Whether another program has taken this one's place. This one then ends when its last client does.
pub(crate) fn has_given() -> bool {
    HAS_GIVEN.load(Ordering::Acquire)
}

/// What the program needs for handing over.
pub(crate) struct Giver {
    open: Arc<Mutex<OpenEndpoints>>,
    admin: Option<Handle>,
}

impl Giver {
    /// With the endpoints that are open.
    pub(crate) fn new(open: Arc<Mutex<OpenEndpoints>>, admin: Option<Handle>) -> Arc<Self> {
        Arc::new(Giver { open, admin })
    }

    /// Begins, on a thread of its own. The result is written to standard error, and the main thread is told
    /// by [`handed_over_signal`].
    pub(crate) fn start(self: &Arc<Self>) {
        if !outcome::begin() {
            let why = "an upgrade is under way already";
            outcome::tell_who_waits(&format!("failed {why}"));
            return say(why);
        }
        let this = Arc::clone(self);
        let thread = std::thread::Builder::new().name("upgrade".to_owned());
        if let Err(error) = thread.spawn(move || this.run()) {
            failed(&format!("no thread can be started: {error}"));
        }
    }

    fn run(&self) {
        match self.hand_over() {
            Ok(pid) => {
                say(&format!("process {pid} has taken over: what is open here finishes"));
                outcome::end(Outcome::Done(pid));
                HAS_GIVEN.store(true, Ordering::Release);
                if let Err(errno) = kill_process(getpid(), handed_over_signal()) {
                    tracing::error!(%errno, "the main thread does not learn that all has been handed over");
                }
            }
            Err(why) => failed(&why),
        }
    }

    /// Returns the number of the new program once every core of it accepts.
    fn hand_over(&self) -> Result<u32, String> {
        if lifecycle::stage() != Stage::Ready {
            return Err("the program starts or ends just now".to_owned());
        }
        let failed = |error: io::Error| error.to_string();
        let bundle = self.bundle().map_err(|error| format!("a socket cannot be duplicated: {error}"))?;
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mut line = Line::new(ours).map_err(failed)?;
        let mut new = start(theirs)?;
        let (payload, sockets) = bundle.into_frame();
        let listening = line
            .send(Down::Bundle as u8, &payload, sockets)
            .map_err(|error| format!("the sockets cannot be passed: {error}"))
            .and_then(|()| listens(&mut line));
        if let Err(why) = listening {
            // It may have ended already.
            drop(new.kill());
            let ended = new.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            return Err(format!("{why} ({ended})"));
        }
        let pid = new.id();
        if let Some(admin) = &self.admin {
            admin.give();
        }
        self.open.lock().unwrap_or_else(PoisonError::into_inner).leave_files();
        notify::hand_over(pid);
        // If the new program does not get this, it sees this one's end.
        let told = line.send(Down::Yours as u8, &[], Vec::new()).and_then(|()| flush(&mut line));
        if let Err(error) = told {
            tracing::warn!(%error, pid, "the new program does not take our last word");
        }
        Ok(pid)
    }

    fn bundle(&self) -> io::Result<Bundle> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (passed, endpoints) = (open.passed().copies()?, open.copies()?);
        let admin = self.admin.as_ref().map(Handle::copy).transpose()?;
        Ok(Bundle { passed, endpoints, admin })
    }
}

fn failed(why: &str) {
    say(&format!("cannot upgrade: {why}; nothing has changed"));
    outcome::end(Outcome::Failed(why.to_owned()));
}

/// Starts the program's file with the arguments of this one.
fn start(line: UnixStream) -> Result<Child, String> {
    let program = PROGRAM.get().ok_or("where the program's file is, is not known; mount /proc")?;
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).stdin(OwnedFd::from(line)).env(VARIABLE, std::process::id().to_string());
    notify::pass_on(&mut command);
    command.spawn().map_err(|error| format!("{} cannot be started: {error}", program.display()))
}

/// Waits until every core of the new program accepts.
fn listens(line: &mut Line) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    let failed = |error: io::Error| format!("the new program cannot be heard: {error}");
    loop {
        // Bytes that it has not read yet are sent first. If it ends, that is the next thing that is read from
        // it.
        line.flush().map_err(failed)?;
        match line.hear().map_err(failed)? {
            Heard::Frame(frame) if frame.kind == Up::Listening as u8 => return Ok(()),
            Heard::Frame(frame) if frame.kind == Up::Failed as u8 => {
                return Err(format!("the new program failed: {}", String::from_utf8_lossy(&frame.payload)));
            }
            Heard::Frame(_) => {}
            Heard::Gone => return Err("the new program has ended before it listened".to_owned()),
            Heard::Nothing => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(format!("the new program does not listen after {} s", PATIENCE.as_secs()));
                }
                wait(line, Some(left)).map_err(failed)?;
            }
        }
    }
}

fn flush(line: &mut Line) -> io::Result<()> {
    while line.waits() {
        wait(line, Some(PATIENCE))?;
        line.flush()?;
    }
    Ok(())
}

/// Waits until there is something to read, or until waiting bytes can be written.
fn wait(line: &Line, left: Option<Duration>) -> io::Result<()> {
    let flags = if line.waits() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let left =
        left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
    match poll(&mut [PollFd::new(line, flags)], left.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
