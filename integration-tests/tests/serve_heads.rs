//! `annulus serve`: response heads, what HEAD gives, and how connections end.

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::http::{self, Client};
use annulus_integration_tests::net;
use annulus_integration_tests::server::Launch;

#[test]
fn the_fields_of_a_file() {
    let tree = Tree::new();
    let types = [
        ("page.html", "text/html"),
        ("style.css", "text/css"),
        ("script.js", "text/javascript"),
        ("data.json", "application/json"),
        ("picture.png", "image/png"),
        ("PICTURE.PNG", "image/png"),
        ("photo.jpg", "image/jpeg"),
        ("drawing.svg", "image/svg+xml"),
        ("text.txt", "text/plain"),
        ("module.wasm", "application/wasm"),
        ("film.mp4", "video/mp4"),
        ("archive.tar.gz", "application/gzip"),
        ("no-suffix", "application/octet-stream"),
        ("what.nobodyknows", "application/octet-stream"),
    ];
    for (i, (name, _)) in types.iter().enumerate() {
        tree.file(name, 100 + i as u64);
    }
    tree.file("large.html", 3 << 20);
    let server = Launch::serve(tree.root()).start();
    let mut client = Client::connect(server.addr());
    for (i, (name, kind)) in types.into_iter().enumerate() {
        let head = client.get(&format!("/{name}")).head;
        assert_eq!(head.status, 200, "{name}");
        assert_eq!(head.field("content-length"), Some((100 + i).to_string().as_str()), "{name}");
        let came =
            head.field("content-type").unwrap_or_else(|| panic!("{name} has no Content-Type: {head:?}"));
        assert_eq!(came.split(';').next(), Some(kind), "{name}: {came}");
        assert_eq!(head.field("cache-control"), Some("no-cache"), "{name}");
        assert_eq!(head.field("transfer-encoding"), None, "{name}");
    }
    let head = client.get("/large.html").head;
    assert_eq!(head.content_length(), 3 << 20);
    assert_eq!(head.field("content-type").and_then(|t| t.split(';').next()), Some("text/html"));
    assert_eq!(head.field("cache-control"), Some("no-cache"));
    server.stop();
}

#[test]
fn head_gives_the_fields_of_get_and_no_body() {
    let tree = Tree::new();
    for (name, size) in [("0.txt", 0), ("1.txt", 1), ("small.html", 5000), ("large.bin", 5 << 20)] {
        tree.file(name, size);
    }
    let server = Launch::serve(tree.root()).start();
    let mut client = Client::connect(server.addr());
    for path in ["/0.txt", "/1.txt", "/small.html", "/large.bin", "/missing"] {
        let of_get = client.get(path).head;
        client.send(http::request("HEAD", path)).expect("sending");
        let of_head = client.head().expect("an answer to HEAD");
        assert_eq!(of_head.status, of_get.status, "{path}");
        let but_date = |head: &http::Head| -> Vec<_> {
            head.fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("date")).cloned().collect()
        };
        assert_eq!(but_date(&of_head), but_date(&of_get), "{path}");
    }
    // A body after any of the heads above would be in the way here.
    client.send(http::request("HEAD", "/large.bin") + &http::get("/1.txt")).expect("sending");
    assert_eq!(client.head().expect("an answer to HEAD").content_length(), 5 << 20);
    assert_eq!(client.response().expect("an answer to GET").body.len(), 1);
    client.finish_sending().expect("ending our side");
    client.must_be_closed();
    server.stop();
}

#[test]
fn a_response_says_when_it_was_made() {
    let tree = Tree::new();
    tree.file("file.txt", 10);
    let server = Launch::serve(tree.root()).start();
    let head = Client::connect(server.addr()).get("/file.txt").head;
    // RFC 9110, section 6.6.1: a server with a clock must; in the form of section 5.6.7.
    let date = head.field("date").unwrap_or_else(|| panic!("no Date: {head:?}"));
    assert!(date.len() == 29 && date.ends_with(" GMT") && &date[3..5] == ", ", "{date}");
    server.stop();
}

#[test]
fn head_and_small_body_arrive_in_one_segment() {
    let tree = Tree::new();
    let sizes = [0, 1, 1024, 4096, 16 * 1024];
    for size in sizes {
        tree.file(&size.to_string(), size);
    }
    let server = Launch::serve(tree.root()).start();
    for size in sizes {
        let mut client = Client::connect(server.addr());
        for request in 1..=3 {
            let response = client.get(&format!("/{size}"));
            assert_eq!((response.head.status, response.body.len() as u64), (200, size));
            let segments = net::data_segments_in(client.stream());
            assert_eq!(
                segments, request,
                "{size} bytes: one segment (and one send) for each of {request} responses"
            );
        }
    }
    server.stop();
}

#[test]
fn connection_close_is_honoured() {
    let tree = Tree::new();
    let sizes = [0, 10, 1 << 20];
    for size in sizes {
        tree.file(&size.to_string(), size);
    }
    let server = Launch::serve(tree.root()).start();
    for size in sizes {
        let mut client = Client::connect(server.addr());
        client
            .send(format!("GET /{size} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
            .expect("sending");
        let response = client.response().expect("a response");
        assert_eq!(response.body.len() as u64, size);
        assert!(
            response.head.field("connection").is_some_and(|v| v.eq_ignore_ascii_case("close")),
            "{response:?}"
        );
        client.must_be_closed();
    }
    server.stop();
}

#[test]
fn http_1_0_gets_one_response_and_a_close() {
    let tree = Tree::new();
    tree.file("file.txt", 10);
    let server = Launch::serve(tree.root()).start();
    let mut client = Client::connect(server.addr());
    client.send("GET /file.txt HTTP/1.0\r\n\r\n").expect("sending");
    let response = client.response().expect("a response");
    assert_eq!((response.head.status, response.body.len()), (200, 10));
    client.must_be_closed();
    server.stop();
}
