//! `annulus proxy`: many bytes, both ways at once, and none lost to slow readers or to the number of relays.

use annulus_integration_tests::curl;
use annulus_integration_tests::digest::{self, Sum};
use annulus_integration_tests::files::Tree;
use annulus_integration_tests::http::Client;
use annulus_integration_tests::net;
use annulus_integration_tests::pattern::{self, Pattern};
use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::upstream::Upstream;
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// A receive buffer that is soon full, and yet holds a whole segment of loopback's 64 KiB: a smaller one
/// makes TCP wait for its timers instead of for the reader.
const SMALL_BUFFER: usize = 128 * 1024;

/// Sends the stream of `seed` on one thread, ends that direction, and sums up what comes on another, until
/// its end.
#[track_caller]
fn exchange(stream: &TcpStream, seed: u64, len: u64) -> Sum {
    thread::scope(|scope| {
        scope.spawn(|| {
            pattern::write_to(&mut &*stream, seed, len)
                .unwrap_or_else(|e| panic!("sending stream {seed}: {e}"));
            stream.shutdown(Shutdown::Write).unwrap_or_else(|e| panic!("ending stream {seed}: {e}"));
        });
        digest::of_reader(&mut &*stream).unwrap_or_else(|e| panic!("receiving beside stream {seed}: {e}"))
    })
}

/// An upstream that sends stream 2 of `len` bytes on each connection and tells what it got.
fn exchanging(len: u64) -> (Upstream, Receiver<Sum>) {
    let (tell, told) = channel();
    let upstream = Upstream::start(move |stream| {
        // If the test has failed already, nobody listens.
        let _ = tell.send(exchange(&stream, 2, len));
    });
    (upstream, told)
}

#[track_caller]
fn a_gib_each_way(road: &str) {
    let (upstream, told) = exchanging(GIB);
    let server = Launch::proxy(upstream.addr()).road(road).start();
    let client = net::connect(server.addr()).expect("connecting");
    let came = exchange(&client, 1, GIB);
    assert_eq!(came, Pattern::sum(2, GIB), "what the client got by {road}");
    assert_eq!(
        told.recv().expect("the upstream's word"),
        Pattern::sum(1, GIB),
        "what the upstream got by {road}"
    );
    server.stop();
}

#[test]
fn a_gib_each_way_at_once_by_the_ring_road() {
    a_gib_each_way("ring");
}

#[test]
fn a_gib_each_way_at_once_by_the_inline_road() {
    a_gib_each_way("inline");
}

/// Seen to fail: with the first byte of a burst changed.
#[test]
fn small_messages_come_back_one_by_one() {
    use std::io::{Read, Write};
    let upstream = Upstream::echo();
    for road in ["ring", "inline"] {
        let server = Launch::proxy(upstream.addr()).road(road).start();
        let mut client = net::connect(server.addr()).expect("connecting");
        // Each waits for the one before: a byte that is held back for more to come stops this for good.
        for i in 0..500 {
            let message = Pattern::bytes(i, 1 + (i as usize * 37) % 3000);
            client.write_all(&message).expect("sending");
            let mut back = vec![0; message.len()];
            client.read_exact(&mut back).unwrap_or_else(|e| panic!("the echo of message {i} by {road}: {e}"));
            assert_eq!(back, message, "message {i} by {road}");
        }
        drop(client);
        server.stop();
    }
}

/// Sizes around pipes and blocks, each on its own connection and in one write, so that the end comes with the
/// last bytes.
///
/// Seen to fail: with a byte that is lost before each splice.
#[test]
fn every_size_of_stream_arrives_whole() {
    let upstream = Upstream::echo();
    for road in ["ring", "inline"] {
        let server = Launch::proxy(upstream.addr()).road(road).start();
        for size in [0, 1, 1024, 4095, 4096, 4097, 65535, 65536, 65537, MIB - 1, MIB, MIB + 1, 3 * MIB] {
            let client = net::connect(server.addr()).expect("connecting");
            assert_eq!(exchange(&client, size, size), Pattern::sum(size, size), "{size} bytes by {road}");
        }
        server.stop();
    }
}

/// More relays than an ordinary user may have large pipes for (64 MiB of pipe buffers in all: 63 pipes of 1
/// MiB).
///
/// Seen to fail: with a byte that is lost before each splice.
#[test]
fn a_hundred_relays_at_once() {
    const EACH: u64 = 2 * MIB;
    for road in ["ring", "inline"] {
        let (upstream, told) = exchanging(EACH);
        let server = Launch::proxy(upstream.addr()).road(road).start();
        let clients: Vec<TcpStream> =
            (0..100).map(|_| net::connect(server.addr()).expect("connecting")).collect();
        let due = Pattern::sum(2, EACH);
        thread::scope(|scope| {
            for (i, client) in clients.iter().enumerate() {
                thread::Builder::new()
                    .stack_size(256 * 1024)
                    .spawn_scoped(scope, move || {
                        assert_eq!(exchange(client, 1, EACH), due, "what client {i} got by {road}");
                    })
                    .expect("a thread for a client");
            }
        });
        let due = Pattern::sum(1, EACH);
        for i in 0..100 {
            assert_eq!(told.recv().expect("the upstream's word"), due, "upstream connection {i} by {road}");
        }
        server.stop();
    }
}

/// Reads in small pieces through a small receive buffer.
#[track_caller]
fn sip(mut stream: &TcpStream) -> Sum {
    use std::io::Read;
    let mut digest = digest::Digest::new();
    let mut piece = [0; 4099];
    loop {
        match stream.read(&mut piece).unwrap_or_else(|e| panic!("sipping: {e}")) {
            0 => return digest.sum(),
            n => digest.update(&piece[..n]),
        }
    }
}

fn slow_readers(server: &Server, told: &Receiver<Sum>, len: u64, road: &str) {
    let client = net::connect(server.addr()).expect("connecting");
    net::small_receive_buffer(&client, SMALL_BUFFER);
    let came = thread::scope(|scope| {
        scope.spawn(|| {
            pattern::write_to(&mut &client, 1, len).expect("sending");
            client.shutdown(Shutdown::Write).expect("ending our side");
        });
        sip(&client)
    });
    assert_eq!(came, Pattern::sum(2, len), "what the slow client got by {road}");
    assert_eq!(
        told.recv().expect("the upstream's word"),
        Pattern::sum(1, len),
        "what the slow upstream got by {road}"
    );
}

/// Seen to fail: with a byte that is lost before each splice.
#[test]
fn slow_readers_on_both_sides_lose_no_byte() {
    const LEN: u64 = 16 * MIB;
    let (tell, told) = channel();
    let upstream = Upstream::start(move |stream| {
        net::small_receive_buffer(&stream, SMALL_BUFFER);
        let sum = thread::scope(|scope| {
            scope.spawn(|| {
                pattern::write_to(&mut &stream, 2, LEN).expect("the upstream sends");
                stream.shutdown(Shutdown::Write).expect("the upstream ends its side");
            });
            sip(&stream)
        });
        // If the test has failed already, nobody listens.
        let _ = tell.send(sum);
    });
    for road in ["ring", "inline"] {
        let server = Launch::proxy(upstream.addr()).road(road).start();
        slow_readers(&server, &told, LEN, road);
        server.stop();
    }
}

/// Whoever asks may answer late: a relay that stands still in one direction must go on in the other.
#[test]
fn a_direction_that_stands_still_does_not_stop_the_other() {
    use std::io::Read;
    const LEN: u64 = 32 * MIB;
    for road in ["ring", "inline"] {
        // The upstream reads nothing before it has sent everything.
        let (tell, told) = channel();
        let upstream = Upstream::start(move |stream| {
            pattern::write_to(&mut &stream, 2, LEN).expect("the upstream sends");
            let _ = tell.send(digest::of_reader(&mut &stream).expect("the upstream reads"));
        });
        let server = Launch::proxy(upstream.addr()).road(road).start();
        let client = net::connect(server.addr()).expect("connecting");
        thread::scope(|scope| {
            scope.spawn(|| {
                pattern::write_to(&mut &client, 1, LEN).expect("sending");
                client.shutdown(Shutdown::Write).expect("ending our side");
            });
            let mut came = digest::Digest::new();
            let mut block = vec![0; 64 * 1024];
            let mut left = LEN;
            while left > 0 {
                match (&client).read(&mut block).unwrap_or_else(|e| panic!("reading by {road}: {e}")) {
                    0 => panic!("the stream ended {left} bytes early by {road}"),
                    n => {
                        came.update(&block[..n]);
                        left -= n as u64;
                    }
                }
            }
            assert_eq!(came.sum(), Pattern::sum(2, LEN), "what the client got by {road}");
        });
        assert_eq!(
            told.recv().expect("the upstream's word"),
            Pattern::sum(1, LEN),
            "what the upstream got by {road}"
        );
        drop(client);
        server.stop();
    }
}

/// Seen to fail: with a byte that is lost before each splice.
#[test]
fn a_file_server_behind_the_proxy_serves_as_without() {
    let tree = Tree::new();
    let samples = [tree.file("small.txt", 1000), tree.file("large.bin", 64 * MIB)];
    for road in ["ring", "inline"] {
        let files = Launch::serve(tree.root()).road(road).start();
        let proxy = Launch::proxy(files.addr()).road(road).start();
        for sample in &samples {
            assert_eq!(
                curl::sum(&format!("http://{}{}", proxy.addr(), sample.path)),
                sample.sum,
                "by {road}"
            );
        }
        let mut client = Client::connect(proxy.addr());
        for _ in 0..20 {
            let response = client.get(&samples[0].path);
            assert_eq!(digest::of(&response.body), samples[0].sum, "by {road}");
        }
        drop(client);
        proxy.stop();
        files.stop();
    }
}
