//! What a connection takes that waits for its peer. In a program of its own, because every allocation is
//! counted.

mod common;
#[path = "common/counting.rs"]
mod counting;

use std::io::{Read, Write};
use std::net::TcpStream as Std;
use std::sync::atomic::Ordering;

use annulus::net::TcpListener;
use common::{answer, connections, on_one_core};
use counting::LIVE;

/// The page `guide::weights` names the bytes: a socket, a task, and what a thousand receives that are under
/// way take of the core's memory for operations (64 KiB, which another thousand share).
///
/// Seen to fail: with large cells for receives and 40 bytes more a socket, 580.
#[test]
fn a_connection_that_waits_takes_few_bytes() {
    const CONNECTIONS: usize = 1000;
    if connections(CONNECTIONS + 1) < CONNECTIONS + 1 {
        return;
    }
    let each = on_one_core(|| async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut peers = Vec::with_capacity(CONNECTIONS + 1);
        let mut before = 0;
        // What the first one makes is the core's.
        for n in 0..=CONNECTIONS {
            let mut peer = Std::connect(listener.local_addr()).unwrap();
            annulus::spawn(answer(listener.accept().await?)).detach();
            peer.write_all(b"asks").unwrap();
            peer = annulus::spawn_blocking(move || peer.read_exact(&mut [0; 6]).map(|()| peer))
                .await
                .unwrap()?;
            peers.push(peer);
            if n == 0 {
                before = LIVE.load(Ordering::Relaxed);
            }
        }
        Ok(LIVE.load(Ordering::Relaxed).saturating_sub(before) / CONNECTIONS)
    });
    println!("{each} bytes");
    assert!((100..=400).contains(&each), "{each} bytes");
}
