//! `annulus serve`: clients that are slow, cut off, or gone, and files that change under the server.

use annulus_integration_tests::curl;
use annulus_integration_tests::files::Tree;
use annulus_integration_tests::http::{self, Client};
use annulus_integration_tests::prepare::Sigpipe;
use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::{digest, net, procfs, watch};

const LARGE: u64 = 10 << 20;

/// Opens connections, asks for the large file, reads some of it and is gone: by a close with unread bytes, or
/// by a reset.
fn leave_half_way(server: &Server, times: usize) {
    for i in 0..times {
        let mut client = Client::connect(server.addr());
        client.send(http::get("/large.bin")).expect("sending");
        match i % 4 {
            // Not one byte read.
            0 => {}
            1 => assert_eq!(client.head().expect("a head").status, 200),
            _ => {
                client.head().expect("a head");
                client.body(64 * 1024 + i).expect("some of the body");
            }
        }
        if i % 2 == 0 {
            net::reset(client.into_stream());
        }
    }
}

fn lives_on(launch: Launch) {
    let tree = Tree::new();
    let sample = tree.file("large.bin", LARGE);
    for road in ["ring", "inline"] {
        let mut server = launch.clone().arg(tree.root()).road(road).start();
        assert_eq!(curl::sum(&server.url(&sample.path)), sample.sum);
        leave_half_way(&server, 200);
        server.must_live();
        assert_eq!(
            curl::sum(&server.url(&sample.path)),
            sample.sum,
            "after 200 clients left half-way, by {road}"
        );
        server.must_live();
        server.stop();
    }
}

#[test]
fn clients_that_leave_half_way_do_not_matter_when_sigpipe_kills() {
    lives_on(Launch::new().arg("serve").listen("127.0.0.1:0").sigpipe(Sigpipe::Kills));
}

#[test]
fn clients_that_leave_half_way_do_not_matter_when_sigpipe_is_ignored() {
    lives_on(Launch::new().arg("serve").listen("127.0.0.1:0").sigpipe(Sigpipe::Ignored));
}

#[test]
fn what_a_client_held_is_given_back_when_it_is_gone() {
    let tree = Tree::new();
    tree.file("large.bin", LARGE);
    for road in ["ring", "inline"] {
        let server = Launch::serve(tree.root()).road(road).start();
        leave_half_way(&server, 4);
        let listeners = procfs::listeners(server.port());
        let sockets_closed = || {
            watch::until("the sockets of clients that are gone are closed", || {
                (procfs::sockets(server.pid()) == listeners).then_some(())
            });
        };
        sockets_closed();
        // Some files and pipes may be kept for the next client, but not one for each that ever was.
        let kept = procfs::open_files(server.pid());
        leave_half_way(&server, 200);
        sockets_closed();
        watch::until(&format!("not many more than {kept} files are open (by {road})"), || {
            (procfs::open_files(server.pid()) <= kept + 32).then_some(())
        });
        server.stop();
    }
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let tree = Tree::new();
    let sample = tree.file("file.txt", 3000);
    let server = Launch::serve(tree.root()).start();
    let mut client = Client::connect(server.addr());
    for _ in 0..2 {
        for byte in http::get(&sample.path).as_bytes() {
            client.send([*byte]).expect("sending");
        }
        assert_eq!(digest::of(&client.response().expect("a response").body), sample.sum);
    }
    server.stop();
}

#[test]
fn a_slow_client_gets_every_byte_and_keeps_nobody_waiting() {
    let tree = Tree::new();
    let sample = tree.file("large.bin", LARGE);
    // More than the buffers of both sockets take: the server cannot be done with it before the client reads.
    let larger = tree.sparse("larger.bin", 32 << 20);
    for road in ["ring", "inline"] {
        let one_core = annulus_integration_tests::cpus::allowed()[0].to_string();
        let server = Launch::serve(tree.root()).road(road).cores(&one_core).start();
        let mut slow: Vec<Client> = (0..16).map(|_| Client::connect(server.addr())).collect();
        for client in &mut slow {
            client.send(http::get(&larger.path)).expect("sending");
            assert_eq!(client.head().expect("a head").content_length(), larger.sum.len);
        }
        // All of them stand still soon, and will until somebody else was served.
        for _ in 0..5 {
            assert_eq!(
                curl::sum(&server.url(&sample.path)),
                sample.sum,
                "beside clients that do not read, by {road}"
            );
        }
        for (i, client) in slow.iter_mut().enumerate() {
            let sum = client.body_sum(larger.sum.len).unwrap_or_else(|e| panic!("slow client {i}: {e}"));
            assert_eq!(sum, larger.sum, "slow client {i} by {road}");
        }
        server.stop();
    }
}

#[test]
fn a_file_cut_short_while_it_is_sent_ends_the_connection_and_nothing_else() {
    for road in ["ring", "inline"] {
        let tree = Tree::new();
        let sample = tree.sparse("shrinks.bin", 256 << 20);
        let other = tree.file("other.bin", LARGE);
        let server = Launch::serve(tree.root()).road(road).start();
        let mut client = Client::connect(server.addr());
        client.send(http::get(&sample.path)).expect("sending");
        let head = client.head().expect("a head");
        assert_eq!(head.content_length(), 256 << 20);
        // The sockets' buffers hold a few MiB, so the server cannot be further than that: it will miss the
        // rest.
        let file =
            std::fs::File::options().write(true).open(tree.at("shrinks.bin")).expect("opening our own file");
        file.set_len(1 << 20).expect("truncating our own file");
        let came = client.read_to_close().expect("the connection ends");
        assert!(came < 256 << 20, "{came} bytes of a file of which 1 MiB was left, by {road}");
        assert_eq!(curl::sum(&server.url(&other.path)), other.sum);
        let ended = server.stop();
        assert!(
            ended.err.iter().any(|line| line.contains("shrinks.bin")),
            "the log says which file: {ended:#?}"
        );
    }
}

#[test]
fn a_file_that_grows_while_it_is_sent_is_sent_as_promised() {
    use std::io::Write;
    for road in ["ring", "inline"] {
        let tree = Tree::new();
        let sample = tree.file("grows.bin", 64 << 20);
        let server = Launch::serve(tree.root()).road(road).start();
        let mut client = Client::connect(server.addr());
        client.send(http::get(&sample.path)).expect("sending");
        let head = client.head().expect("a head");
        let mut file =
            std::fs::File::options().append(true).open(tree.at("grows.bin")).expect("opening our own file");
        file.write_all(&[0xaa; 1 << 20]).expect("appending to our own file");
        assert_eq!(client.body_sum(head.content_length()).expect("the body"), sample.sum, "by {road}");
        // The connection is still in step.
        assert_eq!(client.get("/missing").head.status, 404);
        server.stop();
    }
}
