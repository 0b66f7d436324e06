//! A process without descriptors. In a program of its own, because the limit is the whole process's.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream as Std;
use std::thread;
use std::time::{Duration, Instant};

use annulus::net::TcpListener;
use common::on_one_core;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Seen to fail: with EMFILE returned by `accept` as an error, and with the rest left out.
#[test]
fn accepting_recovers_when_descriptors_come_back() {
    const CLIENTS: usize = 100;
    on_one_core(|| async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut clients: Vec<_> =
            (0..CLIENTS).map(|_| Std::connect(listener.local_addr()).unwrap()).collect();
        let limit = getrlimit(Resource::Nofile);
        // Descriptors are given out from the lowest: this one is the first that is free.
        let next = rustix::fd::AsRawFd::as_raw_fd(&std::fs::File::open("/dev/null").unwrap());
        setrlimit(Resource::Nofile, Rlimit { current: Some(next as u64), ..limit }).unwrap();
        let served = annulus::spawn(async move {
            for _ in 0..CLIENTS {
                let stream = listener.accept().await?;
                stream.send_all("here").await?;
            }
            annulus::Ok(())
        });
        // Some rests of 20 ms, then there are descriptors again.
        let begin = Instant::now();
        while annulus::core::counters().accept_backoffs < 3 || begin.elapsed() < Duration::from_millis(100) {
            annulus::time::sleep(Duration::from_millis(1)).await;
        }
        let rests = annulus::core::counters().accept_backoffs as u128;
        assert!(rests <= begin.elapsed().as_millis() / 20 + 1, "{rests} rests in {:?}", begin.elapsed());
        assert_eq!(annulus::core::counters().accepts, 0, "the limit did not hold: the test shows nothing");
        setrlimit(Resource::Nofile, limit).unwrap();
        served.await.expect("no panic")?;
        let read = thread::spawn(move || {
            for client in &mut clients {
                let mut got = String::new();
                client.read_to_string(&mut got).unwrap();
                assert_eq!(got, "here");
                // The other end has gone; nothing is to be learnt from this.
                drop(client.write_all(b"x"));
            }
        });
        read.join().unwrap();
        Ok(())
    });
}
