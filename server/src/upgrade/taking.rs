//! The side of the new program: it takes what the old one hands over, and reports when it serves.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::AddressFamily;
use rustix::net::sockopt::socket_domain;

use super::bundle::Bundle;
use super::{Down, Up, VARIABLE};
use crate::exit::Failure;
use crate::processes::line::{Heard, Line};

/// The line to the old program, as long as that runs.
static LINE: Mutex<Option<Line>> = Mutex::new(None);

/// Takes what the old program hands over; `None` where this program takes nobody's place. Call it first.
///
/// # Errors
/// The old program has ended, or sends something that this one does not understand.
pub(crate) fn take() -> Result<Option<Bundle>, Failure> {
    if std::env::var_os(VARIABLE).is_none() || socket_domain(io::stdin()) != Ok(AddressFamily::UNIX) {
        return Ok(None);
    }
    let failed = |error| Failure::failed("cannot take over from the program that runs", error);
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    let mut line = Line::new(socket).map_err(failed)?;
    loop {
        match line.hear().map_err(failed)? {
            Heard::Frame(frame) if frame.kind == Down::Bundle as u8 => {
                let odd =
                    || Failure::input("the program that runs is another version, and hands over otherwise");
                let bundle = Bundle::of_frame(&frame.payload, frame.sockets).ok_or_else(odd)?;
                *lock() = Some(line);
                return Ok(Some(bundle));
            }
            Heard::Frame(_) => {}
            Heard::Nothing => wait(&line).map_err(failed)?,
            Heard::Gone => {
                return Err(Failure::input("the program whose place this one is to take has gone"));
            }
        }
    }
}

/// Tells the old program, if there is one, that every core accepts. Does not wait.
pub(crate) fn listens() {
    say(Up::Listening, &[]);
}

/// Tells the old program, if there is one, that this one ends, for the reason `why`.
pub(crate) fn failed(why: &str) {
    say(Up::Failed, why.as_bytes());
}

fn say(up: Up, payload: &[u8]) {
    if let Some(line) = &mut *lock()
        && let Err(error) = line.send(up as u8, payload, Vec::new())
    {
        // If it has ended, that is the next thing that is read from it.
        tracing::debug!(%error, "the program that ran does not listen any more");
    }
}

/// Waits until the old program, if there is one, accepts no more connections. Not for a core's thread.
pub(crate) fn wait_until_all_is_ours() {
    loop {
        let socket = {
            let mut line = lock();
            let Some(heard) = line.as_mut().map(Line::hear) else { return };
            match heard {
                Ok(Heard::Frame(frame)) if frame.kind == Down::Yours as u8 => *line = None,
                Ok(Heard::Frame(_)) => {}
                Ok(Heard::Nothing) => {}
                Ok(Heard::Gone) | Err(_) => *line = None,
            }
            line.as_ref().map(|line| line.as_fd().try_clone_to_owned())
        };
        match socket {
            None => return,
            // Without the lock, because another thread may have something to send.
            Some(Ok(socket)) => drop(poll(&mut [PollFd::new(&socket, PollFlags::IN)], None)),
            Some(Err(error)) => {
                tracing::warn!(%error, "the program that ran is not waited for");
                return;
            }
        }
    }
}

fn wait(line: &Line) -> io::Result<()> {
    match poll(&mut [PollFd::new(line, PollFlags::IN)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn lock() -> MutexGuard<'static, Option<Line>> {
    LINE.lock().unwrap_or_else(PoisonError::into_inner)
}
