//! A core that has more to do than another one hands new connections on to it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use annulus_integration_tests::server::{Launch, Server};
use annulus_integration_tests::upstream::Upstream;
use annulus_integration_tests::{cpus, net, watch};

/// Where it answers operators.
#[track_caller]
fn admin(server: &Server) -> SocketAddr {
    let found = server.err().wait_for("the admin line", |line| {
        line.strip_prefix("annulus: admin on http://").map(|addr| addr.parse().expect("an address"))
    });
    found.expect("the server lives")
}

/// The samples of a family: the labels of each, and its value.
#[track_caller]
fn samples(admin: SocketAddr, family: &str) -> Vec<(String, u64)> {
    let mut stream = net::connect(admin).expect("connecting");
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("asking");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the metrics");
    let of = |line: &str| {
        let (labels, value) = line.strip_prefix(family)?.strip_prefix('{')?.split_once("} ")?;
        Some((labels.to_owned(), value.parse::<f64>().ok()? as u64))
    };
    text.lines().filter_map(of).collect()
}

/// How many connections each core has accepted.
#[track_caller]
fn accepted(admin: SocketAddr) -> Vec<u64> {
    samples(admin, "annulus_core_accepts_total").into_iter().map(|sample| sample.1).collect()
}

#[track_caller]
fn asked(mut stream: &TcpStream) {
    stream.write_all(b"?").expect("asking");
    stream.read_exact(&mut [0]).expect("the answer");
}

/// Seen to fail: with every connection served where it was accepted.
#[test]
fn new_connections_go_to_a_core_with_less_to_do() {
    let allowed = cpus::allowed();
    let [first, second, ..] = allowed[..] else {
        println!("left out: two cores take two CPUs, and here is one");
        return;
    };
    let upstream = Upstream::echo();
    let server = Launch::proxy(upstream.addr())
        .cores(&format!("{first},{second}"))
        .args(["--admin", "127.0.0.1:0"])
        .start();
    let admin = admin(&server);
    // The kernel deals connections out by a hash: those of one core are kept.
    let mut kept = Vec::new();
    while kept.len() < 24 {
        let before = accepted(admin);
        let stream = net::connect(server.addr()).expect("connecting");
        asked(&stream);
        if watch::until("it is counted", || Some(accepted(admin)).filter(|now| *now != before))[0] > before[0]
        {
            kept.push(stream);
        }
    }
    // All of them ask without end, so the tasks of that core queue up while the other one sleeps.
    let stop = Arc::new(AtomicBool::new(false));
    let asking: Vec<_> = kept
        .into_iter()
        .map(|stream| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    asked(&stream);
                }
            })
        })
        .collect();
    let (distance, count) = watch::until("a connection is handed on", || {
        let stream = net::connect(server.addr()).expect("connecting");
        asked(&stream);
        samples(admin, "annulus_core_handed_on_total").into_iter().find(|sample| sample.1 > 0)
    });
    assert!(distance.contains("distance=\""), "{distance} {count}");
    stop.store(true, Ordering::Relaxed);
    asking.into_iter().for_each(|thread| thread.join().expect("every question is answered"));
    server.stop();
}
