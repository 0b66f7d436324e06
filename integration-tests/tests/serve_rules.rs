//! `annulus serve`: what the operator says about paths, and files that lie compressed beside their originals.

use annulus_integration_tests::files::{Lease, Tree};
use annulus_integration_tests::http::{self, Client};
use annulus_integration_tests::server::Launch;
use annulus_integration_tests::{curl, watch};

#[test]
fn header_lines_and_caching_by_pattern() {
    let tree = Tree::new();
    tree.dir("assets/js");
    tree.bytes("index.html", b"<p>");
    tree.bytes("assets/js/app.0a1b.js", b"1");
    tree.bytes("data.bin", b"1");
    let server = Launch::serve(tree.root())
        .args(["--header", "*: X-Frame-Options: DENY"])
        .args(["--header", "*.html: Content-Security-Policy: default-src 'self'"])
        .args(["--header", "/data.bin: Content-Type: application/x-own"])
        .args(["--cache-control", "/assets/**=public, max-age=31536000, immutable"])
        .args(["--cache-control", "*.js=max-age=5"])
        .start();
    let mut client = Client::connect(server.addr());
    let head = client.get("/").head;
    assert_eq!(head.field("x-frame-options"), Some("DENY"));
    assert_eq!(head.field("content-security-policy"), Some("default-src 'self'"));
    assert_eq!(head.field("cache-control"), Some("no-cache"));
    let head = client.get("/assets/js/app.0a1b.js").head;
    assert_eq!(head.field("cache-control"), Some("public, max-age=31536000, immutable"));
    assert_eq!(head.field("content-security-policy"), None);
    assert_eq!(client.get("/data.bin").head.field("content-type"), Some("application/x-own"));
    // Whoever forbids framing forbids it for errors and redirections too.
    for path in ["/missing", "/assets", "/assets/"] {
        assert_eq!(client.get(path).head.field("x-frame-options"), Some("DENY"), "{path}");
    }
    let tag = client.get("/").head.field("etag").unwrap().to_owned();
    client.send(format!("GET / HTTP/1.1\r\nHost: x\r\nIf-None-Match: {tag}\r\n\r\n")).expect("sending");
    let head = client.head().expect("an answer");
    assert_eq!((head.status, head.field("x-frame-options")), (304, Some("DENY")));
    server.stop();
    for (flag, value) in [
        ("--header", "no colon"),
        ("--header", "*: Content-Length: 5"),
        ("--header", "[: X: y"),
        ("--cache-control", "*"),
        ("--error-page", "200=/x"),
        ("--cors", "example.org"),
        ("--index", "a/b"),
    ] {
        let ended = Launch::serve(tree.root()).args([flag, value]).run();
        assert!(ended.one_line(2).contains(flag), "{flag} {value}");
    }
}

#[test]
fn pages_of_another_origin_may_read_what_the_operator_lets_them() {
    let tree = Tree::new();
    tree.file("file.txt", 10);
    for origin in ["*", "https://www.example.org"] {
        let server = Launch::serve(tree.root()).args(["--cors", origin]).start();
        let mut client = Client::connect(server.addr());
        for path in ["/file.txt", "/missing"] {
            let head = client.get_with(path, &["Origin: https://www.example.org"]).head;
            assert_eq!(head.field("access-control-allow-origin"), Some(origin), "{path}");
        }
        client
            .send(
                "OPTIONS /file.txt HTTP/1.1\r\nHost: x\r\nOrigin: https://www.example.org\r\n\
                 Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: range\r\n\r\n",
            )
            .expect("sending");
        let head = client.head().expect("an answer");
        assert_eq!(head.status, 204);
        assert_eq!(head.field("access-control-allow-origin"), Some(origin));
        assert!(head.field("access-control-allow-methods").unwrap().contains("GET"));
        assert!(head.field("access-control-allow-headers").unwrap().contains("Range"));
        server.stop();
    }
    let server = Launch::serve(tree.root()).start();
    let head = Client::connect(server.addr()).get("/file.txt").head;
    assert_eq!(head.field("access-control-allow-origin"), None);
    server.stop();
}

#[test]
fn an_application_finds_its_own_way() {
    let tree = Tree::new();
    tree.bytes("index.html", b"<p>app");
    tree.bytes("real.txt", b"real");
    tree.dir("dir");
    let server = Launch::serve(tree.root()).arg("--spa").start();
    let mut client = Client::connect(server.addr());
    for path in ["/", "/users/7", "/users/john.doe", "/users/7/", "/.hidden/way?x=y"] {
        let response = client.get(path);
        assert_eq!((response.head.status, &*response.body), (200, &b"<p>app"[..]), "{path}");
        assert_eq!(response.head.field("content-type"), Some("text/html; charset=utf-8"));
    }
    assert_eq!(client.get("/real.txt").body, b"real");
    for path in ["/missing.js", "/img/missing.png"] {
        assert_eq!(client.get(path).head.status, 404, "{path}");
    }
    server.stop();
}

#[test]
fn errors_have_the_pages_that_the_operator_gives_them() {
    let tree = Tree::new();
    tree.dir("errors");
    tree.dir("dir");
    tree.bytes("errors/404.html", b"<p>not here");
    tree.bytes("errors/405.json", b"{}");
    let server = Launch::serve(tree.root())
        .args(["--error-page", "404=/errors/404.html"])
        .args(["--error-page", "405=errors/405.json"])
        .args(["--error-page", "403=/errors/missing.html"])
        .start();
    let mut client = Client::connect(server.addr());
    let response = client.get("/missing");
    assert_eq!((response.head.status, &*response.body), (404, &b"<p>not here"[..]));
    assert_eq!(response.head.field("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(response.head.field("etag"), None, "an error is not that file");
    client.send(http::request("HEAD", "/missing")).expect("sending");
    assert_eq!(client.head().expect("an answer").content_length(), 11);
    client.send(http::request("POST", "/missing")).expect("sending");
    let response = client.response().expect("an answer");
    assert_eq!((response.head.status, &*response.body), (405, &b"{}"[..]));
    assert!(response.head.field("allow").is_some());
    // A page that is not there does not hide the error.
    assert_eq!(client.get("/dir/").head.status, 403);
    assert_eq!(client.get("/errors/404.html").head.status, 200);
    let ended = server.stop();
    assert!(ended.err.iter().any(|line| line.contains("missing.html")), "{ended:#?}");
}

/// What is accepted, of which file, the coding that comes, and the bytes.
type Compressed = (Option<&'static str>, &'static str, Option<&'static str>, &'static str);

const COMPRESSED: [Compressed; 12] = [
    (None, "/app.js", None, "the original"),
    (Some("identity"), "/app.js", None, "the original"),
    (Some("gzip, deflate, br, zstd"), "/app.js", Some("br"), "brotli"),
    (Some("gzip, deflate, zstd"), "/app.js", Some("zstd"), "zstandard"),
    (Some("gzip"), "/app.js", Some("gzip"), "gzipped"),
    (Some("gzip;q=0.9, br;q=0.5"), "/app.js", Some("gzip"), "gzipped"),
    (Some("br;q=0, *"), "/app.js", Some("zstd"), "zstandard"),
    (Some("gzip;q=0"), "/app.js", None, "the original"),
    (Some("identity, gzip;q=0.5"), "/app.js", None, "the original"),
    (Some("br, gzip"), "/only.css", Some("gzip"), "gzipped"),
    (Some("br"), "/only.css", None, "the original"),
    (Some("gzip"), "/photo.jpg", None, "the original"),
];

#[test]
fn what_lies_compressed_beside_a_file_is_sent_to_who_likes_it_better() {
    let tree = Tree::new();
    tree.bytes("app.js", b"the original");
    tree.bytes("app.js.br", b"brotli");
    tree.bytes("app.js.gz", b"gzipped");
    tree.bytes("app.js.zst", b"zstandard");
    tree.bytes("only.css", b"the original");
    tree.bytes("only.css.gz", b"gzipped");
    tree.bytes("photo.jpg", b"the original");
    tree.bytes("photo.jpg.gz", b"gzipped");
    let server = Launch::serve(tree.root()).start();
    let mut client = Client::connect(server.addr());
    let mut tags = Vec::new();
    for (accept, path, coding, body) in COMPRESSED {
        for _ in 0..3 {
            let fields = accept.map(|accept| format!("Accept-Encoding: {accept}"));
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            let response = client.get_with(path, &fields);
            assert_eq!(response.body, body.as_bytes(), "{accept:?} {path}");
            let head = response.head;
            assert_eq!(head.field("content-encoding"), coding, "{accept:?} {path}");
            let vary = (!path.ends_with("jpg")).then_some("Accept-Encoding");
            assert_eq!(head.field("vary"), vary, "{accept:?} {path}");
            let kind = if path.ends_with("js") {
                "text/javascript"
            } else if path.ends_with("css") {
                "text/css"
            } else {
                "image/jpeg"
            };
            assert!(head.field("content-type").unwrap().starts_with(kind));
            tags.push((path, coding, head.field("etag").unwrap().trim_start_matches("W/").to_owned()));
        }
    }
    // One tag for each version, and each version has one.
    for (path, coding, tag) in &tags {
        for (other_path, other, other_tag) in &tags {
            assert_eq!(
                tag == other_tag,
                (path, coding) == (other_path, other),
                "{path} {coding:?} {other:?}"
            );
        }
    }
    // Parts and conditions are about what is sent.
    let part = client.get_with("/app.js", &["Accept-Encoding: br", "Range: bytes=0-2"]);
    assert_eq!((part.head.status, &*part.body), (206, &b"bro"[..]));
    assert_eq!(part.head.field("content-range"), Some("bytes 0-2/6"));
    let (_, _, tag) = tags.iter().find(|(_, coding, _)| *coding == Some("br")).unwrap();
    client
        .send(format!(
            "GET /app.js HTTP/1.1\r\nHost: x\r\nAccept-Encoding: br\r\nIf-None-Match: {tag}\r\n\r\n"
        ))
        .expect("sending");
    let head = client.head().expect("an answer");
    assert_eq!((head.status, head.field("vary")), (304, Some("Accept-Encoding")));
    // Asked for by its own name it is a file like any other.
    let own = client.get_with("/app.js.gz", &["Accept-Encoding: gzip"]);
    assert_eq!(
        (own.head.field("content-encoding"), own.head.field("content-type")),
        (None, Some("application/gzip"))
    );
    // One that goes is not missed, one that comes is found.
    std::fs::remove_file(tree.at("app.js.br")).unwrap();
    assert_eq!(client.get_with("/app.js", &["Accept-Encoding: br"]).body, b"the original");
    tree.bytes("only.css.br", b"new");
    watch::until("what is new is found", || {
        (client.get_with("/only.css", &["Accept-Encoding: br"]).body == b"new").then_some(())
    });
    server.stop();
    let server = Launch::serve(tree.root()).arg("--no-precompressed").start();
    let mut client = Client::connect(server.addr());
    let plain = client.get_with("/app.js", &["Accept-Encoding: gzip"]);
    assert_eq!((&*plain.body, plain.head.field("vary")), (&b"the original"[..], None));
    server.stop();
}

#[test]
fn curl_undoes_what_gzip_did() {
    use std::process::{Command, Stdio};
    let tree = Tree::new();
    let text = "the same line again\n".repeat(5000);
    tree.bytes("text.txt", text.as_bytes());
    let gzip = Command::new("gzip").arg("--keep").arg(tree.at("text.txt")).stdin(Stdio::null()).status();
    assert!(gzip.expect("gzip (every system has it)").success());
    let server = Launch::serve(tree.root()).start();
    assert!(curl::must(["--compressed", &server.url("/text.txt")]) == text);
    let size = curl::must([
        "--header",
        "Accept-Encoding: gzip",
        "--output",
        "/dev/null",
        "--write-out",
        "%{size_download}",
        &server.url("/text.txt"),
    ]);
    assert!(size.parse::<usize>().unwrap() < 1000, "{size}");
    server.stop();
}

/// Whoever holds a lease is asked for it, and the request waits; everybody else is served meanwhile.
#[test]
fn a_file_under_a_lease_is_waited_for() {
    use std::io::Read;
    let tree = Tree::new();
    tree.bytes("leased.txt", b"at last");
    tree.bytes("other.txt", b"other");
    let one_core = annulus_integration_tests::cpus::allowed()[0].to_string();
    let server = Launch::serve(tree.root()).cores(&one_core).start();
    let Some(lease) = Lease::take(&tree.at("leased.txt")) else { return };
    let mut client = Client::connect(server.addr());
    client.send(http::get("/leased.txt")).unwrap();
    let mut other = Client::connect(server.addr());
    // The break of the lease shows that the server has asked.
    watch::until("the lease is asked for", || {
        let is_asked_for = lease.is_asked_for();
        assert_eq!(other.get("/other.txt").body, b"other");
        is_asked_for.then_some(())
    });
    // Nothing has been answered, since the file cannot have been opened.
    client.stream().set_nonblocking(true).unwrap();
    assert!(client.stream().read(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock));
    client.stream().set_nonblocking(false).unwrap();
    drop(lease);
    assert_eq!(client.response().expect("an answer").body, b"at last");
    server.stop();
}
