//! `annulus serve`: what is refused, with which status, and that a refusal harms nobody.

use annulus_integration_tests::curl;
use annulus_integration_tests::files::Tree;
use annulus_integration_tests::http::{self, Client};
use annulus_integration_tests::server::Launch;
use std::path::Path;

/// Sends `request` on a new connection and returns the status of the answer.
#[track_caller]
fn status(addr: std::net::SocketAddr, request: impl AsRef<[u8]>) -> u16 {
    let mut client = Client::connect(addr);
    client.send(&request).expect("sending a request");
    match client.head() {
        Ok(head) => head.status,
        Err(e) => panic!("no answer to {:?}: {e}", String::from_utf8_lossy(request.as_ref())),
    }
}

#[test]
fn missing_files_are_404_and_the_connection_goes_on() {
    let tree = Tree::new();
    tree.dir("dir/inner");
    let sample = tree.file("file.txt", 1000);
    let server = Launch::serve(tree.root()).start();
    let mut client = Client::connect(server.addr());
    for path in ["/missing", "/missing/", "/missing/too", "/file.txt/beyond", "/file.txt/", "/a%2fb"] {
        let response = client.get(path);
        assert_eq!(response.head.status, 404, "{path}");
        assert_eq!(client.get("/file.txt").body.len() as u64, sample.sum.len, "after {path}");
    }
    assert_eq!(curl::status(&[], &server.url("/missing")), 404);
    assert_eq!(curl::status(&["--head"], &server.url("/missing")), 404);
    server.stop();
}

#[test]
fn a_name_longer_than_the_kernel_allows_is_a_refusal_and_no_failure() {
    let tree = Tree::new();
    let server = Launch::serve(tree.root()).start();
    for path in [format!("/{}", "n".repeat(300)), "/d".repeat(2100)] {
        let status = status(server.addr(), http::get(&path));
        assert!([400, 404, 414].contains(&status), "{status} for a path of {} bytes", path.len());
    }
    server.stop();
}

#[test]
fn other_methods_are_405_with_allow() {
    let tree = Tree::new();
    tree.file("file.txt", 10);
    let server = Launch::serve(tree.root()).start();
    let mut client = Client::connect(server.addr());
    for (method, status) in [
        ("POST", 405),
        ("PUT", 405),
        ("DELETE", 405),
        ("PATCH", 405),
        ("TRACE", 405),
        ("PROPFIND", 405),
        ("get", 501),
        ("FETCH", 501),
    ] {
        client.send(http::request(method, "/file.txt")).expect("sending");
        let head = client.response().expect("an answer").head;
        assert_eq!(head.status, status, "{method}");
        assert_eq!(head.field("allow"), (status == 405).then_some("GET, HEAD, OPTIONS"), "{method}");
    }
    for target in ["/file.txt", "*", "/missing"] {
        client.send(http::request("OPTIONS", target)).expect("sending");
        let head = client.head().expect("an answer");
        assert_eq!((head.status, head.field("allow")), (204, Some("GET, HEAD, OPTIONS")), "{target}");
        assert_eq!(head.field("content-length"), None, "{target}");
    }
    // After all that the connection lives.
    assert_eq!(client.get("/file.txt").body.len(), 10);
    for request in ["POST * HTTP/1.1", "DELETE /../x HTTP/1.1", "FETCH x HTTP/1.1", "OPTIONS /%00 HTTP/1.1"] {
        assert_eq!(status(server.addr(), format!("{request}\r\nHost: localhost\r\n\r\n")), 400, "{request}");
    }
    assert_eq!(status(server.addr(), "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n"), 405);
    assert_eq!(curl::status(&["--request", "DELETE"], &server.url("/file.txt")), 405);
    assert_eq!(curl::status(&["--data", "some=body"], &server.url("/file.txt")), 405);
    assert!(tree.at("file.txt").exists());
    server.stop();
}

#[test]
fn the_body_of_a_refused_request_is_not_taken_for_the_next_request() {
    let tree = Tree::new();
    tree.bytes("secret.txt", b"the smuggled answer");
    let server = Launch::serve(tree.root()).start();
    let smuggled = http::get("/secret.txt");
    let bodies = [
        format!("Content-Length: {}\r\n\r\n{smuggled}", smuggled.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len()),
        format!("Transfer-Encoding: gzip\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: gzip, chunked\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked, chunked\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("Content-Length: {}\r\nExpect: 100-continue\r\n\r\n{smuggled}", 1 << 30),
    ];
    for body in &bodies {
        for method in ["POST", "GET", "DELETE", "X"] {
            let mut client = Client::connect(server.addr());
            client.send(format!("{method} /missing HTTP/1.1\r\nHost: localhost\r\n{body}")).expect("sending");
            client.finish_sending().expect("ending our side");
            let answer = client.bytes_to_close().expect("the server closes");
            let answer = String::from_utf8_lossy(&answer);
            assert!(
                answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 501"),
                "{method}: {answer}"
            );
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{method}: {answer}");
            assert!(!answer.contains("the smuggled answer"), "{method}: {answer}");
        }
    }
    server.stop();
}

/// Bodies that nobody wants are read and thrown away, and the connection goes on; who would send too much is
/// told.
#[test]
fn bodies_are_thrown_away_up_to_a_limit() {
    let tree = Tree::new();
    tree.file("file.txt", 10);
    let server = Launch::serve(tree.root()).start();
    let mut client = Client::connect(server.addr());
    let body = vec![b'\n'; 1 << 20];
    let chunks: Vec<u8> = body
        .chunks(100_000)
        .flat_map(|chunk| [format!("{:x};name=value\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat())
        .chain(*b"0\r\nTrailer: x\r\n\r\n")
        .collect();
    for (method, expected) in [("GET", 200), ("POST", 405), ("X", 501)] {
        for (field, body) in [
            (format!("Content-Length: {}", body.len()), &body),
            ("Transfer-Encoding: chunked".to_owned(), &chunks),
        ] {
            client
                .send(format!("{method} /file.txt HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n"))
                .expect("sending");
            client.send(body).expect("sending");
            assert_eq!(client.response().expect("an answer").head.status, expected, "{method} {field}");
        }
    }
    assert_eq!(client.get("/file.txt").body.len(), 10);
    for field in ["Content-Length: 1048577\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n100001\r\n"] {
        let mut client = Client::connect(server.addr());
        client.send(format!("POST /file.txt HTTP/1.1\r\nHost: localhost\r\n{field}")).expect("sending");
        let response = client.response().expect("an answer");
        assert_eq!(
            (response.head.status, response.head.field("connection")),
            (413, Some("close")),
            "{field}"
        );
        client.must_be_closed();
    }
    server.stop();
}

#[test]
fn who_waits_for_100_continue_gets_it_or_the_answer() {
    let tree = Tree::new();
    tree.file("file.txt", 10);
    let server = Launch::serve(tree.root()).start();
    let mut client = Client::connect(server.addr());
    let ask = |method: &str, expect: &str| {
        format!(
            "{method} /file.txt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: {expect}\r\n\r\n"
        )
    };
    client.send(ask("GET", "100-continue")).expect("sending");
    assert_eq!(client.head().expect("an interim answer").status, 100);
    client.send("abc").expect("sending");
    assert_eq!(client.response().expect("an answer").head.status, 200);
    // Who does not wait is not told.
    client.send(ask("GET", "100-continue") + "abc").expect("sending");
    assert_eq!(client.response().expect("an answer").head.status, 200);
    for (method, expect, status) in [("PUT", "100-continue", 405), ("GET", "202-accepted", 417)] {
        let mut client = Client::connect(server.addr());
        client.send(ask(method, expect)).expect("sending");
        let response = client.response().expect("an answer");
        assert_eq!((response.head.status, response.head.field("connection")), (status, Some("close")));
        client.must_be_closed();
    }
    // curl waits a second for it, and then does not: an upload is refused at once.
    tree.file("upload.bin", 2 << 20);
    let upload = tree.at("upload.bin");
    let args = ["--upload-file", upload.to_str().unwrap(), "--header", "Expect: 100-continue"];
    assert_eq!(curl::status(&args, &server.url("/new.bin")), 413);
    server.stop();
}

#[test]
fn hosts_are_as_rfc_3986_has_them() {
    let tree = Tree::new();
    tree.file("file.txt", 10);
    let server = Launch::serve(tree.root()).start();
    let with = |lines: &str| status(server.addr(), format!("GET /file.txt HTTP/1.1\r\n{lines}\r\n"));
    for host in ["", "localhost", "LOCALHOST:80", "127.0.0.1", "[::1]:8080", "[v1.a]", "a_b", "%41b", "a:"] {
        assert_eq!(with(&format!("Host: {host}\r\n")), 200, "{host}");
    }
    for host in
        ["a b", "u@h", "a/b", "[::1", "[1]", "a:b", "a:65536", "%zz", "a\tb", "a,b:c", "a\"b", "http://a"]
    {
        assert_eq!(with(&format!("Host: {host}\r\n")), 400, "{host}");
    }
    assert_eq!(with(""), 400);
    assert_eq!(with("Host: a\r\nHost: a\r\n"), 400);
    server.stop();
}

#[test]
fn dots_that_climb_out_are_400_however_they_are_written_and_others_are_resolved() {
    let tree = Tree::new();
    tree.dir("dir/sub");
    tree.bytes("file.txt", b"0123456789");
    let server = Launch::serve(tree.root()).start();
    let paths = [
        "/..",
        "/../",
        "/../etc/passwd",
        "/../file.txt",
        "/dir/../../etc/passwd",
        "/dir/../../file.txt",
        "/%2e%2e/etc/passwd",
        "/%2E%2e/etc/passwd",
        "/.%2e/etc/passwd",
        "//../etc/passwd",
        "/./../etc/passwd",
        "/dir%2f..%2f..%2fetc/passwd",
        "/..%2fetc/passwd",
    ];
    for path in paths {
        assert_eq!(curl::status(&["--path-as-is"], &server.url(path)), 400, "{path}");
        assert_eq!(curl::status(&["--path-as-is", "--head"], &server.url(path)), 400, "HEAD {path}");
    }
    for path in [
        "/dir/../file.txt",
        "/dir/%2e%2e/file.txt",
        "/dir/.%2E/./file.txt",
        "/dir/sub/../../file.txt",
        "/missing/../file.txt",
        "//dir/..//file.txt",
    ] {
        assert_eq!(curl::must(["--path-as-is", &server.url(path)]), "0123456789", "{path}");
    }
    server.stop();
}

/// Escapes of all kinds that other servers fell for: none leads to a file that is not below the root.
#[test]
fn a_battery_of_escapes_leads_nowhere() {
    let outside = Tree::new();
    outside.bytes("secret.txt", b"not for you");
    outside.dir("root");
    std::fs::write(outside.at("root/file.txt"), "for you").expect("a file of our own");
    let server = Launch::serve(&outside.at("root")).start();
    let targets = [
        "/../secret.txt",
        "/..;/secret.txt",
        "/..%00/secret.txt",
        "/..%5csecret.txt",
        "/..\\secret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        "/%e0%80%ae%e0%80%ae/secret.txt",
        "/%f0%80%80%ae%f0%80%80%ae/secret.txt",
        "/..%c0%afsecret.txt",
        "/..%252fsecret.txt",
        "/%252e%252e/secret.txt",
        "/%2e%2e%2fsecret.txt",
        "/.%00./secret.txt",
        "/..%ff/secret.txt",
        "/....//secret.txt",
        "/.../secret.txt",
        "/%u002e%u002e/secret.txt",
        "/x/../../secret.txt",
        "/file.txt/../../secret.txt",
        "/file.txt%2f..%2f..%2fsecret.txt",
        "//../secret.txt",
        "http://localhost/../secret.txt",
        "http://localhost/%2e%2e/secret.txt",
        "http://localhost",
        "file:///etc/passwd",
        "/?/../../secret.txt",
        "?/../secret.txt",
        "../secret.txt",
        "secret.txt",
        "//etc/passwd",
        "/proc/self/root/etc/passwd",
        "/..?",
    ];
    for target in targets {
        let mut client = Client::connect(server.addr());
        client
            .send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
            .expect("sending");
        let answer = client.bytes_to_close().expect("the server closes");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 4"), "{target}: {answer}");
        assert!(!answer.contains("not for you") && !answer.contains("root:"), "{target}: {answer}");
    }
    server.stop();
}

#[test]
fn nul_bytes_in_a_path_are_400() {
    let tree = Tree::new();
    tree.file("file.txt", 10);
    let server = Launch::serve(tree.root()).start();
    assert_eq!(status(server.addr(), http::get("/file.txt%00")), 400);
    assert_eq!(status(server.addr(), http::get("/file.txt%00.png")), 400);
    assert_eq!(status(server.addr(), "GET /file.txt\0 HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400);
    server.stop();
}

#[test]
fn garbage_is_400_and_ends_the_connection() {
    let tree = Tree::new();
    let sample = tree.file("file.txt", 10);
    let server = Launch::serve(tree.root()).start();
    let garbage: [&[u8]; 10] = [
        b"GARBAGE\r\n\r\n",
        b"this is no request at all\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /file.txt\r\n\r\n",
        b"GET  /file.txt HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"G\x01T /file.txt HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x00\x01\x02\xff\xfe\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /file.txt FTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /file.txt HTTP/1.1\r\nHost localhost\r\n\r\n",
    ];
    for request in garbage {
        let shown = String::from_utf8_lossy(request);
        let mut client = Client::connect(server.addr());
        client.send(request).expect("sending");
        let response = client.response().unwrap_or_else(|e| panic!("no answer to {shown:?}: {e}"));
        assert_eq!(response.head.status, 400, "{shown:?}");
        client.must_be_closed();
    }
    assert_eq!(curl::sum(&server.url(&sample.path)), sample.sum, "everybody else is served");
    server.stop();
}

#[test]
fn a_head_without_an_end_is_refused_before_it_fills_the_memory() {
    let tree = Tree::new();
    let sample = tree.file("file.txt", 10);
    let server = Launch::serve(tree.root()).start();
    let mut client = Client::connect(server.addr());
    // A hundred header lines are everyday.
    let lines: String = (0..100).map(|i| format!("X-{i}: some value or other\r\n")).collect();
    client.send(format!("GET /file.txt HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")).expect("sending");
    assert_eq!(client.response().expect("an answer").head.status, 200);
    client.send("GET /file.txt HTTP/1.1\r\nHost: localhost\r\n").expect("sending");
    let line = format!("X-More: {}\r\n", "x".repeat(1000));
    // 16 MiB of it. The server may close before the end, which sending sees as an error; or answer, and read
    // on to the end so that the answer is not lost to a reset.
    let cut = (0..16 * 1024).any(|_| client.send(&line).is_err());
    if !cut {
        client.finish_sending().expect("ending our side");
        let answer = client.bytes_to_close().expect("the server closes");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 4"), "16 MiB of header fields were taken: {answer:?}");
    }
    assert_eq!(curl::sum(&server.url(&sample.path)), sample.sum);
    server.stop();
}

/// sysfs has files that nobody may read, root neither: the modes of its files hold for everybody.
#[test]
fn a_file_that_may_not_be_read_is_403_and_one_that_cannot_be_500_for_root_too() {
    let cases = [
        ("/sys/bus/cpu", "/uevent", "may only be written", 403),
        ("/sys/class/net/lo", "/speed", "gives EINVAL", 500),
    ];
    for (root, path, why, status) in cases {
        let file = format!("{root}{path}");
        assert!(Path::new(&file).exists(), "this test needs {file}, which {why}");
        assert!(std::fs::read(&file).is_err(), "reading {file} should fail: it {why}");
        let server = Launch::serve(Path::new(root)).start();
        let mut client = Client::connect(server.addr());
        client.send(http::get(path)).expect("sending");
        assert_eq!(client.head().expect("an answer").status, status, "{file} {why}");
        let ended = server.stop();
        let told = ended.err.iter().any(|line| line.contains(path.trim_start_matches('/')));
        assert_eq!(told, status == 500, "the log names what could not be read: {ended:#?}");
    }
}

/// Root may read everything on an ordinary file system, so this one says something for other users only.
#[test]
fn a_file_without_read_permission_is_403_for_an_ordinary_user() {
    use std::os::unix::fs::PermissionsExt;
    if rustix::process::geteuid().is_root() {
        eprintln!("note: root may read a file of mode 000; run the tests as another user to see this one");
        return;
    }
    let tree = Tree::new();
    tree.file("closed.txt", 100);
    tree.dir("closed");
    tree.file("closed/file.txt", 100);
    let none = std::fs::Permissions::from_mode(0o000);
    std::fs::set_permissions(tree.at("closed.txt"), none.clone()).expect("chmod of our own file");
    std::fs::set_permissions(tree.at("closed"), none).expect("chmod of our own directory");
    let server = Launch::serve(tree.root()).start();
    let answers =
        ["/closed.txt", "/closed/file.txt", "/closed/"].map(|path| status(server.addr(), http::get(path)));
    // Before anything may fail: the tree cannot be removed otherwise.
    let all = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(tree.at("closed"), all).expect("chmod of our own directory");
    assert_eq!(answers, [403, 403, 403]);
    server.stop();
}

/// procfs says 0 bytes for every file and sysfs 4096: what is in them is sent, with the length that it has.
///
/// Seen to fail: with sizes believed, by an empty 200 and a 500.
#[test]
fn files_that_the_kernel_makes_up_are_sent_as_they_are_read() {
    for (root, path) in
        [("/sys/class/net/lo", "/mtu"), ("/proc/sys/kernel", "/ostype"), ("/proc", "/version")]
    {
        let content = std::fs::read(format!("{root}{path}")).expect("a file of the kernel's");
        assert!(!content.is_empty());
        let server = Launch::serve(Path::new(root)).start();
        let mut client = Client::connect(server.addr());
        for _ in 0..2 {
            let response = client.get(path);
            assert_eq!((response.head.status, &response.body), (200, &content), "{root}{path}");
        }
        client.send(http::request("HEAD", path)).expect("sending");
        assert_eq!(client.head().expect("an answer").content_length(), content.len() as u64);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes=1-2\r\n\r\n")).expect("sending");
        let part = client.response().expect("an answer");
        assert_eq!((part.head.status, &part.body[..]), (206, &content[1..3]));
        server.stop();
    }
}

#[test]
fn a_fifo_hangs_nobody() {
    let tree = Tree::new();
    tree.fifo("fifo");
    // io_uring opens what the kernel has cached without waiting in any case. A link that nobody has followed
    // yet has its time of access to be written (relatime, mount(8)), which is no cached path: this open runs
    // on a worker thread and could wait there.
    for link in ["first", "second", "third"] {
        tree.link(link, "fifo");
    }
    let sample = tree.file("file.txt", 10);
    let one_core = annulus_integration_tests::cpus::allowed()[0].to_string();
    let server = Launch::serve(tree.root()).cores(&one_core).start();
    for path in ["/fifo", "/first", "/second", "/third"] {
        let status = status(server.addr(), http::get(path));
        assert!((400..=599).contains(&status), "{path} is not served: {status}");
        assert_eq!(curl::sum(&server.url(&sample.path)), sample.sum);
    }
    server.stop();
}

#[test]
fn links_are_followed_inside_the_root_and_not_beyond() {
    let outside = Tree::new();
    outside.bytes("secret.txt", b"not for you");
    let tree = Tree::new();
    tree.dir("dir");
    tree.bytes("dir/target.txt", b"inside");
    tree.link("inside.txt", "dir/target.txt");
    tree.link("dir/up.txt", "../inside.txt");
    tree.link("absolute.txt", outside.at("secret.txt"));
    tree.link("outside", outside.root());
    let name = outside.root().file_name().expect("a name").to_owned();
    tree.link("relative.txt", Path::new("..").join(name).join("secret.txt"));
    tree.link("loop.txt", "loop.txt");
    let server = Launch::serve(tree.root()).start();
    let mut client = Client::connect(server.addr());
    for path in ["/inside.txt", "/dir/up.txt"] {
        assert_eq!(client.get(path).body, b"inside", "{path}");
    }
    for path in ["/absolute.txt", "/outside/secret.txt", "/relative.txt", "/loop.txt"] {
        let response = client.get(path);
        assert!((400..=599).contains(&response.head.status), "{path}: {}", response.head.status);
        assert!(!String::from_utf8_lossy(&response.body).contains("not for you"), "{path}");
    }
    server.stop();
}
