//! `annulus reload`: the order to a running program to read its file anew.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::Args;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::admin::options::AdminAddress;
use crate::exit::{Failure, Kind};
use crate::listen::address::{Place, unix_address};

/// How long the program may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which program is meant.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// The program that answers operators here, as its --admin says
    #[arg(long, value_name = "ADDR|unix:PATH")]
    admin: Option<AdminAddress>,

    /// Its process number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
}

/// Gives the order. The program reports the outcome on its own standard error.
pub(super) fn order(which: &Which) -> Result<(), Failure> {
    if let Some(admin) = &which.admin {
        return by_admin(admin);
    }
    let pid = which.pid.and_then(Pid::from_raw).ok_or_else(|| Failure::input("name --admin or --pid"))?;
    kill_process(pid, Signal::HUP).map_err(|errno| {
        let remedy = match errno {
            Errno::SRCH => "there is no such process",
            Errno::PERM => "it is another user's: ask as that user",
            _ => "name another process",
        };
        Failure::input(format!("cannot signal process {pid}: {errno}: {remedy}", pid = pid.as_raw_nonzero()))
    })
}

fn by_admin(address: &AdminAddress) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(
            Kind::Input,
            format!("cannot ask {address}: {error}; write what --admin of that program says"),
        )
    };
    let answer = match address.place() {
        Place::Unix(path) => {
            let stream = unix_address(path).and_then(|at| UnixStream::connect_addr(&at)).map_err(failed)?;
            stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
            ask(stream, "localhost").map_err(failed)?
        }
        place => {
            let stream = TcpStream::connect(&place.candidates()[..]).map_err(failed)?;
            stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
            let host = stream.peer_addr().map_err(failed)?.to_string();
            ask(stream, &host).map_err(failed)?
        }
    };
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(Failure::new(Kind::Failed, format!("{address} does not reload: {}", body.trim()))),
    }
}

fn ask(mut stream: impl Read + Write, host: &str) -> std::io::Result<String> {
    let request =
        format!("POST /reload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(64 << 10).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
