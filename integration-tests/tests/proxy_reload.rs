//! A relay whose configuration is read again.

use std::io::{Read, Write};
use std::net::TcpStream;

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::upstream::Upstream;
use annulus_integration_tests::{net, procfs, watch};
use rustix::process::Signal;

#[track_caller]
fn asked(server: &Server) -> TcpStream {
    let mut client = net::connect(server.addr()).expect("connecting");
    client.write_all(b"?").expect("asking");
    client.read_exact(&mut [0]).expect("the answer");
    client
}

/// Whether the kernel looks after silent peers of the server's end of `client`'s connection.
fn has_keepalive(client: &TcpStream) -> Option<bool> {
    let ours = client.local_addr().expect("our address");
    let found = procfs::tcp(|it| it.remote == ours);
    found.first().map(|it| it.has_keepalive)
}

/// The user timeout is set by the same call; nothing outside of the program shows it.
///
/// Seen to fail, by the watchdog: with options that stay as they were, and with keepalive that is never taken
/// back.
#[test]
fn keepalive_is_changed_by_a_reload() {
    let upstream = Upstream::echo();
    let tree = Tree::new();
    let path = tree.root().join("annulus.toml");
    let config = |keepalive: u32| {
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\nto = [\"{}\"]\nkeepalive = {keepalive}\n",
            upstream.addr()
        );
        std::fs::write(&path, text).expect("a file of ours");
    };
    config(0);
    let server = Launch::new().arg("run").arg(&path).start();
    for (round, keepalive) in [0, 600, 0].into_iter().enumerate() {
        if round > 0 {
            config(keepalive);
            let before = server.err().so_far().len();
            server.signal(Signal::HUP);
            let mut seen = 0;
            let is_done = |line: &str| {
                seen += 1;
                (seen > before && line.contains("is in force")).then_some(())
            };
            server.err().wait_for("the reload", is_done).expect("it lives");
        }
        let client = asked(&server);
        // Its timer waits once nothing is under way any more.
        watch::until("keepalive is as it was asked for", || {
            (has_keepalive(&client)? == (keepalive > 0)).then_some(())
        });
    }
    server.stop();
}
