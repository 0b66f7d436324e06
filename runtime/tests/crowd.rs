//! Many streams on few buffers: none is lost and none is passed over.

mod common;

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream as Std};
use std::rc::Rc;
use std::thread;

use annulus::net::{TcpListener, UnixStream};
use annulus::{Runtime, spawn};
use common::{connections, echo, listening, on_one_core_of};

/// One core with the least memory that there can be: 16 receive buffers of 8 KiB.
fn small() -> Runtime {
    let first = annulus::numa::thread::affinity_of_current().unwrap().first().unwrap();
    let least = 256 << 10;
    Runtime::builder()
        .cores(first.to_string().parse().unwrap())
        .pool_bytes(least)
        .pool_limit(least)
        .build()
        .unwrap()
}

/// In each round every client sends before any of them reads, so that all need a buffer at once; and a round
/// begins only when the last has ended, so that a stream which is passed over stops everything.
///
/// Seen to fail: with waiting streams not served it never ends.
#[test]
fn ten_thousand_connections_share_sixteen_buffers() {
    let clients = connections(common::bulk(10_000));
    let (running, address) = listening(small(), move |listener| echo(listener, clients));
    let mut all: Vec<_> = (0..clients).map(|_| Std::connect(address).unwrap()).collect();
    for round in 0..5u32 {
        for (i, client) in all.iter_mut().enumerate() {
            let mut message = [round as u8; 500];
            message[..4].copy_from_slice(&(i as u32).to_le_bytes());
            client.write_all(&message).unwrap();
        }
        for (i, client) in all.iter_mut().enumerate() {
            let mut back = [0; 500];
            client.read_exact(&mut back).unwrap();
            assert_eq!(back[..4], (i as u32).to_le_bytes());
            assert!(back[4..].iter().all(|b| *b == round as u8));
        }
    }
    let starved: u64 = running.counters().iter().map(|core| core.recv_starved).sum();
    assert!(starved > 0, "there were buffers for all: the test shows nothing");
    drop(all);
    running.wait().unwrap();
}

/// Seen to fail: with `hold_back` doing nothing the stream that nobody reads takes all sixteen buffers.
#[test]
fn a_thousand_readers_finish_beside_a_stream_that_nobody_reads() {
    const LEN: usize = 20_000;
    let clients = connections(1000);
    let (running, address) = listening(small(), move |listener| async move {
        let ignored = listener.accept().await?;
        assert!(ignored.recv().await?.is_some(), "armed by one receive, and never read again");
        while annulus::cores::counters().recv_held_back == 0 {
            annulus::yield_now().await;
        }
        echo(listener, clients).await?;
        drop(ignored);
        Ok(())
    });
    let mut pushy = Std::connect(address).unwrap();
    let pusher = thread::spawn(move || while pushy.write_all(&[0; 1 << 16]).is_ok() {});
    let all: Vec<_> = (0..clients).map(|_| Std::connect(address).unwrap()).collect();
    thread::scope(|scope| {
        for part in all.chunks(clients.div_ceil(8)) {
            scope.spawn(move || {
                for mut client in part {
                    client.write_all(&[9; LEN]).unwrap();
                    client.shutdown(Shutdown::Write).unwrap();
                }
                for mut client in part {
                    let mut got = Vec::new();
                    client.read_to_end(&mut got).unwrap();
                    assert_eq!(got.len(), LEN);
                }
            });
        }
    });
    running.wait().unwrap();
    pusher.join().unwrap();
}

/// What lies in a socket when its first receive is armed comes at once, in as many buffers as there are: the
/// stream has them all before it can be switched off.
///
/// Seen to fail: without `make_room` at the end of the tick the second client is never served.
#[test]
fn a_stream_that_had_every_buffer_gives_them_up_and_loses_nothing() {
    const LEN: usize = 1 << 20;
    let byte = |at: usize| (at % 251) as u8;
    let (address_tx, address) = std::sync::mpsc::channel::<SocketAddr>();
    let (sent_tx, sent) = std::sync::mpsc::channel::<()>();
    let (address_tx, sent) = (std::sync::Mutex::new(address_tx), std::sync::Mutex::new(sent));
    let sent = std::sync::Arc::new(sent);
    let running = small()
        .start(move || {
            let (address_tx, sent) = (address_tx.lock().unwrap().clone(), std::sync::Arc::clone(&sent));
            async move {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                address_tx.send(listener.local_addr()).expect("the test waits");
                let ignored = listener.accept().await?;
                let all_is_there = move || sent.lock().unwrap().recv().expect("the test sends");
                annulus::spawn_blocking(all_is_there).await.expect("no panic");
                let mut got = 0;
                let mut check = |chunk: &[u8]| {
                    let as_sent = chunk.iter().enumerate().all(|(i, b)| *b == byte(got + i));
                    assert!(as_sent, "{} bytes from {got} on are not what was sent", chunk.len());
                    got += chunk.len();
                    got
                };
                // Kept, or its buffer would serve the other.
                let first = ignored.recv().await?.expect("bytes");
                check(&first);
                echo(listener, 1).await?;
                drop(first);
                let now = annulus::cores::counters();
                assert!(now.recv_spilt > 0, "there were buffers for both: the test shows nothing: {now}");
                while let Some(chunk) = ignored.recv().await? {
                    check(&chunk);
                }
                assert_eq!(check(&[]), LEN);
                annulus::Ok(())
            }
        })
        .unwrap();
    let address = address.recv().unwrap();
    let mut pushy = Std::connect(address).unwrap();
    // As much as the sockets take at once, at least several times the buffers.
    pushy.set_nonblocking(true).unwrap();
    let content: Vec<u8> = (0..LEN).map(byte).collect();
    let mut at = 0;
    while let Ok(n) = pushy.write(&content[at..]) {
        at += n;
        if at == LEN {
            break;
        }
    }
    assert!(at >= 256 << 10, "the sockets took {at} bytes only");
    pushy.set_nonblocking(false).unwrap();
    sent_tx.send(()).unwrap();
    let mut client = Std::connect(address).unwrap();
    client.write_all(&[9; 1000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    client.read_to_end(&mut back).unwrap();
    assert_eq!(back, [9; 1000]);
    pushy.write_all(&content[at..]).unwrap();
    drop(pushy);
    running.wait().unwrap();
}

/// Four times as many streams as buffers, all pressing: each gets its share, or the slowest would never have
/// enough.
///
/// Seen to fail: with `dispatch` taking the newest first it never ends; and before a served stream had to
/// queue behind those that wait, it took a minute.
#[test]
fn streams_that_press_all_the_time_take_turns() {
    const STREAMS: usize = 64;
    const ENOUGH: usize = 1 << 20;
    let (address_tx, address) = std::sync::mpsc::channel::<SocketAddr>();
    let address_tx = std::sync::Mutex::new(address_tx);
    let running = small()
        .start(move || {
            let address_tx = address_tx.lock().unwrap().clone();
            async move {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                address_tx.send(listener.local_addr()).expect("the test waits");
                let waiting = Rc::new(Cell::new(STREAMS));
                let mut tasks = Vec::new();
                for _ in 0..STREAMS {
                    let (stream, waiting) = (listener.accept().await?, Rc::clone(&waiting));
                    tasks.push(spawn(async move {
                        let mut got = 0;
                        // On and on, until the last has enough too.
                        while waiting.get() > 0 {
                            let chunk = stream.recv().await?.expect("bytes without end");
                            if got < ENOUGH && got + chunk.len() >= ENOUGH {
                                waiting.set(waiting.get() - 1);
                            }
                            got += chunk.len();
                        }
                        annulus::Ok(())
                    }));
                }
                for task in tasks {
                    task.await.expect("no panic")?;
                }
                annulus::Ok(())
            }
        })
        .unwrap();
    let address = address.recv().unwrap();
    let mut all: Vec<_> = (0..STREAMS).map(|_| Std::connect(address).unwrap()).collect();
    thread::scope(|scope| {
        for client in &mut all {
            scope.spawn(move || while client.write_all(&[0; 1 << 16]).is_ok() {});
        }
        running.wait().unwrap();
    });
}

/// 256 buffers, used one at a time: the ring comes to hold 64. Then 200 streams get something in the same
/// moment, and keep it.
///
/// Seen to fail: with the depth never lowered 256 stay in the ring, and with nothing taken from the stack it
/// never ends.
#[test]
fn a_small_load_goes_round_few_buffers_and_a_burst_finds_the_others() {
    let ready = || annulus::cores::counters().recv_buffers_ready;
    on_one_core_of(Runtime::builder().pool_bytes(4 << 20).pool_limit(4 << 20), move || async move {
        let (near, far) = UnixStream::pair()?;
        let mut message = vec![7; 100];
        let mut most = 0;
        for _ in 0..3000 {
            message = near.send_all(message).await?;
            assert_eq!(far.recv().await?.expect("open").len(), 100);
            most = most.max(ready());
        }
        assert!(most >= 255, "{most} buffers: the test shows nothing");
        assert!(ready() <= 64, "{} for one at a time", ready());

        let (mut writers, mut readers) = (Vec::new(), Vec::new());
        for _ in 0..200 {
            let (writer, reader) = std::os::unix::net::UnixStream::pair().unwrap();
            let reader = UnixStream::from_std(reader)?;
            readers.push(spawn(async move { reader.recv().await }));
            writers.push(writer);
        }
        while annulus::cores::counters().operations < 200 {
            annulus::yield_now().await;
        }
        for (writer, i) in writers.iter_mut().zip(0u8..) {
            writer.write_all(&[i; 100]).unwrap();
        }
        let mut kept = Vec::new();
        for (reader, i) in readers.into_iter().zip(0u8..) {
            kept.push(reader.await.expect("no panic")?.expect("open"));
            assert_eq!(*kept[usize::from(i)], [i; 100]);
        }
        Ok(())
    });
}

/// When the ring holds few buffers, streams with more than that come in one moment.
///
/// Seen to fail: with nothing taken from the stack it never ends.
#[test]
fn a_ring_that_was_found_empty_is_filled_from_the_stack() {
    const LEN: usize = 96 << 10;
    let counters = annulus::cores::counters;
    on_one_core_of(Runtime::builder().pool_bytes(8 << 20).pool_limit(8 << 20), move || async move {
        let (near, far) = UnixStream::pair()?;
        let mut message = vec![7; 100];
        for _ in 0..4000 {
            message = near.send_all(message).await?;
            assert_eq!(far.recv().await?.expect("open").len(), 100);
        }
        assert_eq!((counters().recv_buffers_ready, counters().recv_ring_empty), (64, 0));

        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (mut clients, mut streams) = (Vec::new(), Vec::new());
        for _ in 0..12 {
            clients.push(Std::connect(listener.local_addr()).unwrap());
            streams.push(listener.accept().await?);
        }
        let sends = thread::spawn(move || {
            for client in &mut clients {
                client.write_all(&vec![7; LEN]).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            }
        });
        // All of it lies in the sockets before the first receive is armed.
        annulus::spawn_blocking(move || sends.join().unwrap()).await.expect("no panic");
        let readers = streams.into_iter().map(|stream| {
            spawn(async move {
                let mut got = 0;
                while let Some(chunk) = stream.recv().await? {
                    got += chunk.len();
                }
                annulus::Ok(got)
            })
        });
        let readers: Vec<_> = readers.collect();
        for reader in readers {
            assert_eq!(reader.await.expect("no panic")?, LEN);
        }
        assert!(counters().recv_ring_empty > 0, "the ring had enough: the test shows nothing");
        Ok(())
    });
}
