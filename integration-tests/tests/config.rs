//! Files of configuration: run, checked, printed.

use annulus_integration_tests::curl;
use annulus_integration_tests::files::Tree;
use annulus_integration_tests::http::Client;
use annulus_integration_tests::server::Launch;
use annulus_integration_tests::upstream::Upstream;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A file of configuration with this text.
fn written(tree: &Tree, text: &str) -> PathBuf {
    let path = tree.at("annulus.toml");
    std::fs::write(&path, text).expect("writing a file of our own");
    path
}

fn command(name: &str, file: &Path) -> Launch {
    Launch::new().arg(name).arg(file)
}

/// The last word of each line that says where it listens: an address, or a URL.
fn addresses(server: &annulus_integration_tests::server::Server, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    server.err().wait_for("the listening lines", |line| {
        if let Some(rest) = line.strip_prefix("annulus: listening on ") {
            found.push(rest.split(", ").next().unwrap_or(rest).to_owned());
        }
        (found.len() == count).then_some(())
    });
    found
}

/// Seen to fail: with the first listener alone.
#[test]
fn a_file_with_files_and_a_relay_does_both() {
    let tree = Tree::new();
    let sample = tree.file("file.txt", 3000);
    let upstream = Upstream::echo();
    let file = written(
        &tree,
        &format!(
            "processes = \"one\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\nroot = {:?}\n\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
             to = \"{}\"\n",
            tree.root(),
            upstream.addr()
        ),
    );
    let checked = command("check", &file).run();
    assert_eq!(checked.code(), 0, "{checked:#?}");
    assert!(checked.out[0].contains("is right: 2 listeners on 2 addresses"), "{checked:#?}");
    let server = command("run", &file).start();
    let found = addresses(&server, 2);
    assert_eq!(curl::sum(&format!("{}{}", found[0], sample.path)), sample.sum);
    let relay: SocketAddr = found[1].parse().expect("an address");
    let mut stream = std::net::TcpStream::connect(relay).expect("connecting to the relay");
    std::io::Write::write_all(&mut stream, b"there and back").expect("sending");
    let mut back = [0; 14];
    std::io::Read::read_exact(&mut stream, &mut back).expect("what was sent comes back");
    assert_eq!(&back, b"there and back");
    drop(stream);
    server.stop();
}

/// A line for each fault, and nothing of it is done.
/// Seen to fail: with the first fault alone.
#[test]
fn a_wrong_file_is_told_line_by_line_and_not_run() {
    let tree = Tree::new();
    let file = written(
        &tree,
        "grace = \"x\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\nroot = \"/no/such/directory\"\nlisten-on = 1\n",
    );
    for name in ["check", "run"] {
        let ended = command(name, &file).run();
        assert_eq!(ended.code(), 2, "{ended:#?}");
        let begins: Vec<bool> = ended
            .err
            .iter()
            .zip(["1:9", "4:8", "5:1"])
            .map(|(line, at)| line.starts_with(&format!("{}:{at}: ", file.display())))
            .collect();
        assert_eq!(begins, [true; 3], "{ended:#?}");
        assert_eq!(ended.err.len(), 3, "{ended:#?}");
        assert!(ended.out.is_empty(), "{ended:#?}");
    }
    let missing = command("check", &tree.at("missing.toml")).run();
    assert!(missing.one_line(2).contains("missing.toml"), "{missing:#?}");
}

/// What `config` prints is right, and does the same.
/// Seen to fail: without the root in what is printed.
#[test]
fn the_file_of_a_command_line_does_what_the_command_line_does() {
    let tree = Tree::new();
    let sample = tree.file("file.txt", 3000);
    let printed = Launch::new()
        .args(["config", "serve"])
        .arg(tree.root())
        .args(["--listen", "127.0.0.1:0", "--grace", "7", "--processes", "one"])
        .run();
    assert_eq!(printed.code(), 0, "{printed:#?}");
    let file = written(&tree, &printed.out.join("\n"));
    assert_eq!(command("check", &file).run().code(), 0, "{printed:#?}");
    let server = command("run", &file).start();
    assert_eq!(Client::connect(server.addr()).get(&sample.path).body.len() as u64, sample.sum.len);
    server.stop();
}

/// Seen to fail: with files of sockets that stay.
#[test]
fn a_file_runs_in_several_processes_as_well() {
    let tree = Tree::new();
    let sample = tree.file("file.txt", 3000);
    let text = format!(
        "processes = \"core\"\n[[listener]]\nlisten = [\"127.0.0.1:0\", \"unix:{0}/socket\"]\nroot = \"{0}\"\n",
        tree.root().display()
    );
    let file = written(&tree, &text);
    let server = command("run", &file).start();
    let found = addresses(&server, 2);
    for _ in 0..20 {
        assert_eq!(curl::sum(&format!("{}{}", found[0], sample.path)), sample.sum);
    }
    server.stop();
    assert!(!tree.at("socket").exists(), "the socket's file is taken away");
}

/// Which files answer is decided by the name of the host, then by the path.
/// Seen to fail: with the first name of each site alone.
#[test]
fn sites_are_told_apart_by_host_and_path() {
    let tree = Tree::new();
    for site in ["first", "second", "css", "rest"] {
        tree.dir(site);
        for name in ["a.txt", "a.css"] {
            std::fs::write(tree.at(site).join(name), site).expect("writing a file of our own");
        }
    }
    let root = |name: &str| tree.at(name).display().to_string();
    let text = format!(
        "processes = \"one\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\nroot = \"{}\"\n\
         [[listener.site]]\nhost = \"first.org\"\nroot = \"{}\"\n\
         [[listener.site.path]]\nmatch = \"*.css\"\nroot = \"{}\"\n\
         [[listener.site]]\nhost = [\"*.second.org\", \"second.org\"]\nroot = \"{}\"\n",
        root("rest"),
        root("first"),
        root("css"),
        root("second")
    );
    let server = command("run", &written(&tree, &text)).start();
    let get = |host: &str, path: &str| {
        curl::must(["-H", &format!("Host: {host}"), &format!("http://{}{path}", server.addr())])
    };
    for (host, path, site) in [
        ("first.org", "/a.txt", "first"),
        ("FIRST.org:80", "/a.txt", "first"),
        ("first.org", "/a.css", "css"),
        ("second.org", "/a.css", "second"),
        ("x.y.second.org", "/a.txt", "second"),
        ("third.org", "/a.txt", "rest"),
        ("127.0.0.1", "/a.css", "rest"),
    ] {
        assert_eq!(get(host, path), site, "{host}{path}");
    }
    server.stop();
}
