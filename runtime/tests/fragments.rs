//! Receives that come in parts of buffers (`Builder::incremental_buffers`, `Builder::bundles`, and both).
//! Where the kernel cannot, the tests that count buffers say so and the others look at what must hold on
//! every kernel.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream as Std};
use std::sync::mpsc;
use std::thread;

use annulus::buf::Lease;
use annulus::net::{TcpListener, TcpStream, UdpSocket};
use annulus::{Builder, ErrorKind, cores, yield_now};
use common::{listening, on_first_cpu, on_one_core_of, one_cpu};

/// Bytes of a receive buffer.
const BUFFER: usize = 8 << 10;

fn incremental() -> Builder {
    common::small().incremental_buffers(true)
}

/// The least memory that there can be: 16 receive buffers.
fn least() -> Builder {
    incremental().pool_bytes(256 << 10).pool_limit(256 << 10)
}

/// Each way in which a receive may come in parts.
fn ways() -> [Builder; 3] {
    [least(), least().bundles(true), least().incremental_buffers(false).bundles(true)]
}

/// Whether the kernel can. Asked of a runtime of its own.
fn is_in_force() -> bool {
    let builder = least().cores(one_cpu().parse().unwrap());
    let running = builder.build().unwrap().start(|| async { annulus::Ok(()) }).unwrap();
    let in_force = running.report().cores[0].ring.incremental_buffers;
    running.wait().unwrap();
    if !in_force {
        println!("buffers are not counted: this kernel has no IOU_PBUF_RING_INC (Linux 6.12)");
    }
    in_force
}

async fn pair(listener: &TcpListener) -> annulus::Result<(TcpStream, Std)> {
    let client = Std::connect(listener.local_addr()).unwrap();
    client.set_nodelay(true).unwrap();
    Ok((listener.accept().await?, client))
}

/// The buffers that are out, as of now.
async fn buffers_out() -> u64 {
    // The counter is of the end of a tick.
    annulus::time::sleep(std::time::Duration::from_millis(1)).await;
    cores::counters().recv_buffers_out
}

/// The message of so many bytes that a stream gets in a round.
fn message(stream: usize, round: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (stream * 31 + round * 7 + i) as u8).collect()
}

#[test]
fn many_messages_share_a_buffer_and_keep_it_until_the_last_is_gone() {
    if !is_in_force() {
        return;
    }
    on_one_core_of(least(), || async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut pairs = Vec::new();
        for _ in 0..10 {
            pairs.push(pair(&listener).await?);
        }
        // 819 messages of 10 bytes lie in one buffer, of which two bytes are left.
        let mut leases = Vec::new();
        for n in 0..BUFFER / 10 {
            let (stream, client) = &mut pairs[n % 10];
            client.write_all(&message(n % 10, n / 10, 10)).unwrap();
            leases.push(stream.recv().await?.expect("ten bytes"));
        }
        for (n, lease) in leases.iter().enumerate() {
            assert_eq!(**lease, message(n % 10, n / 10, 10));
            let before = leases[0].as_ptr().addr();
            assert_eq!(lease.as_ptr().addr() - before, n * 10, "not behind the one before");
        }
        assert_eq!(buffers_out().await, 0, "the kernel goes on in the first");
        let (stream, client) = &mut pairs[0];
        client.write_all(b"12345").unwrap();
        let (end, begin) = (stream.recv().await?.expect("two"), stream.recv().await?.expect("three"));
        assert_eq!((&*end, &*begin), (&b"12"[..], &b"345"[..]));
        assert_eq!(buffers_out().await, 1, "the first is full, and the kernel is in the second");
        // Dropped in any order, here and elsewhere: the last one gives it back.
        let last = leases.remove(400);
        let elsewhere = leases.split_off(300);
        thread::spawn(move || drop(elsewhere)).join().unwrap();
        leases.drain(..).rev().for_each(drop);
        drop(end);
        assert_eq!(buffers_out().await, 1, "a lease on it is left");
        assert_eq!(*last, message(400 % 10, 40, 10));
        thread::spawn(move || drop(last)).join().unwrap();
        assert_eq!(buffers_out().await, 0, "it did not come back");
        Ok(())
    });
}

/// All that there is goes round many times: a buffer that is given to the kernel too early is written over,
/// one that is not given back is missing in the end.
#[test]
fn leases_dropped_in_any_order_on_any_thread_lose_no_byte_and_no_buffer() {
    let rounds = common::bulk(3_000);
    for way in ways() {
        on_one_core_of(way, move || async move {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let mut pairs = Vec::new();
            for _ in 0..7 {
                pairs.push(pair(&listener).await?);
            }
            let (tx, rx) = mpsc::channel::<(Lease, Vec<u8>)>();
            let elsewhere = thread::spawn(move || {
                let mut kept = Vec::new();
                for (n, next) in rx.into_iter().enumerate() {
                    kept.push(next);
                    // Some stay for long, in no order.
                    while kept.len() > 3 {
                        let (lease, expected) = kept.swap_remove(n * 7 % kept.len());
                        assert_eq!(*lease, *expected);
                    }
                }
            });
            let mut kept: Vec<(Lease, Vec<u8>)> = Vec::new();
            for round in 0..rounds {
                let at = round * 5 % 7;
                let (stream, client) = &mut pairs[at];
                let sent = message(at, round, 1 + round * 37 % 1500);
                client.write_all(&sent).unwrap();
                let mut got = 0;
                while got < sent.len() {
                    let lease = stream.recv().await?.expect("what was sent");
                    let expected = sent[got..got + lease.len()].to_vec();
                    got += lease.len();
                    assert_eq!(*lease, *expected);
                    if round % 3 == 0 {
                        tx.send((lease, expected)).expect("it collects");
                    } else {
                        kept.push((lease, expected));
                    }
                }
                while kept.len() > 4 {
                    let (mut lease, expected) = kept.swap_remove(round * 3 % kept.len());
                    let first = lease.split_to(lease.len() / 2);
                    drop(if round % 2 == 0 { (first.len(), lease) } else { (lease.len(), first) });
                    drop(expected);
                }
                for (lease, expected) in &kept {
                    assert_eq!(**lease, **expected, "written over");
                }
            }
            kept.clear();
            drop(tx);
            elsewhere.join().unwrap();
            assert_eq!(buffers_out().await, 0);
            Ok(())
        });
    }
}

/// In each round every client sends before any of them reads.
#[test]
fn a_thousand_connections_on_sixteen_buffers() {
    for (way, bundled) in ways().into_iter().zip([false, true, true]) {
        a_thousand_connections(way, bundled);
    }
}

fn a_thousand_connections(way: Builder, bundled: bool) {
    let clients = common::connections(common::bulk(1_000));
    let runtime = on_first_cpu(way).build().unwrap();
    let (running, address) = listening(runtime, move |listener| async move {
        let ignored = listener.accept().await?;
        assert!(ignored.recv().await?.is_some(), "armed, and never read again");
        // A bundled receive that took all the buffers has ended by itself.
        while !bundled && cores::counters().recv_held_back == 0 {
            yield_now().await;
        }
        common::echo(listener, clients).await?;
        drop(ignored);
        // Sockets that ended have given back what they had.
        while cores::counters().recv_buffers_out > 0 {
            yield_now().await;
        }
        Ok(())
    });
    let mut pushy = Std::connect(address).unwrap();
    let pusher = thread::spawn(move || while pushy.write_all(&[0; 1 << 16]).is_ok() {});
    let mut all: Vec<_> = (0..clients).map(|_| Std::connect(address).unwrap()).collect();
    for round in 0..5 {
        for (i, client) in all.iter_mut().enumerate() {
            client.write_all(&message(i, round, 700)).unwrap();
        }
        for (i, client) in all.iter_mut().enumerate() {
            let mut back = [0; 700];
            client.read_exact(&mut back).unwrap();
            assert_eq!(back[..], message(i, round, 700));
        }
    }
    drop(all);
    running.wait().unwrap();
    pusher.join().unwrap();
}

/// Whether or not a kernel names a buffer at the end of a stream, it has not passed that buffer.
#[test]
fn ends_of_streams_use_no_buffer_up() {
    for way in ways() {
        on_one_core_of(way, || async {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let mut kept = Vec::new();
            for round in 0..100 {
                let (stream, mut client) = pair(&listener).await?;
                client.write_all(&message(1, round, 100)).unwrap();
                let lease = stream.recv().await?.expect("bytes");
                client.shutdown(Shutdown::Write).unwrap();
                if lease.len() < 100 {
                    let rest = stream.recv().await?.expect("the rest, in the next buffer");
                    assert_eq!([&*lease, &*rest].concat(), message(1, round, 100));
                }
                assert!(stream.recv().await?.is_none());
                // And some that send nothing at all.
                let (stream, client) = pair(&listener).await?;
                drop(client);
                assert!(stream.recv().await?.is_none());
                if lease.len() == 100 && kept.len() < 12 {
                    kept.push((round, lease));
                }
            }
            for (round, lease) in &kept {
                assert_eq!(**lease, message(1, *round, 100), "written over");
            }
            kept.clear();
            assert_eq!(buffers_out().await, 0);
            Ok(())
        });
    }
}

/// A stream dropped before its receive was armed, while it is, with chunks that were not taken, with leases
/// out, and while a cancel is on its way. Others go on in the buffers meanwhile.
#[test]
fn a_stream_may_be_dropped_at_every_stage() {
    for way in ways() {
        on_one_core_of(way, || async {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let (steady, mut steady_client) = pair(&listener).await?;
            let mut kept = Vec::new();
            for round in 0..common::bulk(200) {
                steady_client.write_all(&message(0, round, 333)).unwrap();
                let (stream, mut client) = pair(&listener).await?;
                let stage = round % 6;
                if stage > 0 {
                    // Armed, with nothing there.
                    let nothing =
                        annulus::time::timeout(std::time::Duration::from_micros(1), stream.recv()).await;
                    assert!(nothing.is_err());
                }
                if stage > 1 {
                    client.write_all(&message(1, round, 10_000)).unwrap();
                }
                if stage > 2 {
                    let lease = stream.recv().await?.expect("bytes");
                    assert_eq!(*lease, message(1, round, 10_000)[..lease.len()]);
                    if stage > 3 {
                        kept.push((round, lease));
                    }
                }
                if stage > 4 {
                    // More has come than is taken: held back, and a cancel is on its way.
                    yield_now().await;
                }
                drop(stream);
                let mut got = Vec::new();
                while got.len() < 333 {
                    got.extend_from_slice(&steady.recv().await?.expect("bytes"));
                }
                assert_eq!(got, message(0, round, 333));
                if kept.len() > 4 {
                    let (round, lease) = kept.swap_remove(round % 4);
                    assert_eq!(*lease, message(1, round, 10_000)[..lease.len()], "written over");
                }
            }
            kept.clear();
            while cores::counters().recv_buffers_out > 0 {
                yield_now().await;
            }
            Ok(())
        });
    }
}

#[test]
fn quiesce_hands_over_exactly_what_came() {
    for way in ways() {
        on_one_core_of(way, || async {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            for round in 0..50 {
                let (stream, mut client) = pair(&listener).await?;
                let (other, mut other_client) = pair(&listener).await?;
                let sent = message(2, round, 3_000);
                let writer = thread::spawn(move || {
                    for part in sent.chunks(100) {
                        client.write_all(part).unwrap();
                        other_client.write_all(part).unwrap();
                    }
                    client
                });
                let mut got = stream.recv().await?.expect("bytes").to_vec();
                drop(other.recv().await?);
                let (fd, chunks) = stream.into_owned_fd().await?;
                chunks.iter().for_each(|chunk| got.extend_from_slice(chunk));
                let client = writer.join().unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                let mut rest = Vec::new();
                let mut plain = Std::from(fd);
                plain.set_nonblocking(false).unwrap();
                plain.read_to_end(&mut rest).unwrap();
                got.extend_from_slice(&rest);
                assert_eq!(got, message(2, round, 3_000));
            }
            Ok(())
        });
    }
}

/// The kernel is in the middle of a buffer when the core ends, a stream is forgotten with chunks in others,
/// and leases are out.
#[test]
fn leases_outlive_a_core_that_ends_in_the_middle_of_a_buffer() {
    for way in ways() {
        // Where nothing is shared each lease takes a buffer.
        outlive(way.pool_bytes(4 << 20).pool_limit(4 << 20));
    }
}

fn outlive(way: Builder) {
    let leases = on_one_core_of(way, || async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut leases = Vec::new();
        let (stream, mut client) = pair(&listener).await?;
        for round in 0..100 {
            client.write_all(&message(3, round, 100)).unwrap();
            let mut lease = stream.recv().await?.expect("bytes");
            while lease.len() < 100 {
                // Cut in two where a buffer ends: looked at elsewhere.
                drop(stream.recv().await?);
                client.write_all(&message(3, round, 100)).unwrap();
                lease = stream.recv().await?.expect("bytes");
            }
            leases.push(lease);
        }
        let (forgotten, mut its_client) = pair(&listener).await?;
        drop(annulus::time::timeout(std::time::Duration::from_micros(1), forgotten.recv()).await);
        its_client.write_all(&[0; 20_000]).unwrap();
        yield_now().await;
        std::mem::forget(forgotten);
        Ok(leases)
    });
    let (mut even, mut odd) = (Vec::new(), Vec::new());
    for (round, lease) in leases.into_iter().enumerate() {
        assert_eq!(*lease, message(3, round, 100), "after the end of its core");
        if round % 2 == 0 { even.push(lease) } else { odd.push(lease) }
    }
    let other = thread::spawn(move || drop(even));
    odd.into_iter().rev().for_each(drop);
    other.join().unwrap();
}

#[test]
fn datagrams_are_refused_on_every_kernel() {
    for builder in [incremental(), common::small().bundles(true)] {
        on_one_core_of(builder, || async {
            let refused = [
                UdpSocket::bind("127.0.0.1:0").err(),
                UdpSocket::from_std(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).err(),
            ];
            for error in refused {
                let error = error.expect("its datagrams would be cut off");
                assert_eq!(error.kind(), ErrorKind::Input);
                assert!(error.to_string().contains("incremental_buffers"), "{error}");
            }
            Ok(())
        });
    }
}
