//! The library's examples that are servers: one that runs, and what its tests do to it.

use crate::server::{Launch, Server};
use crate::{cpus, watch};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

/// The example on the first CPU that is ours.
#[track_caller]
pub fn start(name: &'static str) -> Server {
    Launch::example(name, &cpus::list(&cpus::allowed()[..1])).start()
}

/// A connection that does not wait for ever.
pub fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.addr()).unwrap();
    stream.set_read_timeout(Some(watch::LIMIT)).unwrap();
    stream
}

/// What the server answers to `bytes` until it closes.
pub fn exchange(server: &Server, bytes: &[u8]) -> String {
    let mut stream = connect(server);
    stream.write_all(bytes).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A second of wrk with 64 connections: every answer is a 200 and no socket fails.
#[track_caller]
pub fn load(url: &str) {
    load_with(&[], url);
}

/// The same, with `args` for wrk besides.
#[track_caller]
pub fn load_with(args: &[&str], url: &str) {
    let output = Command::new("wrk")
        .args(["-t", "1", "-c", "64", "-d", "1s", "--timeout", "30s"])
        .args(args)
        .arg(url)
        .output()
        .unwrap_or_else(|e| panic!("running wrk (apt-get install wrk): {e}"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "{said}");
    let line = said.lines().find(|line| line.contains("requests in")).unwrap_or_else(|| panic!("{said}"));
    let requests: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
    assert!(requests > 0, "{said}");
}
