//! Rings that are far too small: a full submission queue costs enters, a full completion queue costs ticks,
//! and neither costs a completion.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream as Std;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;

use annulus::fs::{File, OpenOptions};
use annulus::net::TcpListener;
use annulus::{Builder, Runtime, spawn};
use common::{Scratch, numbers, on_first_cpu, read_numbers_at_once};

/// One core with a submission queue of eight entries, and a completion queue of `cq`.
fn tiny(cq: u32) -> Builder {
    on_first_cpu(Runtime::builder().pool_bytes(8 << 20).ring_entries(8).cq_entries(cq))
}

/// Seen to fail: with `make_room` returning without an enter the core hangs.
#[test]
fn a_full_submission_queue_takes_every_operation() {
    let scratch = Scratch::new("rings");
    let file = numbers(&scratch, 500);
    tiny(8)
        .build()
        .unwrap()
        .run(move || {
            let file = file.clone();
            async move { read_numbers_at_once(&File::open(file, OpenOptions::new()).await?, 500).await }
        })
        .unwrap();
}

/// The clients connect and write while the core does not look, so that all completions come at once. Seen to
/// fail: with a multishot that ended for lack of room not armed again, clients are never served; with
/// `has_overflowed` always false the last assertion does.
#[test]
fn an_overflowing_completion_queue_loses_nothing() {
    const CLIENTS: u32 = 300;
    tiny(8)
        .build()
        .unwrap()
        .run(|| async {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr();
            let (connected, all_connected) = mpsc::channel();
            let (go, may_go) = mpsc::channel::<()>();
            let (wrote, all_wrote) = mpsc::channel();
            let clients = thread::spawn(move || {
                let mut clients: Vec<_> = (0..CLIENTS).map(|_| Std::connect(address).unwrap()).collect();
                connected.send(()).unwrap();
                may_go.recv().unwrap();
                for (i, client) in (0..CLIENTS).zip(&mut clients) {
                    client.write_all(&i.to_le_bytes()).unwrap();
                }
                wrote.send(()).unwrap();
                for (i, mut client) in (0..CLIENTS).zip(clients) {
                    let mut back = [0; 4];
                    client.read_exact(&mut back).unwrap();
                    assert_eq!(u32::from_le_bytes(back), i);
                }
            });
            // Armed, then the core stands still until all have connected.
            drop(annulus::time::timeout(std::time::Duration::ZERO, listener.accept()).await);
            annulus::yield_now().await;
            all_connected.recv().unwrap();
            let mut tasks = Vec::new();
            for _ in 0..CLIENTS {
                let stream = Rc::new(listener.accept().await?);
                tasks.push(spawn(async move {
                    let mut got = Vec::new();
                    while got.len() < 4 {
                        got.extend_from_slice(&stream.recv().await?.expect("four bytes"));
                    }
                    stream.send_all(got).await?;
                    annulus::Ok(())
                }));
            }
            // All receives are armed; again everything comes while the core stands still.
            annulus::yield_now().await;
            annulus::yield_now().await;
            go.send(()).unwrap();
            all_wrote.recv().unwrap();
            for task in tasks {
                task.await.expect("no panic")?;
            }
            clients.join().unwrap();
            assert!(
                annulus::cores::counters().cq_overflows > 0,
                "nothing overflowed: the test shows nothing"
            );
            Ok(())
        })
        .unwrap();
}
