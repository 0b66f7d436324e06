//! The examples that speak TLS, under clients of others: openssl, curl, h2load.

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::peers::{self, Peer};
use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::tls::{Certificate, Client};
use annulus_integration_tests::{bin, cpus, curl, digest, watch};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output, Stdio};

/// The example on at most two CPUs, with this certificate.
#[track_caller]
fn start(name: &'static str, certificate: &Certificate) -> Server {
    let launch = Launch::example(name, &cpus::list(&cpus::two()));
    launch.arg(certificate.file()).arg(certificate.key()).start()
}

fn url(server: &Server, path: &str) -> String {
    format!("https://localhost:{}{path}", server.port())
}

/// Seen to fail: with another protocol in the example's list.
#[test]
fn openssl_is_echoed_in_the_protocol_that_both_know() {
    let certificate = Certificate::new();
    let server = start("tls_echo", &certificate);
    // Several at once, on whichever core.
    let mut clients: Vec<Client> =
        (0..4).map(|_| Client::connect(server.addr(), "other,echo", &certificate)).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        assert!(client.shows("ALPN protocol: echo"));
        for round in 0..3 {
            let line = format!("line {round} of client {i}");
            writeln!(client.stdin(), "{line}").unwrap();
            assert!(client.shows(&line));
        }
    }
    // A record has 16 KiB, and a line several.
    let long = "0123456789".repeat(10_000);
    writeln!(clients[0].stdin(), "{long}").unwrap();
    assert!(clients[0].shows(&long));
    for client in clients {
        assert!(client.end());
    }
    // Who knows another protocol only is refused, and who is not trusted leaves.
    assert!(!Client::connect(server.addr(), "other", &certificate).shows("ALPN protocol"));
    let stranger = Client::connect(server.addr(), "echo", &Certificate::new());
    assert!(!stranger.end());
    assert!(Client::connect(server.addr(), "echo", &certificate).shows("ALPN protocol: echo"));
}

/// Asks by curl, and returns the version of HTTP and the status.
#[track_caller]
fn asked(how: &[&str], certificate: &Certificate, url: &str) -> String {
    let fixed = ["--cacert", &certificate.file(), "--output", "/dev/null"];
    let told = ["--write-out", "%{http_version} %{http_code}", url];
    curl::must(fixed.iter().chain(how).chain(&told))
}

/// Seen to fail: with `h2` left out of the protocols.
#[test]
fn curl_is_served_in_both_versions_of_http() {
    let certificate = Certificate::new();
    let server = start("https", &certificate);
    for (how, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        assert_eq!(asked(&[how], &certificate, &url(&server, "/")), format!("{version} 200"));
        assert_eq!(asked(&[how], &certificate, &url(&server, "/none")), format!("{version} 404"));
        // Both ways at once, and more than all windows and buffers hold.
        let tree = Tree::new();
        let body = tree.file("body", 8 << 20);
        let from = format!("@{}", tree.at(&body.path).display());
        let to = tree.at("back").display().to_string();
        let echo = url(&server, "/echo");
        curl::must([
            how,
            "--fail",
            "--cacert",
            &certificate.file(),
            "--data-binary",
            &from,
            "-o",
            &to,
            &echo,
        ]);
        let back = digest::of_reader(&mut std::fs::File::open(&to).unwrap()).unwrap();
        assert_eq!(back, body.sum, "{how}");
    }
    // Who speaks without TLS is none of its clients, and costs it nothing.
    let mut plain = TcpStream::connect(server.addr()).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    plain.set_read_timeout(Some(watch::LIMIT)).unwrap();
    let mut said = Vec::new();
    // An alert, or a reset.
    drop(plain.read_to_end(&mut said));
    assert!(!said.starts_with(b"HTTP"));
    assert_eq!(asked(&["--http2"], &certificate, &url(&server, "/")), "2 200");
    assert_eq!(server.stop().code(), 0);
}

/// Every answer is a 2xx, in the version that was asked for.
///
/// Seen to fail: with `h2` left out of the protocols.
#[test]
fn h2load_gets_every_answer() {
    let certificate = Certificate::new();
    let server = start("https", &certificate);
    for (list, name, streams) in [("h2", "h2", "20"), ("http/1.1", "http/1.1", "1")] {
        let at = format!("https://{}/", server.addr());
        let args = ["-n", "2000", "-c", "20", "-m", streams, "--npn-list", list, &at];
        let said = Command::new("h2load").args(args).output();
        let said = said.unwrap_or_else(|e| panic!("running h2load (apt-get install nghttp2-client): {e}"));
        let said = String::from_utf8_lossy(&said.stdout);
        assert!(said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
        assert!(said.contains("status codes: 2000 2xx"), "{said}");
        assert!(said.contains(&format!("Application protocol: {name}")), "{said}");
    }
    assert_eq!(server.stop().code(), 0);
}

/// Seen to fail: with connections dropped where the end is asked for.
#[test]
fn what_is_under_way_is_answered_before_the_end() {
    let certificate = Certificate::new();
    let server = start("https", &certificate);
    let mut idle = Client::connect(server.addr(), "http/1.1", &certificate);
    write!(idle.stdin(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert!(idle.shows("HTTP/1.1 200 OK"));
    // `.` is standard input, read as it comes; with `-` curl waits for its end, and shows nothing until then.
    let mut curl = Command::new("curl");
    curl.args(["-q", "-sS", "--http2", "--no-buffer", "--noproxy", "*", "--cacert", &certificate.file()]);
    curl.args(["--request", "POST", "--upload-file", ".", &url(&server, "/echo")]);
    let mut busy =
        curl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("curl runs");
    let (mut to, mut from) = (busy.stdin.take().unwrap(), busy.stdout.take().unwrap());
    to.write_all(b"first").unwrap();
    let mut first = [0; 5];
    from.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first");
    server.signal(rustix::process::Signal::TERM);
    watch::until("the listener's end", || TcpStream::connect(server.addr()).is_err().then_some(()));
    idle.ended();
    to.write_all(b" and after").unwrap();
    drop(to);
    let mut rest = String::new();
    from.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, " and after");
    assert!(busy.wait().unwrap().success());
    let ended = server.wait();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert!(!ended.err.iter().any(|line| line.contains("cut off")), "{ended:?}");
}

/// Runs the client of HTTPS.
#[track_caller]
fn get(at: SocketAddr, path: &str, roots: &str) -> Output {
    let client = bin::example("https_get");
    Command::new(client).args([&at.to_string(), path, roots]).output().expect("the example runs")
}

/// Seen to fail: with HTTP/1.1 spoken whatever was chosen.
#[test]
fn the_client_speaks_what_the_server_chooses_and_trusts_whom_it_was_told() {
    let certificate = Certificate::new();
    let server = start("https", &certificate);
    let got = get(server.addr(), "/", &certificate.file());
    assert_eq!(String::from_utf8_lossy(&got.stderr), "HTTP/2.0 200 OK\n");
    assert!(got.status.success() && got.stdout == [b'.'; 1024]);
    let got = get(server.addr(), "/", &Certificate::new().file());
    assert!(!got.status.success() && got.stdout.is_empty(), "{got:?}");
    if !peers::have(["nginx"]) {
        return;
    }
    for (versions, said) in [("ssl", "HTTP/1.1 200 OK\n"), ("ssl http2", "HTTP/2.0 200 OK\n")] {
        let (file, key) = (certificate.file(), certificate.key());
        let nginx = Peer::nginx(&format!(
            "http {{ server {{ listen @ {versions}; ssl_certificate {file}; ssl_certificate_key {key}; \
             location / {{ return 200 nginx; }} }} }}"
        ));
        // The certificate names 127.0.0.1, where the proxy of thirty lines listens.
        let proxy = Launch::example("relay_proxy", &nginx.addr().to_string()).start();
        let got = get(proxy.addr(), "/any", &certificate.file());
        assert_eq!(String::from_utf8_lossy(&got.stderr), said);
        assert!(got.status.success() && got.stdout == b"nginx", "{got:?}");
    }
}
