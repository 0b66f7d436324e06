//! Load by programs that are not ours, as a check on our own driver. They verify nothing.

use super::{Http, Outcome, Session, wrong};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

/// A load generator of Debian's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Runs for whole seconds: however much work is asked for, it is one.
    Wrk,
    /// Of nghttp2, here with HTTP/1.1.
    H2load,
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tool::Wrk => "wrk",
            Tool::H2load => "h2load",
        })
    }
}

/// One of them, on the driver's CPU.
pub struct Stranger {
    tool: Tool,
    url: String,
    connections: usize,
    body: u64,
    /// Checks before anything is timed.
    own: Http,
}

impl Stranger {
    /// Connects our own driver, for the check.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub fn open(
        tool: Tool,
        server: SocketAddr,
        path: &str,
        body: u64,
        connections: usize,
    ) -> io::Result<Stranger> {
        let own = Http::open(server, path, body, connections, false)?;
        Ok(Stranger { tool, url: format!("http://{server}{path}"), connections, body, own })
    }

    fn command(&self, work: u64) -> Command {
        let mut command = Command::new(self.tool.to_string());
        let connections = self.connections.to_string();
        match self.tool {
            Tool::Wrk => command.args(["-t1", "-d1s", "-c", &connections]),
            Tool::H2load => command.args(["--h1", "-t1", "-c", &connections, "-n", &work.to_string()]),
        };
        command.arg(&self.url);
        command
    }
}

impl Session for Stranger {
    fn verify(&mut self) -> io::Result<()> {
        self.own.verify()
    }

    fn run(&mut self, work: u64) -> io::Result<Outcome> {
        let tool = self.tool;
        let out = self.command(work).output();
        let out = out.map_err(|e| io::Error::new(e.kind(), format!("{tool} (is it installed?): {e}")))?;
        let printed = String::from_utf8_lossy(&out.stdout);
        let done = if out.status.success() { read(tool, &printed) } else { None };
        let (requests, wall) = done.ok_or_else(|| {
            wrong(format!(
                "{tool} does not say that all went well: {printed} {}",
                String::from_utf8_lossy(&out.stderr)
            ))
        })?;
        Ok(Outcome { requests, bytes: requests * self.body, wall, ..Outcome::default() })
    }
}

/// Requests and the time for them, or nothing if some failed.
fn read(tool: Tool, printed: &str) -> Option<(u64, Duration)> {
    let words = |line: &str| {
        line.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    match tool {
        // `  43822 requests in 1.10s, 51.57MB read`, and a line more if any failed.
        Tool::Wrk => {
            if printed.contains("Socket errors") || printed.contains("Non-2xx") {
                return None;
            }
            let line = words(printed.lines().find(|line| line.contains(" requests in "))?);
            Some((line.first()?.parse().ok()?, time(line.get(3)?)?))
        }
        // `finished in 20.65ms, 48426.15 req/s, 56.99MB/s` and
        // `requests: 1000 total, 1000 started, 1000 done, 1000 succeeded, 0 failed, 0 errored, 0 timeout`.
        Tool::H2load => {
            let finished = words(printed.lines().find(|line| line.starts_with("finished in "))?);
            let requests = words(printed.lines().find(|line| line.starts_with("requests: "))?);
            let number = |at: usize| requests.get(at)?.parse::<u64>().ok();
            let (total, succeeded) = (number(1)?, number(7)?);
            (total == succeeded && total > 0).then_some((total, time(finished.get(2)?)?))
        }
    }
}

/// A time such as `1.10s`, `20.65ms`, `812us` or `1.01m`.
fn time(text: &str) -> Option<Duration> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)];
    let (number, unit) =
        units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    Some(Duration::from_secs_f64(number.parse::<f64>().ok().filter(|n| *n > 0.0)? * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_they_print_is_understood() {
        let wrk = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 64 connections\n  \
                   43822 requests in 1.10s, 51.57MB read\nRequests/sec:  39838.18\n";
        assert_eq!(read(Tool::Wrk, wrk), Some((43822, Duration::from_millis(1100))));
        assert_eq!(read(Tool::Wrk, &format!("{wrk}  Non-2xx or 3xx responses: 7\n")), None);
        let h2load = "finished in 20.65ms, 48426.15 req/s, 56.99MB/s\n\
             requests: 1000 total, 1000 started, 1000 done, 1000 succeeded, 0 failed, 0 errored, 0 timeout\n";
        assert_eq!(read(Tool::H2load, h2load), Some((1000, Duration::from_micros(20_650))));
        assert_eq!(read(Tool::H2load, &h2load.replace("1000 succeeded", "999 succeeded")), None);
        assert_eq!(read(Tool::H2load, ""), None);
    }
}
