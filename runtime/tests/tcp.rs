//! Streams and listeners, against clients on plain threads.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream as Std};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use annulus::net::{TcpListener, TcpStream};
use common::{bulk, on_one_core};

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Bytes that tell a lost or swapped one: every position has its own value, modulo a prime.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

#[test]
fn echoes_what_came_and_ends_with_the_client() {
    on_one_core(|| async {
        let listener = TcpListener::bind(any())?;
        let address = listener.local_addr();
        let client = thread::spawn(move || {
            let mut client = Std::connect(address).unwrap();
            let sent = pattern(300_000);
            let mut back = client.try_clone().unwrap();
            let expected = sent.len();
            let reader = thread::spawn(move || {
                let mut got = vec![0; expected];
                back.read_exact(&mut got).unwrap();
                got
            });
            client.write_all(&sent).unwrap();
            assert_eq!(reader.join().unwrap(), sent);
            client.shutdown(Shutdown::Write).unwrap();
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).unwrap();
            assert!(rest.is_empty());
        });
        let stream = listener.accept().await?;
        while let Some(chunk) = stream.recv().await? {
            stream.send_all(chunk).await?;
        }
        Ok(client)
    })
    .join()
    .unwrap();
}

/// Seen to fail: with what comes while nobody waits given back instead of kept.
#[test]
fn a_deadline_around_every_recv_loses_no_byte() {
    let len = bulk(100 << 20);
    on_one_core(move || async move {
        let listener = TcpListener::bind(any())?;
        let address = listener.local_addr();
        let client = thread::spawn(move || Std::connect(address).unwrap().write_all(&pattern(len)).unwrap());
        let stream = listener.accept().await?;
        let cycle = pattern(251 + (64 << 10));
        let (mut at, mut late) = (0usize, 0u32);
        loop {
            match annulus::time::timeout(Duration::from_micros(5), stream.recv()).await {
                Err(annulus::time::Elapsed) => late += 1,
                Ok(chunk) => match chunk? {
                    None => break,
                    Some(chunk) => {
                        let expected = &cycle[at % 251..][..chunk.len()];
                        assert!(*chunk == *expected, "within {} bytes at {at}", chunk.len());
                        at += chunk.len();
                    }
                },
            }
        }
        assert_eq!(at, len);
        assert!(late > 0, "no deadline ever passed: the test shows nothing");
        client.join().unwrap();
        Ok(())
    });
}

/// Seen to fail, by waiting for ever: with a client that comes while no accept waits closed instead of kept.
#[test]
fn a_deadline_around_accept_loses_no_client() {
    on_one_core(|| async {
        let listener = TcpListener::bind(any())?;
        let address = listener.local_addr();
        let clients = thread::spawn(move || {
            (0..200)
                .map(|i: u32| {
                    let mut client = Std::connect(address).unwrap();
                    client.write_all(&i.to_le_bytes()).unwrap();
                    client
                })
                .collect::<Vec<_>>()
        });
        let mut seen = Vec::new();
        while seen.len() < 200 {
            let Ok(stream) = annulus::time::timeout(Duration::from_micros(20), listener.accept()).await
            else {
                continue;
            };
            let stream = stream?;
            let mut number = Vec::new();
            while number.len() < 4 {
                number.extend_from_slice(&stream.recv().await?.expect("four bytes"));
            }
            seen.push(u32::from_le_bytes(number.try_into().unwrap()));
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
        drop(clients.join().unwrap());
        Ok(())
    });
}

/// Seen to fail, by waiting for ever: with a dropped send leaving the write side free.
#[test]
fn a_dropped_send_poisons_the_write_side_and_reading_goes_on() {
    on_one_core(|| async {
        let listener = TcpListener::bind(any())?;
        let mut client = Std::connect(listener.local_addr()).unwrap();
        let stream = listener.accept().await?;
        // Far more than the socket buffers hold, and nobody reads: the send must wait.
        let sent =
            annulus::time::timeout(Duration::from_millis(20), stream.send_all(vec![1; 64 << 20])).await;
        assert!(sent.is_err(), "64 MiB fitted into socket buffers");
        let refused = stream.send_all("more").await.expect_err("an unknown prefix has left");
        assert_eq!(refused.error.kind(), annulus::ErrorKind::WritePoisoned);
        assert_eq!(refused.buf, "more");
        client.write_all(b"still here").unwrap();
        assert_eq!(&*stream.recv().await?.expect("bytes"), b"still here");
        Ok(())
    });
}

/// Seen to fail: with the chunks that had come dropped by `quiesce`.
#[test]
fn quiesce_hands_over_exactly_what_came() {
    on_one_core(|| async {
        let listener = TcpListener::bind(any())?;
        let mut client = Std::connect(listener.local_addr()).unwrap();
        let stream = listener.accept().await?;
        client.write_all(b"first").unwrap();
        assert_eq!(&*stream.recv().await?.expect("bytes"), b"first");
        client.write_all(b"second").unwrap();
        while annulus::cores::counters().recv_bytes < 11 {
            annulus::time::sleep(Duration::from_millis(1)).await;
        }
        let came = stream.quiesce().await;
        assert_eq!(came.iter().map(|chunk| &**chunk).collect::<Vec<_>>(), [b"second"]);
        assert!(stream.quiesce().await.is_empty());
        client.write_all(b"third").unwrap();
        assert_eq!(&*stream.recv().await?.expect("bytes"), b"third");
        Ok(())
    });
}

/// Seen to fail: with `poll_quiet` ready at once, the receive still armed. (Ready with the cancel asked for
/// and its last CQE not awaited, it was not seen to fail.)
#[test]
fn after_quiesce_the_ring_takes_no_byte() {
    let len = bulk(2 << 20);
    on_one_core(move || async move {
        let listener = TcpListener::bind(any())?;
        let address = listener.local_addr();
        let client = thread::spawn(move || Std::connect(address).unwrap().write_all(&pattern(len)).unwrap());
        let stream = listener.accept().await?;
        let mut direct = Std::from(stream.as_fd().try_clone_to_owned().unwrap());
        let mut got = Vec::new();
        while got.len() < len {
            got.extend_from_slice(&stream.recv().await?.expect("not the end"));
            for chunk in stream.quiesce().await {
                got.extend_from_slice(&chunk);
            }
            // Time for the ring to take what it must not take.
            annulus::time::sleep(Duration::from_millis(1)).await;
            let mut there = [0; 4096];
            match direct.read(&mut there) {
                Ok(n) => got.extend_from_slice(&there[..n]),
                Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock),
            }
        }
        assert!(got == pattern(len), "bytes are missing or out of their order");
        client.join().unwrap();
        Ok(())
    });
}

/// Seen to fail, by waiting for ever: with a stream that nobody reads not switched off.
#[test]
fn a_stream_that_nobody_reads_does_not_take_the_buffers() {
    on_one_core(|| async {
        let listener = TcpListener::bind(any())?;
        let address = listener.local_addr();
        // Armed by a first recv, then never read again while megabytes press.
        let mut pushy = Std::connect(address).unwrap();
        let ignored = listener.accept().await?;
        pushy.write_all(b"x").unwrap();
        assert!(ignored.recv().await?.is_some());
        let pusher = thread::spawn(move || pushy.write_all(&vec![0; 64 << 20]));
        for _ in 0..100 {
            let client = thread::spawn(move || {
                let mut client = Std::connect(address).unwrap();
                client.write_all(&pattern(100_000)).unwrap();
            });
            let stream = listener.accept().await?;
            let mut got = 0;
            while let Some(chunk) = stream.recv().await? {
                got += chunk.len();
            }
            assert_eq!(got, 100_000);
            client.join().unwrap();
        }
        drop(ignored);
        Ok(pusher)
    })
    .join()
    .unwrap()
    .expect_err("the peer of a dropped stream must learn of it");
}

#[test]
fn leases_split_travel_and_outlive_their_runtime() {
    let (whole, tail) = on_one_core(|| async {
        let listener = TcpListener::bind(any())?;
        let mut client = Std::connect(listener.local_addr()).unwrap();
        let stream = listener.accept().await?;
        client.write_all(b"head and tail").unwrap();
        let mut lease = stream.recv().await?.expect("bytes");
        let head = lease.split_to(4);
        assert_eq!((&*head, &*lease), (&b"head"[..], &b" and tail"[..]));
        thread::spawn(move || drop(head)).join().unwrap();
        lease.advance(5);
        client.write_all(b"whole").unwrap();
        let whole = stream.recv().await?.expect("bytes");
        Ok((whole, lease))
    });
    assert_eq!((&*whole, &*tail), (&b"whole"[..], &b"tail"[..]));
}

/// Seen to fail, by waiting for ever: with a core that sleeps without a word to those that hold its buffers.
#[test]
fn buffers_held_elsewhere_come_back_to_a_starving_core() {
    on_one_core(|| async {
        let listener = TcpListener::bind(any())?;
        let address = listener.local_addr();
        let client =
            thread::spawn(move || Std::connect(address).unwrap().write_all(&vec![7; 32 << 20]).unwrap());
        let stream = listener.accept().await?;
        let (tx, rx) = std::sync::mpsc::channel();
        let mut got = 0;
        // All buffers go to another thread, which gives them back only when none is left here.
        let holder = thread::spawn(move || {
            let mut held = Vec::new();
            loop {
                match rx.recv_timeout(Duration::from_millis(30)) {
                    Ok(lease) => held.push(lease),
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => held.clear(),
                    Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        while let Some(chunk) = stream.recv().await? {
            got += chunk.len();
            tx.send(chunk).expect("the holder waits");
        }
        assert_eq!(got, 32 << 20);
        drop(tx);
        holder.join().unwrap();
        client.join().unwrap();
        Ok(())
    });
}

#[test]
fn connect_to_nobody_says_so_and_names_the_address() {
    on_one_core(|| async {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = TcpStream::connect(free).await.expect_err("nobody listens");
        assert_eq!(refused.io_error().and_then(std::io::Error::raw_os_error), Some(111));
        assert!(refused.to_string().contains(&free.to_string()));
        Ok(())
    });
}

/// Seen to fail: with `SO_REUSEPORT` set before the first is bound.
#[test]
fn a_used_port_is_refused_also_when_a_runtime_holds_it() {
    on_one_core(|| async {
        let listener = TcpListener::bind(any())?;
        let address = listener.local_addr();
        let other = thread::spawn(move || {
            on_one_core(move || async move { Ok(TcpListener::bind(address).map(drop)) })
        });
        let refused = other.join().unwrap().expect_err("the port is taken");
        assert_eq!(refused.kind(), annulus::ErrorKind::Input);
        Ok(())
    });
}

/// Seen to fail: with what waits in the backlog not accepted.
#[test]
fn drain_gives_every_client_that_had_connected() {
    on_one_core(|| async {
        let listener = TcpListener::bind(any())?;
        let clients: Vec<_> = (0..50).map(|_| Std::connect(listener.local_addr()).unwrap()).collect();
        let address = listener.local_addr();
        assert_eq!(listener.drain().await.len(), clients.len());
        assert!(Std::connect(address).is_err(), "nobody listens any more");
        Ok(())
    });
}

/// Seen to fail: when the group was left with the listener and not with its socket, the second bind found the
/// port taken; when the old socket was not shut down, it took the client and closed it.
#[test]
fn a_listener_may_be_bound_again_at_once() {
    on_one_core(|| async {
        let free = std::net::TcpListener::bind(any()).unwrap().local_addr().unwrap();
        for _ in 0..3 {
            let listener = TcpListener::bind(free)?;
            // Arms the accept, which keeps the socket open for a tick after the listener has gone.
            assert!(annulus::time::timeout(Duration::from_millis(1), listener.accept()).await.is_err());
            drop(listener);
            // Its clients are the new one's, though the old socket is still open.
            let again = TcpListener::bind(free)?;
            let clients: Vec<_> = (0..16).map(|_| Std::connect(free).unwrap()).collect();
            for _ in &clients {
                again.accept().await?;
            }
        }
        Ok(())
    });
}
