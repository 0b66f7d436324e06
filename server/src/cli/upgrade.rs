//! `annulus upgrade`: the order to a running program to have its file take its place, and what comes of it.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, kill_process, pidfd_open};
use serde_json::Value;

use super::which::{Which, ask, must_serve, not_signalled};
use crate::admin::options::AdminAddress;
use crate::exit::{Failure, Kind};
use crate::signals::upgrade_signal;
use crate::upgrade::outcome::waits_at;

/// How long it may take: somewhat longer than the running program waits for the new one.
const PATIENCE: Duration = Duration::from_secs(330);
/// Time between two requests for its progress.
const CHECK_EVERY: Duration = Duration::from_millis(50);

/// Gives the order, and waits until the new program serves or has failed.
pub(super) fn order(which: &Which) -> Result<(), Failure> {
    match &which.admin {
        Some(address) => by_admin(address),
        None => by_signal(which.process()?),
    }
}

fn by_admin(address: &AdminAddress) -> Result<(), Failure> {
    let before = status(address)?["pid"].clone();
    let (code, why) = ask(address, "POST", "/upgrade")?;
    if code != 200 {
        return Err(Failure::new(Kind::Failed, format!("{address} does not upgrade: {why}")));
    }
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let now = status(address)?;
        if now["pid"] != before {
            return Ok(());
        }
        if now["upgrade"] == "failed" {
            return Err(failed(now["why"].as_str().unwrap_or_default()));
        }
        std::thread::sleep(CHECK_EVERY);
    }
    Err(failed("nobody says what came of it"))
}

/// How far it has come.
fn status(address: &AdminAddress) -> Result<Value, Failure> {
    let (code, body) = ask(address, "GET", "/upgrade")?;
    let told = serde_json::from_str(&body).ok().filter(|_| code == 200);
    told.ok_or_else(|| Failure::new(Kind::Failed, format!("{address} knows no upgrades: {body}")))
}

fn by_signal(pid: Pid) -> Result<(), Failure> {
    let number = pid.as_raw_nonzero().get();
    must_serve(pid)?;
    let cannot = |error: io::Error| {
        let what = format!("cannot wait for word of process {number}; is another upgrade under way?");
        Failure::failed(&what, error)
    };
    let place = waits_at(number.unsigned_abs()).map_err(cannot)?;
    let word = UnixDatagram::bind_addr(&place).map_err(cannot)?;
    word.set_nonblocking(true).map_err(cannot)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| not_signalled(pid, errno))?;
    kill_process(pid, upgrade_signal()).map_err(|errno| not_signalled(pid, errno))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut text = [0; 4096];
        match word.recv(&mut text) {
            Ok(len) => {
                let text = String::from_utf8_lossy(&text[..len]).into_owned();
                return match text.strip_prefix("failed ") {
                    Some(why) => Err(failed(why)),
                    None => Ok(()),
                };
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(cannot(error)),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut fds = [PollFd::new(&word, PollFlags::IN), PollFd::new(&process, PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return Err(failed("nobody says what came of it")),
            // It says what came of it before it ends.
            Ok(_) if fds[0].revents().is_empty() => return Err(failed("the process has ended")),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(cannot(errno.into())),
        }
    }
}

fn failed(why: &str) -> Failure {
    let what = "the running program goes on, because the new one cannot take its place";
    Failure::new(Kind::Failed, format!("{what}: {why}"))
}
