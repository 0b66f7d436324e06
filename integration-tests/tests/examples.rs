//! The library's examples that are servers, under real clients.

use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::{cpus, curl, watch};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;

/// The example on the first CPU that is ours.
#[track_caller]
fn start(name: &'static str) -> Server {
    Launch::example(name, &cpus::list(&cpus::allowed()[..1])).start()
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.addr()).unwrap();
    stream.set_read_timeout(Some(watch::LIMIT)).unwrap();
    stream
}

/// What the server answers to `bytes` until it closes.
fn exchange(server: &Server, bytes: &[u8]) -> String {
    let mut stream = connect(server);
    stream.write_all(bytes).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A second of wrk with 64 connections: every answer is a 200 and no socket fails.
#[track_caller]
fn load(url: &str) {
    let output = Command::new("wrk")
        .args(["-t", "1", "-c", "64", "-d", "1s", "--timeout", "30s", url])
        .output()
        .unwrap_or_else(|e| panic!("running wrk (apt-get install wrk): {e}"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "{said}");
    let line = said.lines().find(|line| line.contains("requests in")).unwrap_or_else(|| panic!("{said}"));
    let requests: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
    assert!(requests >= 64, "{said}");
}

#[test]
fn echo_gives_back_what_it_gets() {
    let server = start("echo");
    let sent: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect();
    let stream = connect(&server);
    let mut back = stream.try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        back.read_to_end(&mut got).unwrap();
        got
    });
    (&stream).write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(reader.join().unwrap() == sent);
}

#[test]
fn http_hello_answers_clients_pipelines_and_refuses_the_rest() {
    let server = start("http_hello");
    assert_eq!(curl::sum(&server.url("/")).len, 1024);
    load(&server.url("/"));
    // Three at once, torn in the middle of one, and the last says that it is the last.
    let (first, rest) = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET /x HTTP/1.1\r\nhost: a\r\n\r\n".split_at(40);
    let mut stream = connect(&server);
    stream.write_all(first).unwrap();
    let mut head = [0; 15];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    stream.write_all(rest).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2);
    for (request, status) in [
        (&b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody"[..], "413"),
        (b"DELETE / HTTP/1.1\r\nhost: a\r\n\r\n", "405"),
        (b"not HTTP at all\r\n\r\n", "400"),
    ] {
        let answer = exchange(&server, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:?}");
    }
    let long = [b"GET / HTTP/1.1\r\nx: ", &[b'y'; 20_000][..]].concat();
    assert!(exchange(&server, &long).starts_with("HTTP/1.1 431 "));
    assert!(exchange(&server, b"GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200 "));
}

#[test]
fn hyper_serves_curl_and_wrk() {
    let server = start("hyper");
    assert_eq!(curl::sum(&server.url("/")).len, 1024);
    assert_eq!(curl::status(&[], &server.url("/none")), 404);
    load(&server.url("/"));
    // A body in each direction, larger than any buffer, by length and in chunks.
    let body: String = (0..300_000).map(|i| format!("{i},")).collect();
    for (head, until) in [
        (format!("content-length: {}\r\n", body.len()), body.clone()),
        ("transfer-encoding: chunked\r\n".to_owned(), format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())),
    ] {
        let stream = connect(&server);
        let mut back = stream.try_clone().unwrap();
        let reader = std::thread::spawn(move || {
            let mut answer = String::new();
            back.read_to_string(&mut answer).unwrap();
            answer
        });
        write!(&stream, "POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{head}\r\n{until}").unwrap();
        let answer = reader.join().unwrap();
        let (head, came) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert!(unchunked(head, came) == body, "another body came back");
    }
}

/// The body of an answer.
fn unchunked(head: &str, mut came: &str) -> String {
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return came.to_owned();
    }
    let mut body = String::new();
    loop {
        let (len, rest) = came.split_once("\r\n").expect("the length of a chunk");
        let len = usize::from_str_radix(len, 16).expect("a length");
        if len == 0 {
            return body;
        }
        body.push_str(&rest[..len]);
        came = &rest[len + 2..];
    }
}
