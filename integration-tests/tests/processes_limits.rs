//! Limits are of the program, of however many processes: one for each core stands for one for each node here.
//! The kernel spreads connections over the processes, so that each alone has too few to come to a limit.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::http::Client;
use annulus_integration_tests::server::Launch;
use annulus_integration_tests::upstream::{Upstream, letter};
use annulus_integration_tests::{cpus, net};

/// Of all clients, what one limit lets in.
const MOST: usize = 8;
const CLIENTS: usize = 4 * MOST;

fn several(launch: Launch) -> Launch {
    launch.processes("core").cores(&cpus::list(&cpus::two()))
}

/// Seen to fail: with a table for each process, of which one alone lets in [`MOST`].
#[test]
fn a_client_address_has_its_connections_in_all_processes() {
    let tree = Tree::new();
    let small = tree.file("small.txt", 100);
    let server =
        several(Launch::serve(tree.root())).args(["--max-connections-per-client", &MOST.to_string()]).start();
    let mut clients: Vec<Client> = Vec::new();
    for round in 0..3 {
        let mut next: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(server.addr())).collect();
        let served: Vec<u16> = next.iter_mut().map(|client| client.get(&small.path).head.status).collect();
        let (expected, refused) = (if round == 0 { MOST } else { 0 }, 503);
        assert_eq!(served.iter().filter(|status| **status == 200).count(), expected, "{served:?}");
        assert!(served.iter().all(|status| [200, refused].contains(status)), "{served:?}");
        clients.extend(next.into_iter().zip(served).filter(|(_, status)| *status == 200).map(|(it, _)| it));
    }
    // Each that leaves makes room for one, whichever process that comes to.
    while let Some(client) = clients.pop() {
        drop(client);
        annulus_integration_tests::watch::until("there is room for one", || {
            let mut next = Client::connect(server.addr());
            (next.get(&small.path).head.status == 200).then_some(())
        });
    }
    server.stop();
}

/// Each client says that it is served from the upstream's first byte until before it goes: so many never are
/// at once. Seen to fail: with a table for each process.
#[test]
fn those_who_wait_for_room_wait_for_that_of_all_processes() {
    let upstream = Upstream::start(|mut stream| {
        // Whoever gives up meanwhile is no matter of the upstream's.
        if stream.write_all(b"!").is_ok() {
            let _ = stream.read(&mut [0]);
        }
    });
    for flag in ["--max-connections", "--upstream-max-connections"] {
        let launch = several(Launch::proxy(upstream.addr()));
        let proxy = launch.args([flag, &MOST.to_string(), "--queue-timeout", "3600"]).start();
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| net::connect(proxy.addr()).expect("the backlog has room")).collect();
        let (served, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (come, comes) = channel();
        std::thread::scope(|scope| {
            for mut client in clients {
                let (served, most, come) = (&served, &most, come.clone());
                scope.spawn(move || {
                    client.read_exact(&mut [0]).expect("served at last");
                    most.fetch_max(served.fetch_add(1, SeqCst) + 1, SeqCst);
                    let (go, goes) = channel::<()>();
                    come.send(go).expect("the test waits");
                    // It ends when the test lets go of it.
                    let _ = goes.recv();
                    served.fetch_sub(1, SeqCst);
                });
            }
            let mut inside = std::collections::VecDeque::new();
            for _ in 0..CLIENTS {
                if inside.len() == MOST {
                    inside.pop_front();
                }
                inside.push_back(comes.recv().expect("one more is served"));
            }
        });
        assert_eq!(most.load(SeqCst), MOST, "{flag}");
        proxy.stop();
    }
}

/// As many upstreams as processes, and an odd number of clients one after the other: each process alone would
/// give its own first client to the same upstream.
///
/// Seen to fail: with the connections of each process counted by itself.
#[test]
fn connections_are_balanced_over_all_processes() {
    let upstreams = [b'a', b'b', b'c'].map(Upstream::lettered);
    let to = upstreams.each_ref().map(|it| it.addr().to_string()).join(",");
    let launch = || several(Launch::new().args(["proxy", "--to", &to]).listen("127.0.0.1:0"));
    let proxy = launch().args(["--balance", "leastconn"]).start();
    let mut held = Vec::new();
    let mut counts = [0; 3];
    for n in 1..=CLIENTS {
        let (client, letter) = letter(&proxy);
        counts[usize::from(letter - b'a')] += 1;
        held.push(client);
        let (least, most) = (counts.iter().min(), counts.iter().max());
        assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{counts:?} of {n}");
    }
    proxy.stop();
}
