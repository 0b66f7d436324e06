//! An operation behind a poll: whoever stops waiting gets the descriptors back.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream as Std;
use std::thread;
use std::time::Duration;

use annulus::fs::{File, OpenOptions};
use annulus::net::TcpListener;
use annulus::transfer::{Road, relay, send_file};
use common::on_one_core;

/// Reads to the end; false when the end does not come. Only a failing test waits for the deadline.
fn ends(mut peer: Std) -> bool {
    peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut rest = Vec::new();
    match peer.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(e) => e.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// Without the head's CQE taken as the pair's, both tests fail: the operation is never over and keeps its
/// socket open.
#[test]
fn a_dropped_send_that_waited_for_room_lets_go_of_its_socket() {
    let path = std::env::temp_dir().join(format!("annulus-linked-{}", std::process::id()));
    std::fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
    let file = path.clone();
    on_one_core(move || async move {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let peer = Std::connect(listener.local_addr()).unwrap();
        let stream = listener.accept().await?;
        let file = File::open(&file, OpenOptions::new()).await?;
        let sending = send_file(&stream, &file, 0..1 << 30, Road::Ring);
        assert!(annulus::time::timeout(Duration::from_millis(50), sending).await.is_err());
        drop(stream);
        let peer = thread::spawn(move || ends(peer));
        while !peer.is_finished() {
            annulus::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(peer.join().unwrap(), "the connection stayed open");
        Ok(())
    });
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_dropped_relay_that_waited_for_room_lets_go_of_both_sockets() {
    on_one_core(|| async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let [mut talker, listless] = [(); 2].map(|()| Std::connect(listener.local_addr()).unwrap());
        let (a, b) = (listener.accept().await?, listener.accept().await?);
        talker.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        // More than the sockets hold, and nobody reads it.
        let talker = thread::spawn(move || while talker.write_all(&[0; 1 << 16]).is_ok() {});
        let relaying = relay(a, b, Road::Ring);
        assert!(annulus::time::timeout(Duration::from_millis(200), relaying).await.is_err());
        let listless = thread::spawn(move || ends(listless));
        while !(talker.is_finished() && listless.is_finished()) {
            annulus::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(listless.join().unwrap(), "a connection stayed open");
        Ok(())
    });
}
