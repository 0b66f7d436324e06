//! Commands of Redis clients, by redis-benchmark, behind a check of our own.

use super::{Outcome, STALL, Session, wrong};
use crate::pattern;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command as Program;
use std::time::Duration;

/// Keys that there are, and from which redis-benchmark chooses by chance (`-r`).
const KEYS: u64 = 10_000;
/// Bytes of a value.
const VALUE: usize = 64;

/// What clients ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// A value for one of 10,000 keys.
    Set,
    /// The value of one of them.
    Get,
}

impl Command {
    /// As redis-benchmark calls it.
    fn name(self) -> &'static str {
        match self {
            Command::Set => "SET",
            Command::Get => "GET",
        }
    }
}

/// redis-benchmark, on the driver's CPU.
pub struct Redis {
    server: SocketAddr,
    command: Command,
    pipelined: u32,
    connections: usize,
}

impl Redis {
    /// Opens nothing: redis-benchmark connects by itself, each time.
    pub fn new(server: SocketAddr, command: Command, pipelined: u32, connections: usize) -> Redis {
        Redis { server, command, pipelined, connections }
    }

    fn program(&self, work: u64) -> Program {
        let mut program = Program::new("redis-benchmark");
        program.args(["-h", &self.server.ip().to_string(), "-p", &self.server.port().to_string()]);
        program.args(["-t", &self.command.name().to_lowercase(), "-n", &work.to_string()]);
        program.args(["-c", &self.connections.to_string(), "-P", &self.pipelined.to_string()]);
        program.args(["-d", &VALUE.to_string(), "-r", &KEYS.to_string(), "--csv"]);
        program
    }
}

impl Session for Redis {
    /// Gives each key its value, and asks for some of them. What redis-benchmark asks for is then there.
    fn verify(&mut self) -> io::Result<()> {
        let mut client = Client::connect(self.server)?;
        for first in (0..KEYS).step_by(100) {
            let some = first..first + 100;
            let sets = some.clone().map(|key| command(&[b"SET", name(key).as_bytes(), &value(key)]));
            client.ask(sets.flatten().collect(), &b"+OK\r\n".repeat(100))?;
            let gets = some.clone().map(|key| command(&[b"GET", name(key).as_bytes()]));
            let due = some.flat_map(|key| bulk(&value(key)));
            client.ask(gets.flatten().collect(), &due.collect::<Vec<_>>())?;
        }
        client.ask(command(&[b"GET", b"nothing has this name"]), b"$-1\r\n")?;
        client.ask(command(&[b"EXISTS", name(0).as_bytes(), b"nothing"]), b":1\r\n")
    }

    fn run(&mut self, work: u64) -> io::Result<Outcome> {
        let out = self.program(work).output();
        let out =
            out.map_err(|e| io::Error::new(e.kind(), format!("redis-benchmark (is it installed?): {e}")))?;
        let printed = String::from_utf8_lossy(&out.stdout);
        let rate = if out.status.success() { read(self.command, &printed) } else { None };
        let rate = rate.ok_or_else(|| {
            let said = String::from_utf8_lossy(&out.stderr);
            wrong(format!("redis-benchmark does not say that all went well: {printed} {said}"))
        })?;
        let wall = Duration::from_secs_f64(work as f64 / rate);
        Ok(Outcome { requests: work, bytes: work * VALUE as u64, wall, ..Outcome::default() })
    }
}

/// The key that redis-benchmark calls so.
fn name(key: u64) -> String {
    format!("key:{key:012}")
}

/// Its value, which is another for each.
fn value(key: u64) -> Vec<u8> {
    let mut value = vec![0; VALUE];
    pattern::fill(&mut value, key * VALUE as u64);
    value
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// A command as RESP2 has it.
fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut whole = format!("*{}\r\n", words.len()).into_bytes();
    whole.extend(words.iter().flat_map(|word| bulk(word)));
    whole
}

/// A client that looks at every byte.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(server: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(STALL))?;
        stream.set_nodelay(true)?;
        Ok(Client(BufReader::new(stream)))
    }

    fn ask(&mut self, what: Vec<u8>, due: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(&what)?;
        let mut said = vec![0; due.len()];
        self.0.read_exact(&mut said)?;
        if said != due || !self.0.buffer().is_empty() {
            let said = said.escape_ascii();
            return Err(wrong(format!("{said} where {} was due", due.escape_ascii())));
        }
        Ok(())
    }
}

/// Requests a second, in what redis-benchmark prints: a line of names and one of figures, such as
/// `"SET","123456.78","0.2",...`.
fn read(command: Command, printed: &str) -> Option<f64> {
    let begin = format!("\"{}\",\"", command.name());
    let rate = printed.lines().find_map(|line| line.strip_prefix(&begin)?.split('"').next());
    rate?.parse::<f64>().ok().filter(|rate| *rate > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_benchmark_prints_is_understood() {
        let printed = "\"test\",\"rps\",\"avg_latency_ms\"\n\"GET\",\"123456.50\",\"0.231\"\n";
        assert_eq!(read(Command::Get, printed), Some(123_456.5));
        assert_eq!(read(Command::Set, printed), None);
        assert_eq!(read(Command::Get, "\"GET\",\"nan\""), None);
        assert_eq!(read(Command::Get, ""), None);
    }

    #[test]
    fn a_command_is_an_array_of_bulks() {
        assert_eq!(command(&[b"GET", b"a\r\n"]), b"*2\r\n$3\r\nGET\r\n$3\r\na\r\n\r\n");
        assert_eq!(name(7), "key:000000000007");
        assert_ne!(value(1), value(2));
    }
}
