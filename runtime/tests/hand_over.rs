//! Connections that go from core to core, with all that belongs to them.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use annulus::channel::oneshot;
use annulus::cores::{self, submit_to};
use annulus::net::TcpStream;
use annulus::{ErrorKind, time};
use common::{idle_cores, on_one_core, one_cpu, two_cpus, two_idle_cores};

/// A connection of this core and its other end.
async fn pair() -> (TcpStream, StdStream) {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    (stream, listener.accept().unwrap().0)
}

/// Bytes that came before, on the way, and after; the peer's end of stream; and the answer.
#[test]
fn no_byte_is_lost_on_the_way_to_another_core() {
    const BYTES: usize = 3 << 20;
    let Some(running) = two_idle_cores() else { return };
    running
        .handle()
        .submit_to_blocking(0, async || {
            let (stream, mut peer) = pair().await;
            let peer = thread::spawn(move || {
                let sent: Vec<u8> = (0..BYTES).map(|i| (i % 251) as u8).collect();
                peer.write_all(&sent).unwrap();
                peer.shutdown(Shutdown::Write).unwrap();
                let mut answer = String::new();
                peer.read_to_string(&mut answer).unwrap();
                answer
            });
            // Armed, with chunks waiting, one of them taken.
            let mut first = stream.recv().await.unwrap().expect("the peer sends");
            let begun = first.len();
            assert!(first.iter().enumerate().all(|(i, byte)| *byte == (i % 251) as u8));
            first.truncate(0);
            let (done, whole) = oneshot();
            stream
                .hand_over(1, async move |stream| {
                    assert_eq!(cores::index(), 1);
                    let mut at = begun;
                    while let Some(chunk) = stream.recv().await.unwrap() {
                        for byte in chunk.iter() {
                            assert_eq!(*byte, (at % 251) as u8, "at {at}");
                            at += 1;
                        }
                    }
                    stream.send_all(format!("{at} on core {}", cores::index())).await.unwrap();
                    done.send(at).unwrap();
                })
                .await
                .unwrap();
            assert_eq!(whole.await, Ok(BYTES));
            assert_eq!(peer.join().unwrap(), format!("{BYTES} on core 1"));
        })
        .unwrap();
    let counters = running.counters();
    assert!(counters[1].recv_bytes > 0 && counters[0].recv_bytes > 0);
    running.stop();
    running.wait().unwrap();
}

/// Seen to fail: with the end not taken along, the reset becomes an end; with the poison left behind it waits
/// for ever.
#[test]
fn the_end_of_the_stream_and_a_poisoned_write_side_travel() {
    on_one_core(|| async {
        let (stream, peer) = pair().await;
        peer.shutdown(Shutdown::Write).unwrap();
        assert!(stream.recv().await?.is_none());
        // Nobody reads at the other end: the send cannot finish, and is dropped half-way.
        let large = vec![0u8; 64 << 20];
        assert!(time::timeout(Duration::from_millis(20), stream.send_all(large)).await.is_err());
        let stream = stream.detach().await.unwrap().attach();
        assert!(stream.recv().await?.is_none());
        assert_eq!(stream.send_all("x").await.unwrap_err().error.kind(), ErrorKind::WritePoisoned);
        // A reset is told once by the kernel, and then it is an end like any other.
        let (stream, peer) = pair().await;
        rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
        drop(peer);
        stream.recv().await.expect_err("a reset");
        stream.detach().await.unwrap().attach().recv().await.expect_err("known for good");
        Ok(())
    });
}

/// Seen to fail: with what the send was told left behind, the connection seems to have ended, or to be sound.
#[test]
fn a_reset_that_only_a_send_was_told_travels() {
    on_one_core(|| async {
        let errno = |e: annulus::Error| e.io_error().and_then(std::io::Error::raw_os_error);
        let cut_off = async || {
            let (stream, mut peer) = pair().await;
            peer.write_all(b"a part").unwrap();
            // What it has not read when it closes makes a reset of its end.
            stream.send_all("unread").await.unwrap();
            while peer.peek(&mut [0; 8]).unwrap() < 6 {}
            drop(peer);
            let told = stream.send_all("x").await.unwrap_err();
            assert_eq!(errno(told.error), Some(libc::ECONNRESET));
            stream
        };
        let stream = cut_off().await.detach().await.unwrap().attach();
        assert_eq!(&*stream.recv().await?.expect("it came before"), b"a part");
        assert_eq!(errno(stream.recv().await.expect_err("it was cut off")), Some(libc::ECONNRESET));
        let refused = cut_off().await.into_owned_fd().await.expect_err("it has failed");
        assert_eq!(errno(refused), Some(libc::ECONNRESET));
        Ok(())
    });
}

/// Seen to fail, by waiting for ever: with a stream that is quiet before the last word of its receive.
#[test]
fn a_packet_crosses_threads_and_keeps_leases() {
    on_one_core(|| async {
        let (stream, mut peer) = pair().await;
        peer.write_all(b"hello").unwrap();
        let mut chunk = stream.recv().await?.expect("five bytes");
        assert_eq!(&*chunk.split_to(2), b"he");
        drop(chunk);
        peer.write_all(b"world").unwrap();
        // In the socket, in the ring or in a chunk: wherever the bytes are by then, they must arrive.
        for _ in 0..8 {
            annulus::yield_now().await;
        }
        let packed = stream.detach().await.unwrap();
        let packed = thread::spawn(move || packed).join().unwrap();
        let stream = packed.attach();
        let mut got = Vec::new();
        while got.len() < 5 {
            got.extend_from_slice(&stream.recv().await?.expect("five more"));
        }
        assert_eq!(got, b"world");
        peer.write_all(b"!").unwrap();
        assert_eq!(&*stream.recv().await?.expect("one more"), b"!");
        drop(stream.detach().await.unwrap());
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0, "a dropped packet closes the connection");
        Ok(())
    });
}

#[test]
fn a_core_that_does_not_take_it_gives_it_back() {
    let Some(cpus) = two_cpus() else { return };
    // Core 1 ends at once; core 0 goes on.
    let (tell, told) = mpsc::channel();
    let running = annulus::Runtime::builder()
        .cores(cpus.parse().unwrap())
        .pool_bytes(1 << 20)
        .ring_entries(256)
        .build()
        .unwrap()
        .start(move || {
            let tell = tell.clone();
            async move {
                if cores::index() == 0 {
                    tell.send(()).unwrap();
                    cores::stopping().await;
                }
                annulus::Ok(())
            }
        })
        .unwrap();
    told.recv().unwrap();
    running
        .handle()
        .submit_to_blocking(0, async || {
            while submit_to(1, async || ()).await.is_ok() {}
            let (stream, mut peer) = pair().await;
            peer.write_all(b"kept").unwrap();
            let none = Rc::new(stream.hand_over(9, async |_| ()).await.unwrap_err());
            assert_eq!(none.error.kind(), ErrorKind::Input);
            let stream = Rc::into_inner(none).unwrap().connection.expect("it never left");
            let ended = stream.hand_over(1, async |_| unreachable!("core 1 has ended")).await.unwrap_err();
            assert_eq!(ended.error.kind(), ErrorKind::Ended);
            let stream = ended.connection.expect("it was not taken");
            assert_eq!(&*stream.recv().await.unwrap().expect("four bytes"), b"kept");
            stream.send_all("still here").await.unwrap();
            drop(stream);
            // Not on this core: it closes the connection at the end of its tick.
            let (done, answer) = oneshot();
            thread::spawn(move || {
                let mut answer = String::new();
                peer.read_to_string(&mut answer).unwrap();
                done.send(answer).unwrap();
            });
            assert_eq!(answer.await.unwrap(), "still here");
        })
        .unwrap();
    running.stop();
    running.wait().unwrap();
}

#[test]
fn neighbours_are_the_other_cores() {
    let Some(running) = two_idle_cores() else { return };
    let near = running.handle().submit_to_blocking(0, async || cores::neighbours().to_vec()).unwrap();
    assert_eq!(near.len(), 1);
    assert_eq!(near[0].core, 1);
    running.stop();
    running.wait().unwrap();
    let running = idle_cores(&one_cpu());
    let alone = running
        .handle()
        .submit_to_blocking(0, async || (cores::neighbours().is_empty(), cores::least_loaded_neighbour()));
    assert_eq!(alone.unwrap(), (true, None));
    running.stop();
    running.wait().unwrap();
}

/// A core with much to do finds the other, which sleeps.
#[test]
fn a_busy_core_finds_an_idle_neighbour() {
    let Some(running) = two_idle_cores() else { return };
    let found = running.handle().submit_to_blocking(0, async || {
        assert_eq!(cores::least_loaded_neighbour(), None, "this core is not busy");
        let busy: Vec<_> = (0..40)
            .map(|_| {
                annulus::spawn(async {
                    loop {
                        annulus::yield_now().await;
                    }
                })
            })
            .collect();
        let mut found = None;
        while found.is_none() {
            annulus::yield_now().await;
            found = cores::least_loaded_neighbour();
        }
        drop(busy);
        found
    });
    assert_eq!(found.unwrap(), Some(1));
    running.stop();
    running.wait().unwrap();
}
