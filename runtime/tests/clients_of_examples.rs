//! Examples as their users meet them: by real clients, where those are installed (`scripts/test` does so).

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use common::{example, installed, one_cpu, two_cpus};

/// An example that listens, ended with the test.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(program: PathBuf, arguments: &[&str]) -> Self {
        let child = Command::new(program).args(arguments).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ");
        let address = address.and_then(|address| address.parse().ok());
        // What else it says must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self { child, address: address.unwrap_or_else(|| panic!("it said {line:?}")) }
    }

    fn client(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.args(["-h", "127.0.0.1", "-p", &self.address.port().to_string()]);
        command
    }

    /// Ends it as a person would.
    fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn says(command: &mut Command) -> String {
    let ran = command.output().unwrap();
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&ran.stderr));
    text
}

/// On two cores where there are two CPUs: then half of the keys are another core's.
#[test]
fn redis_clients_are_served() {
    let (Some(program), true) = (example("redis"), installed("redis-cli", "redis-tools")) else { return };
    let server = Server::start(program, &["127.0.0.1:0", &two_cpus().unwrap_or_else(one_cpu)]);
    let ask = |words: &[&str]| says(server.client("redis-cli").args(words));
    assert_eq!(ask(&["PING"]), "PONG\n");
    for i in 0..20 {
        let (key, value) = (format!("key{i}"), format!("value {i}\r\n"));
        assert_eq!(ask(&["SET", &key, &value]), "OK\n");
        assert_eq!(ask(&["GET", &key]), format!("{value}\n"));
    }
    assert_eq!(ask(&["GET", "missing"]), "\n");
    assert_eq!(ask(&["EXISTS", "key1", "key2", "missing"]), "2\n");
    assert_eq!(ask(&["DEL", "key1", "key2", "missing"]), "2\n");
    assert_eq!(ask(&["DBSIZE"]), "18\n");
    assert_eq!((ask(&["INCR", "n"]), ask(&["INCR", "n"])), ("1\n".to_owned(), "2\n".to_owned()));
    assert!(ask(&["INCR", "key3"]).contains("not an integer"));
    assert_eq!(ask(&["MSET", "a", "1", "b", "2"]), "OK\n");
    assert!(ask(&["SUBSCRIBE"]).contains("unknown command"));
    // A text of bytes that end lines, and one that is long.
    let long = "x".repeat(100_000);
    assert_eq!((ask(&["SET", "long", &long]), ask(&["GET", "long"])), ("OK\n".to_owned(), long + "\n"));

    // Cut at every byte, as a network may.
    let mut raw = TcpStream::connect(server.address).unwrap();
    raw.set_nodelay(true).unwrap();
    let command = b"*2\r\n$4\r\nECHO\r\n$4\r\n\r\n\r\n\r\nPING\r\n*0\r\n*1\r\n$4\r\nQUIT\r\n";
    for byte in command.chunks(1) {
        raw.write_all(byte).unwrap();
    }
    let mut answers = String::new();
    raw.read_to_string(&mut answers).unwrap();
    assert_eq!(answers, "$4\r\n\r\n\r\n\r\n+PONG\r\n+OK\r\n");
    for wrong in
        ["*1\r\n$999999999\r\n", "*99999999\r\n", "*1\r\nPING\r\n", "*1\r\n$2\r\nabcd\r\n", "*-1\r\n"]
    {
        let mut raw = TcpStream::connect(server.address).unwrap();
        raw.write_all(wrong.as_bytes()).unwrap();
        let mut answer = String::new();
        raw.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("-ERR Protocol error"), "{wrong:?}: {answer:?}");
    }
    assert_eq!(ask(&["FLUSHALL"]), "OK\n");
    assert_eq!(ask(&["DBSIZE"]), "0\n");
    server.end();
}

/// What it measures is not looked at: that it comes to its end with every answer is.
#[test]
fn redis_benchmark_comes_to_its_end() {
    let (Some(program), true) = (example("redis"), installed("redis-benchmark", "redis-tools")) else {
        return;
    };
    let server = Server::start(program, &["127.0.0.1:0", &two_cpus().unwrap_or_else(one_cpu)]);
    let mut benchmark = server.client("redis-benchmark");
    benchmark.args(["-t", "ping,set,get,incr", "-n", "5000", "-c", "20", "-P", "8", "-r", "100", "--csv"]);
    let told = says(&mut benchmark);
    for test in ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR"] {
        assert!(told.contains(&format!("\"{test}\"")), "{told}");
    }
    server.end();
}

#[test]
fn the_proxy_of_thirty_lines_relays_both_ways() {
    let Some(program) = example("relay_proxy") else { return };
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("localhost:{}", upstream.local_addr().unwrap().port());
    let server = Server::start(program, &["127.0.0.1:0", &to]);
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = upstream.accept().unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        stream.write_all(&got).unwrap();
    });
    let sent = common::wire::pattern(0, common::bulk(1 << 20));
    let mut client = TcpStream::connect(server.address).unwrap();
    client.write_all(&sent).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert!(got == sent);
    echo.join().unwrap();
    // Nobody listens there any more: the client is told by an end.
    let mut refused = TcpStream::connect(server.address).unwrap();
    assert!(matches!(refused.read(&mut [0; 1]), Ok(0) | Err(_)));
}

/// Here there is a ring: without one no other test runs.
#[test]
fn a_program_chooses_its_runtime_by_what_there_is() {
    let Some(program) = example("choose") else { return };
    assert_eq!(says(&mut Command::new(&program)), "hello from annulus\n");
    assert_eq!(says(Command::new(&program).arg("tokio")), "hello from tokio\n");
    assert!(!Command::new(&program).arg("other").stderr(Stdio::null()).status().unwrap().success());
}

/// `logger` of util-linux, where it is installed, and sockets of the standard library.
#[test]
fn every_line_of_a_log_is_in_its_file() {
    use std::net::UdpSocket;
    use std::os::unix::net::UnixDatagram;
    let Some(program) = example("log_collector") else { return };
    let dir = common::Scratch::new("collector");
    let (file, socket) = (dir.0.join("log"), dir.0.join("socket"));
    std::fs::write(&file, "a line from before\n").unwrap();
    let server = Server::start(program, &[file.to_str().unwrap(), "127.0.0.1:0", socket.to_str().unwrap()]);
    let network = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sender = network.local_addr().unwrap();
    let local = UnixDatagram::unbound().unwrap();
    // It says where it listens before it has the other socket.
    while local.send_to(b"local 0\n", &socket).is_err() {
        std::thread::yield_now();
    }
    let mut expected = vec!["a line from before".to_owned(), "local local 0".to_owned()];
    for i in 0..50 {
        network.send_to(format!("line {i}\ttabbed").as_bytes(), server.address).unwrap();
        local.send_to(format!("local {i} again").as_bytes(), &socket).unwrap();
        expected.push(format!("{sender} line {i} tabbed"));
        expected.push(format!("local local {i} again"));
    }
    let by_logger = installed("logger", "bsdutils");
    if by_logger {
        let logged = Command::new("logger").arg("--socket").arg(&socket).arg("of a real client").status();
        assert!(logged.unwrap().success());
    }
    server.end();
    let text = std::fs::read_to_string(&file).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if by_logger {
        let at = lines.iter().position(|line| line.contains("of a real client"));
        lines.remove(at.expect("what logger sent"));
    }
    assert_eq!(lines[0], expected[0]);
    lines.sort();
    expected.sort();
    assert_eq!(lines, expected);
    assert!(!socket.exists());
}
