//! The files of docs/examples do what they say.

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::http::Client;
use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::upstream::Upstream;
use annulus_integration_tests::{curl, watch};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

/// Runs a sample with other places in it: whatever it names stands in `tree` then.
fn run(tree: &Tree, name: &str, places: &[(&str, &str)]) -> Server {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples").join(name);
    let mut text =
        std::fs::read_to_string(&sample).unwrap_or_else(|e| panic!("reading {}: {e}", sample.display()));
    for (from, to) in places {
        assert!(text.contains(from), "{name} says {from}");
        text = text.replace(from, to);
    }
    let file = tree.at("annulus.toml");
    std::fs::write(&file, format!("processes = \"one\"\n{text}")).expect("writing a file of our own");
    let checked = Launch::new().arg("check").arg(&file).run();
    assert_eq!(checked.code(), 0, "{checked:#?}");
    Launch::new().arg("run").arg(&file).start()
}

/// A directory of the tree, with files.
fn directory(tree: &Tree, name: &str, files: &[&str]) -> String {
    tree.dir(name);
    for file in files {
        std::fs::write(tree.at(name).join(file), format!("{name}/{file}"))
            .expect("writing a file of our own");
    }
    tree.at(name).display().to_string()
}

/// The addresses of its lines.
fn addresses(server: &Server, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    server.err().wait_for("the listening lines", |line| {
        if let Some(rest) = line.strip_prefix("annulus: listening on ") {
            let address = rest.split(", ").next().unwrap_or(rest);
            found.push(address.trim_start_matches("http://").to_owned());
        }
        (found.len() == count).then_some(())
    });
    found
}

fn echoes(addr: SocketAddr) {
    let mut stream = TcpStream::connect(addr).expect("connecting");
    stream.set_read_timeout(Some(watch::LIMIT)).expect("a timeout");
    stream.write_all(b"there and back").expect("sending");
    let mut back = [0; 14];
    stream.read_exact(&mut back).expect("what was sent comes back");
    assert_eq!(&back, b"there and back");
}

#[test]
fn a_static_site() {
    let tree = Tree::new();
    let www = directory(&tree, "www", &["index.html", "404.html"]);
    directory(&tree, "www/assets", &["a.js"]);
    let log = tree.at("access.log").display().to_string();
    let places = [("/srv/www", &*www), (":8080", "127.0.0.1:0"), ("/var/log/annulus/access.log", &log)];
    let server = run(&tree, "static-site.toml", &places);
    let mut client = Client::connect(server.addr());
    assert_eq!(client.get("/").body, b"www/index.html");
    let asset = client.get("/assets/a.js");
    assert_eq!(asset.head.field("cache-control"), Some("public, max-age=31536000, immutable"));
    let missing = client.get("/nowhere");
    assert_eq!((missing.head.status, &missing.body[..]), (404, &b"www/404.html"[..]));
    drop(client);
    server.stop();
    assert_eq!(std::fs::read_to_string(&log).expect("the access log").lines().count(), 3);
}

#[test]
fn an_application_in_the_browser() {
    let tree = Tree::new();
    let app = directory(&tree, "app", &["index.html"]);
    let media = directory(&tree, "files", &[]);
    directory(&tree, "files/media", &["a.png"]);
    let places =
        [("/srv/app", &*app), ("\"/srv/media\"", &*format!("{media:?}")), ("127.0.0.1:8080", "127.0.0.1:0")];
    let server = run(&tree, "spa.toml", &places);
    let mut client = Client::connect(server.addr());
    assert_eq!(client.get("/some/view").body, b"app/index.html");
    assert_eq!(client.get("/media/a.png").body, b"files/media/a.png");
    assert_eq!(client.get("/media/b").head.status, 404);
    server.stop();
}

#[test]
fn a_balancer() {
    let tree = Tree::new();
    let upstream = Upstream::echo();
    let to = upstream.addr().to_string();
    let places = [
        ("0.0.0.0:5432", "127.0.0.1:0"),
        ("10.0.0.11:5432", &*to),
        ("10.0.0.12:5432", &to),
        ("drain-wait = 5", "drain-wait = 0"),
    ];
    let server = run(&tree, "balancer.toml", &places);
    echoes(server.addr());
    server.stop();
}

#[test]
fn both_in_one() {
    let tree = Tree::new();
    let (www, docs) = (directory(&tree, "www", &["a.txt"]), directory(&tree, "docs", &["a.txt"]));
    let upstream = Upstream::echo();
    let (to, socket) = (upstream.addr().to_string(), tree.at("socket").display().to_string());
    let places = [
        ("/srv/www", &*www),
        ("/srv/docs", &docs),
        (":8080", "127.0.0.1:0"),
        ("127.0.0.1:6379", "127.0.0.1:0"),
        ("10.0.0.21:6379", &to),
        ("/run/annulus/web.sock", &socket),
    ];
    let server = run(&tree, "both.toml", &places);
    let found = addresses(&server, 3);
    let url = |address: &str| format!("http://{address}/a.txt");
    assert_eq!(curl::must([url(&found[0])]), "www/a.txt");
    assert_eq!(curl::must(["-H", "Host: docs.example.org", &url(&found[0])]), "docs/a.txt");
    // By the Unix socket comes a proxy, which says whom it relays.
    assert_eq!(
        curl::must(["--haproxy-protocol", "--unix-socket", &socket, "http://docs.example.org/a.txt"]),
        "docs/a.txt"
    );
    echoes(found[2].parse().expect("an address"));
    server.stop();
}
