//! Which running program a command is about, and how it is asked.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::Args;
use rustix::io::Errno;
use rustix::process::Pid;

use crate::admin::options::AdminAddress;
use crate::exit::Failure;
use crate::listen::address::{Place, unix_address};
use crate::signals::upgrade_signal;

/// How long the program may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which program is meant.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// The program that answers operators here, as its --admin says
    #[arg(long, value_name = "ADDR|unix:PATH")]
    pub(super) admin: Option<AdminAddress>,

    /// Its process number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
}

impl Which {
    /// The number of the process that is meant.
    pub(super) fn process(&self) -> Result<Pid, Failure> {
        self.pid.and_then(Pid::from_raw).ok_or_else(|| Failure::input("name --admin or --pid"))
    }
}

/// Refuses a process that is no program of ours: a signal that it does not know would end it (`signal(7)`).
/// Every program that serves blocks the signal of upgrades.
pub(super) fn must_serve(pid: Pid) -> Result<(), Failure> {
    let pid = pid.as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| {
        Failure::input(format!("cannot inspect process {pid}: {error}; name one that runs, or --admin"))
    })?;
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let blocked = blocked.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    if blocked >> (upgrade_signal().as_raw() - 1) & 1 == 1 {
        return Ok(());
    }
    Err(Failure::input(format!(
        "process {pid} is no annulus that serves; name the process that does, or --admin"
    )))
}

/// Why a process cannot be signalled, and what to do.
pub(super) fn not_signalled(pid: Pid, errno: Errno) -> Failure {
    let remedy = match errno {
        Errno::SRCH => "there is no such process",
        Errno::PERM => "it is another user's: ask as that user",
        _ => "name another process",
    };
    Failure::input(format!("cannot signal process {}: {errno}: {remedy}", pid.as_raw_nonzero()))
}

/// Asks the program that answers operators at `address`. Returns the status of its answer, and its body.
pub(super) fn ask(address: &AdminAddress, method: &str, path: &str) -> Result<(u16, String), Failure> {
    let failed = |error: std::io::Error| {
        Failure::input(format!("cannot ask {address}: {error}; write what --admin of that program says"))
    };
    let answer = match address.place() {
        Place::Unix(socket) => {
            let stream = unix_address(socket).and_then(|at| UnixStream::connect_addr(&at)).map_err(failed)?;
            stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
            exchange(stream, "localhost", method, path).map_err(failed)?
        }
        place => {
            let stream = TcpStream::connect(&place.candidates()[..]).map_err(failed)?;
            stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
            let host = stream.peer_addr().map_err(failed)?.to_string();
            exchange(stream, &host, method, path).map_err(failed)?
        }
    };
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, body.trim().to_owned()))
}

fn exchange(mut stream: impl Read + Write, host: &str, method: &str, path: &str) -> std::io::Result<String> {
    let fields = "Content-Length: 0\r\nConnection: close";
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(64 << 10).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
