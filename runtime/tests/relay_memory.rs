//! What an idle relay adds to its two sockets. In a program of its own, because every allocation is counted.

mod common;
#[path = "common/counting.rs"]
mod counting;

use std::io::{Read, Write};
use std::net::TcpStream as Std;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use annulus::net::{TcpListener, TcpStream};
use annulus::transfer::{RelayLimits, Road, relay_within};
use common::{connections, on_one_core};
use counting::LIVE;

/// Has a socket receive, which stays armed, as that of every socket that waits for its peer.
async fn arm(stream: &TcpStream, mut peer: &Std) -> annulus::Result<()> {
    peer.write_all(b"first").unwrap();
    assert!(stream.recv().await?.is_some());
    Ok(())
}

/// Some words each way, after which a relay knows that it is talk.
async fn talk(mut client: Std, mut upstream: Std) -> (Std, Std) {
    let converse = move || {
        for _ in 0..8 {
            client.write_all(b"?").unwrap();
            upstream.read_exact(&mut [0]).unwrap();
            upstream.write_all(b"!").unwrap();
            client.read_exact(&mut [0]).unwrap();
        }
        (client, upstream)
    };
    annulus::spawn_blocking(converse).await.expect("no panic")
}

/// The documentation promises half a KiB (docs/relay.md).
///
/// Seen to fail: with 600 bytes more for each direction.
#[test]
fn an_idle_relay_adds_half_a_kib_to_its_sockets() {
    const RELAYS: usize = 500;
    // Four descriptors each. Most processes may have only 1,024 until they ask for more.
    if connections(2 * RELAYS) < 2 * RELAYS {
        return;
    }
    for road in [Road::Inline, Road::Ring] {
        on_one_core(move || async move {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let (mut sockets, mut peers) = (Vec::new(), Vec::new());
            for _ in 0..RELAYS {
                let client = Std::connect(listener.local_addr()).unwrap();
                let (a, b) =
                    (listener.accept().await?, TcpStream::connect(door.local_addr().unwrap()).await?);
                let upstream = door.accept().unwrap().0;
                arm(&a, &client).await?;
                arm(&b, &upstream).await?;
                sockets.push((a, b));
                peers.push((client, upstream));
            }
            let mut limits = RelayLimits::default();
            (limits.idle, limits.half_closed) =
                (Some(Duration::from_secs(600)), Some(Duration::from_secs(120)));
            let limits = Rc::new(limits);
            // What the first one makes is the core's: its thread for closures, its pipes.
            let (a, b) = sockets.pop().expect("one of them");
            annulus::spawn(relay_within(a, b, road, &limits)).detach();
            let (client, upstream) = peers.pop().expect("its peers");
            let mut kept = Vec::with_capacity(RELAYS);
            kept.push(talk(client, upstream).await);
            let before = LIVE.load(Ordering::Relaxed);
            for ((a, b), (client, upstream)) in sockets.drain(..).zip(peers.drain(..)) {
                annulus::spawn(relay_within(a, b, road, &limits)).detach();
                kept.push(talk(client, upstream).await);
            }
            let each = LIVE.load(Ordering::Relaxed).saturating_sub(before) / (RELAYS - 1);
            println!("{each} bytes by {road}");
            assert!((100..=512).contains(&each), "{each} bytes by {road}");
            drop(kept);
            Ok(())
        });
    }
}
