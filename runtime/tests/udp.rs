//! Datagrams: whence they come, what is cut off, dropped or held back, and who of a group gets them.

mod common;

use std::net::{SocketAddr, UdpSocket as Std};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use annulus::ErrorKind;
use annulus::net::{Datagrams, UdpSocket};
use annulus::time::timeout;
use common::{on_cores, on_one_core};

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A socket of the runtime, and one of the standard library that is connected to it.
fn pair() -> annulus::Result<(UdpSocket, Std)> {
    let ours = UdpSocket::bind(any())?;
    let theirs = Std::bind(any()).unwrap();
    theirs.connect(ours.local_addr()?).unwrap();
    Ok((ours, theirs))
}

#[test]
fn datagrams_come_whole_with_their_source_and_answers_find_it() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        on_one_core(move || async move {
            // A machine may have no IPv6.
            let Ok(theirs) = Std::bind(address) else { return Ok(()) };
            let ours = UdpSocket::bind(address)?;
            theirs.connect(ours.local_addr()?).unwrap();
            for datagram in [&b"one"[..], b"", b"three", &[7; 8000]] {
                theirs.send(datagram).unwrap();
                let came = ours.recv().await?;
                assert_eq!((&*came, came.source()), (datagram, theirs.local_addr().unwrap()));
                assert!(!came.is_truncated() && came.full_len() == datagram.len());
                let source = came.source();
                // From where it lies.
                ours.send_to(came.into_lease(), source).await?;
                let mut got = [0; 9000];
                let n = theirs.recv(&mut got).unwrap();
                assert_eq!(&got[..n], datagram);
            }
            Ok(())
        });
    }
}

/// Seen to fail: without `MSG_TRUNC` the kernel tells only what fitted.
#[test]
fn what_does_not_fit_is_cut_off_and_said_to_be() {
    on_one_core(|| async {
        let (ours, theirs) = pair()?;
        theirs.send(&[9; 20_000]).unwrap();
        let came = ours.recv().await?;
        assert!(came.is_truncated());
        assert_eq!(came.full_len(), 20_000);
        assert!(came.len() > 8000 && came.iter().all(|&byte| byte == 9));
        theirs.send(b"next").unwrap();
        assert_eq!(&*ours.recv().await?, b"next");
        Ok(())
    });
}

/// Seen to fail, by waiting for ever: with a wait between taking a datagram and giving it.
#[test]
fn a_deadline_around_every_recv_loses_no_datagram() {
    on_one_core(|| async {
        let (ours, theirs) = pair()?;
        let (acknowledge, may_go_on) = std::sync::mpsc::sync_channel(64);
        let sender = thread::spawn(move || {
            for number in 0..20_000u32 {
                theirs.send(&number.to_le_bytes()).unwrap();
                // The kernel's queue must not overflow: that would be a loss of another kind.
                if number % 32 == 0 {
                    may_go_on.recv().unwrap();
                }
            }
        });
        let (mut next, mut late) = (0u32, 0);
        while next < 20_000 {
            match timeout(Duration::from_micros(2), ours.recv()).await {
                Err(annulus::time::Elapsed) => late += 1,
                Ok(came) => {
                    assert_eq!(came?[..], next.to_le_bytes());
                    if next.is_multiple_of(32) {
                        acknowledge.send(()).unwrap();
                    }
                    next += 1;
                }
            }
        }
        assert!(late > 0, "no deadline ever passed: the test shows nothing");
        assert_eq!(ours.dropped()?, 0);
        sender.join().unwrap();
        Ok(())
    });
}

/// Seen to fail: with `hold_back` doing nothing, the receive is never switched off.
#[test]
fn what_nobody_takes_stays_with_the_kernel_which_counts_what_it_drops() {
    on_one_core(|| async {
        let (ours, theirs) = pair()?;
        ours.set_recv_buffer_size(16 << 10)?;
        theirs.send(b"arms the receive").unwrap();
        ours.recv().await?;
        let before = annulus::cores::counters();
        for _ in 0..2000 {
            theirs.send(&[1; 1000]).unwrap();
        }
        // Turns, so that the ring takes what it will.
        let is_off = || annulus::cores::counters().recv_held_back > before.recv_held_back;
        for _ in 0..2000 {
            annulus::time::sleep(Duration::from_millis(5)).await;
            if is_off() {
                break;
            }
        }
        assert!(is_off(), "never switched off");
        let dropped = ours.dropped()?;
        assert!(dropped > 0);
        // Another stream of the core is none the worse.
        let (other, peer) = pair()?;
        peer.send(b"through").unwrap();
        assert_eq!(&*other.recv().await?, b"through");
        // The rest comes, every one.
        for _ in ours.dropped()?..2000 {
            assert_eq!(ours.recv().await?.len(), 1000);
        }
        assert_eq!(ours.dropped()?, dropped);
        theirs.send(b"again").unwrap();
        assert_eq!(&*ours.recv().await?, b"again");
        Ok(())
    });
}

/// Seen to fail, by waiting for ever: with a socket that found no buffer not put in the queue for one.
#[test]
fn a_core_without_buffers_gets_its_datagrams_when_some_come_back() {
    on_one_core(|| async {
        let (ours, theirs) = pair()?;
        let mut held = Vec::new();
        // Until the core has none left, and a reader that waits has been told so: what came is kept.
        while annulus::cores::counters().recv_starved < 2 {
            theirs.send(b"kept").unwrap();
            if let Ok(came) = timeout(Duration::from_millis(1), ours.recv()).await {
                held.push(came?);
            }
        }
        assert!(held.len() > 16, "{} buffers", held.len());
        theirs.send(b"one more").unwrap();
        drop(held.split_off(held.len() / 2));
        // Those that had come before and found no buffer, and this.
        while &*ours.recv().await? != b"one more" {}
        assert_eq!(ours.dropped()?, 0);
        Ok(())
    });
}

/// Seen to fail: with `ECONNREFUSED` passed over it waits for ever; with the end of receiving kept it is told
/// twice.
#[test]
fn a_connected_socket_hears_its_peer_only_and_learns_that_nobody_is_there() {
    on_one_core(|| async {
        let (ours, theirs) = pair()?;
        let stranger = Std::bind(any()).unwrap();
        let address = ours.local_addr()?;
        assert!(ours.peer_addr().is_err());
        ours.connect(theirs.local_addr().unwrap())?;
        assert_eq!(ours.peer_addr()?, theirs.local_addr().unwrap());
        stranger.send_to(b"unheard", address).unwrap();
        theirs.send(b"heard").unwrap();
        assert_eq!(&*ours.recv().await?, b"heard");
        ours.send("answer").await?;
        let mut got = [0; 10];
        assert_eq!(theirs.recv(&mut got).unwrap(), 6);
        // Its port is closed: the next datagram comes back as an error, once.
        drop(theirs);
        ours.send("to nobody").await?;
        let refused = ours.recv().await.expect_err("nobody is there");
        assert_eq!(refused.io_error().and_then(std::io::Error::raw_os_error), Some(libc::ECONNREFUSED));
        assert!(timeout(Duration::from_millis(5), ours.recv()).await.is_err(), "told twice");
        Ok(())
    });
}

/// Seen to fail: with sockets that have `SO_BROADCAST` from the beginning.
#[test]
fn errors_of_sending_give_the_buffer_back() {
    on_one_core(|| async {
        let (ours, theirs) = pair()?;
        let to = theirs.local_addr().unwrap();
        let errno = |e: &annulus::Error| e.io_error().and_then(std::io::Error::raw_os_error);
        let long = ours.send_to(vec![0; 70_000], to).await.expect_err("too long");
        assert_eq!((errno(&long.error), long.buf.len()), (Some(libc::EMSGSIZE), 70_000));
        let lost = ours.send("where to?").await.expect_err("not connected");
        assert_eq!(errno(&lost.error), Some(libc::EDESTADDRREQ));
        let broad: SocketAddr = "127.255.255.255:9".parse().unwrap();
        let refused = ours.send_to("all", broad).await.expect_err("not allowed yet");
        assert_eq!(errno(&refused.error), Some(libc::EACCES));
        ours.set_broadcast(true)?;
        ours.send_to("all", broad).await?;
        Ok(())
    });
}

/// Seen to fail: with `SO_REUSEPORT` set before the first is bound, another runtime gets the port.
#[test]
fn a_used_port_is_refused_and_a_port_is_free_again_at_once() {
    on_one_core(|| async {
        let theirs = Std::bind(any()).unwrap();
        let refused = UdpSocket::bind(theirs.local_addr().unwrap()).expect_err("taken");
        assert_eq!(refused.kind(), ErrorKind::Input);
        let ours = UdpSocket::bind(any())?;
        let address = ours.local_addr()?;
        assert!(Std::bind(address).is_err(), "a port of ours was given away");
        let other =
            thread::spawn(move || on_one_core(move || async move { Ok(UdpSocket::bind(address).map(drop)) }));
        assert_eq!(other.join().unwrap().expect_err("another runtime").kind(), ErrorKind::Input);
        let free = Std::bind(any()).unwrap().local_addr().unwrap();
        let mut ours = Some(UdpSocket::bind(free)?);
        for _ in 0..3 {
            // Arms the receive, which keeps the socket open for a tick after it was dropped.
            assert!(timeout(Duration::from_millis(1), ours.take().unwrap().recv()).await.is_err());
            ours = Some(UdpSocket::bind(free)?);
        }
        Ok(())
    });
}

#[test]
fn sockets_from_elsewhere_are_taken_if_they_are_of_the_right_kind() {
    on_one_core(|| async {
        let std = Std::bind(any()).unwrap();
        let address = std.local_addr().unwrap();
        let ours = UdpSocket::from_std(std)?;
        Std::bind(any()).unwrap().send_to(b"hello", address).unwrap();
        assert_eq!(&*ours.recv().await?, b"hello");
        let wrong = std::net::TcpListener::bind(any()).unwrap();
        let wrong = UdpSocket::from_owned_fd(wrong.into()).expect_err("TCP");
        assert_eq!(wrong.kind(), ErrorKind::Input);
        assert!(wrong.to_string().contains("UdpSocket"), "{wrong}");
        Ok(())
    });
}

/// The kernel spreads by a hash of both ends: with 64 clients, that one core of two gets none has a chance of
/// 2^-63. Seen to fail: without `SO_REUSEPORT` on the second.
#[test]
fn cores_have_one_port_and_the_kernel_spreads_datagrams_over_them() {
    let cpus = annulus::numa::thread::affinity_of_current().unwrap();
    let cores = cpus.len();
    let (tx, rx) = std::sync::mpsc::channel::<SocketAddr>();
    let clients = thread::spawn(move || {
        let bound: Vec<_> = rx.iter().take(cores).collect();
        assert!(bound.iter().all(|address| *address == bound[0]), "{bound:?}");
        for n in 0..64u8 {
            let client = Std::bind(any()).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            client.send_to(&[n], bound[0]).unwrap();
            let mut back = [0; 2];
            assert_eq!((client.recv(&mut back).unwrap(), back[0]), (1, n));
        }
    });
    let total = Arc::new(AtomicU32::new(0));
    let served = on_cores(&cpus.to_string(), (tx, total), |(tx, total)| {
        let (tx, total) = (tx.clone(), Arc::clone(total));
        async move {
            let socket = UdpSocket::bind(any())?;
            tx.send(socket.local_addr()?).unwrap();
            let mut served = 0;
            while total.load(Ordering::Relaxed) < 64 {
                let Ok(datagram) = timeout(Duration::from_millis(10), socket.recv()).await else { continue };
                let datagram = datagram?;
                let source = datagram.source();
                socket.send_to(datagram.into_lease(), source).await?;
                served += 1;
                total.fetch_add(1, Ordering::Relaxed);
            }
            Ok(served)
        }
    });
    clients.join().unwrap();
    assert_eq!(served.iter().sum::<u32>(), 64);
    assert!(served.iter().all(|&n| n > 0), "{served:?}");
}

/// Every datagram that `socket` has or gets, until there are `count`: whence and what; and how many receives
/// that took.
async fn many(socket: &UdpSocket, count: usize) -> annulus::Result<(Vec<(SocketAddr, Vec<u8>)>, usize)> {
    let mut batch = Datagrams::new(4);
    let (mut all, mut receives) = (Vec::new(), 0);
    while all.len() < count {
        socket.readable().await?;
        receives += socket.recv_many_now(&mut batch)?;
        for (source, run) in batch.by_source() {
            all.extend(run.map(|datagram| (source, datagram.to_vec())));
        }
    }
    Ok((all, receives))
}

/// Seen to fail: with groups of datagrams of two lengths; without the segment's length in what is received.
#[test]
fn many_datagrams_go_together_and_come_apart_in_order() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        on_one_core(move || async move {
            let (a, b) = (UdpSocket::bind(address)?, UdpSocket::bind(address)?);
            let (from, to) = (a.local_addr()?, b.local_addr()?);
            let coalesces = b.set_coalescing(true).is_ok();
            let lengths = [1200; 30].into_iter().chain([700, 1200, 0, 0, 5, 5, 20_000, 65_000, 3]);
            let sent: Vec<Vec<u8>> = lengths.enumerate().map(|(i, len)| vec![i as u8; len]).collect();
            let outcome = a.send_many_now(Some(to), sent.iter().map(Vec::as_slice));
            assert!(outcome.error.is_none(), "{outcome:?}");
            let bytes: usize = sent.iter().map(Vec::len).sum();
            assert_eq!((outcome.count, outcome.bytes), (sent.len(), bytes as u64));
            let (got, receives) = many(&b, sent.len()).await?;
            assert!(got.iter().all(|(source, _)| *source == from));
            let got: Vec<_> = got.into_iter().map(|(_, datagram)| datagram).collect();
            assert!(got == sent, "the same ones in the same order");
            assert!(!coalesces || receives < sent.len(), "{receives} receives for {}", sent.len());
            // Nothing more is there.
            assert_eq!(b.recv_many_now(&mut Datagrams::new(1))?, 0);
            Ok(())
        });
    }
}

#[test]
fn what_is_sent_together_to_nobody_says_so() {
    on_one_core(|| async {
        let nobody = Std::bind(any()).unwrap().local_addr().unwrap();
        let socket = UdpSocket::bind(any())?;
        socket.connect(nobody)?;
        let one = || socket.send_many_now(None, [&b"?"[..]]);
        assert_eq!(one().count, 1);
        socket.readable().await?;
        let refused = one();
        assert_eq!(refused.error.and_then(|e| e.raw_os_error()), Some(libc::ECONNREFUSED));
        Ok(())
    });
}
