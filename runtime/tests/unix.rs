//! Unix sockets: paths, abstract names, pairs, peers, and transfers between them and TCP.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream as Std};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener as StdListener, UnixStream as StdUnix};
use std::path::Path;
use std::thread;
use std::time::Duration;

use annulus::ErrorKind;
use annulus::fs::{File, OpenOptions};
use annulus::net::{ListenOptions, TcpListener, TcpStream, UnixListener, UnixStream};
use annulus::transfer::{Road, relay, send_file};
use common::{Scratch, bulk, on_one_core, served_by_each_core};

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// Seen to fail: with the file not unlinked.
#[test]
fn a_path_is_listened_on_echoes_and_is_taken_away() {
    let scratch = Scratch::new("unix-echo");
    let path = scratch.0.join("socket");
    on_one_core(move || async move {
        let listener = UnixListener::bind(&path).await?;
        assert_eq!(listener.local_addr()?.as_pathname(), Some(path.as_path()));
        let client = thread::spawn({
            let path = path.clone();
            move || {
                let mut client = StdUnix::connect(path).unwrap();
                let sent = pattern(300_000);
                let mut back = client.try_clone().unwrap();
                let reader = thread::spawn(move || {
                    let mut got = Vec::new();
                    back.read_to_end(&mut got).unwrap();
                    got
                });
                client.write_all(&sent).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                assert!(reader.join().unwrap() == sent);
            }
        });
        let stream = listener.accept().await?;
        let peer = stream.peer_cred()?;
        assert_eq!(peer.pid as u32, std::process::id());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert!(stream.peer_addr()?.is_unnamed());
        while let Some(chunk) = stream.recv().await? {
            stream.send_all(chunk).await?;
        }
        // The client's thread is waited for on the core, which closes nothing meanwhile.
        stream.shutdown(Shutdown::Write)?;
        client.join().unwrap();
        assert!(path.exists());
        drop(listener);
        assert!(!path.exists(), "the file stays behind");
        Ok(())
    });
}

/// The old listener's descriptor closes with the last word of its accept, ticks later, when another stands on
/// its path. Seen to fail: with the group found by its address, the late close took the new socket and its
/// file away.
#[test]
fn a_path_bound_anew_at_once_outlives_the_end_of_the_old_listener() {
    let scratch = Scratch::new("unix-anew");
    let path = scratch.0.join("socket");
    on_one_core(move || async move {
        let old = UnixListener::bind(&path).await?;
        assert!(annulus::time::timeout(Duration::from_millis(1), old.accept()).await.is_err(), "it is armed");
        drop(old);
        let listener = UnixListener::bind(&path).await?;
        for _ in 0..10 {
            annulus::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(path.exists(), "the file has gone");
        let _client = StdUnix::connect(&path).unwrap();
        drop(listener.accept().await?);
        Ok(())
    });
}

/// Seen to fail: with the listener's descriptor leaked.
#[test]
fn an_abstract_name_is_free_again_when_its_listener_has_gone() {
    on_one_core(|| async {
        let name = format!("annulus-{}", std::process::id());
        let address = UnixAddr::from_abstract_name(name).unwrap();
        for _ in 0..2 {
            let listener = UnixListener::bind_addr(&address, &ListenOptions::new()).await?;
            let refused = StdListener::bind_addr(&address).expect_err("taken");
            assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
            let client = UnixStream::connect_addr(&address).await?;
            let stream = listener.accept().await?;
            client.send_all("hello").await?;
            assert_eq!(&*stream.recv().await?.expect("bytes"), b"hello");
            // Arms the accept, which holds the socket for a tick after the listener has gone.
            assert!(annulus::time::timeout(Duration::from_millis(1), listener.accept()).await.is_err());
            drop(listener);
            annulus::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    });
}

/// Seen to fail: without the look at who listens, a live socket was replaced; without that at its type, a
/// file was removed.
#[test]
fn only_a_file_that_was_left_behind_is_replaced() {
    let scratch = Scratch::new("unix-stale");
    let path = scratch.0.join("socket");
    on_one_core(move || async move {
        // Closed without being unlinked, as by a kill.
        drop(StdListener::bind(&path).unwrap());
        assert!(path.exists());
        let ours = UnixListener::bind(&path).await?;
        let refused = thread::spawn({
            let path = path.clone();
            move || on_one_core(move || async move { Ok(UnixListener::bind(path).await.map(drop)) })
        });
        let refused = refused.join().unwrap().expect_err("somebody listens");
        assert_eq!(refused.kind(), ErrorKind::Input);
        UnixStream::connect(&path).await.expect("the refused has not taken the file away");
        drop(ours);
        std::fs::write(&path, "a file").unwrap();
        assert_eq!(UnixListener::bind(&path).await.expect_err("a file").kind(), ErrorKind::Input);
        assert_eq!(std::fs::read(&path).unwrap(), b"a file");
        std::fs::remove_file(&path).unwrap();
        // Another's file in its place is left alone at the end.
        let ours = UnixListener::bind(&path).await?;
        std::fs::remove_file(&path).unwrap();
        let _other = StdListener::bind(&path).unwrap();
        drop(ours);
        assert!(path.exists());
        for nowhere in ["/no/such/directory/socket", "/proc/socket"] {
            assert_eq!(UnixListener::bind(nowhere).await.expect_err("not there").kind(), ErrorKind::Input);
        }
        let long = "x".repeat(200);
        assert_eq!(UnixListener::bind(&long).await.expect_err("too long").kind(), ErrorKind::Input);
        assert_eq!(UnixStream::connect(&long).await.expect_err("too long").kind(), ErrorKind::Input);
        let missing = UnixStream::connect(&path.with_extension("none")).await.expect_err("not there");
        assert_eq!(missing.io_error().and_then(std::io::Error::raw_os_error), Some(libc::ENOENT));
        Ok(())
    });
}

/// Seen to fail: with a multishot accept the first core takes the other's client too, and keeps it waiting.
#[test]
fn cores_share_a_path_and_each_takes_one_client_at_a_time() {
    let scratch = Scratch::new("unix-cores");
    let path = scratch.0.join("socket");
    let cpus = annulus::numa::thread::affinity_of_current().unwrap();
    let bound = path.clone();
    served_by_each_core(&cpus.to_string(), cpus.len(), move || UnixListener::bind(bound.clone()), {
        let path = path.clone();
        move || StdUnix::connect(&path).unwrap()
    });
    assert!(!path.exists(), "the last core takes the file away");
}

/// Whoever may read a directory may lock it. Seen to fail: with a lock that is waited for by
/// `std::thread::sleep`, the core does nothing for a second, and then binds without it.
#[test]
fn a_directory_that_another_has_locked_holds_no_core_up() {
    let scratch = Scratch::new("unix-locked");
    let path = scratch.0.join("socket");
    let lock = std::fs::File::open(&scratch.0).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    on_one_core(move || async move {
        let gives_up = annulus::time::timeout(Duration::from_millis(5), UnixListener::bind(&path)).await;
        assert!(gives_up.is_err() && !path.exists());
        let bound = path.clone();
        let binding = annulus::spawn(async move { UnixListener::bind(bound).await });
        for _ in 0..5 {
            annulus::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!binding.is_finished() && !path.exists());
        drop(lock);
        let listener = binding.await.expect("no panic")?;
        assert!(path.exists());
        drop(listener);
        Ok(())
    });
}

/// Seen to fail: with the kernel's `EAGAIN` taken for an error.
#[test]
fn a_full_backlog_is_waited_for() {
    let scratch = Scratch::new("unix-full");
    let path = scratch.0.join("socket");
    on_one_core(move || async move {
        let listener = UnixListener::bind_addr(
            &UnixAddr::from_pathname(&path).unwrap(),
            &ListenOptions::new().backlog(0),
        )
        .await?;
        let _waits = StdUnix::connect(&path).unwrap();
        let mut connects = std::pin::pin!(UnixStream::connect(&path));
        // A backlog of none holds one.
        assert!(annulus::time::timeout(Duration::from_millis(5), connects.as_mut()).await.is_err());
        listener.accept().await?;
        connects.await?;
        Ok(())
    });
}

/// Seen to fail: with the kernel's `EOPNOTSUPP` for a zero-copy send taken for an error.
#[test]
fn a_pair_is_joined_and_drops_like_any_connection() {
    on_one_core(|| async {
        let (a, b) = UnixStream::pair()?;
        a.send_all_vectored(["one ".to_owned(), "two".to_owned()]).await?;
        let mut got = Vec::new();
        while got.len() < 7 {
            got.extend_from_slice(&b.recv().await?.expect("bytes"));
        }
        assert_eq!(got, b"one two");
        // A Unix socket cannot send without a copy: an ordinary send takes its place.
        let mut block = annulus::buf::Block::take().expect("a block");
        block.extend_from_slice(&pattern(60_000));
        let send = annulus::spawn({
            let (reader, writer) = a.split();
            async move {
                let sent = writer.send_zc(block).await;
                drop((reader, writer));
                sent
            }
        });
        let mut got = Vec::new();
        while let Some(chunk) = b.recv().await? {
            got.extend_from_slice(&chunk);
        }
        send.await.unwrap()?;
        assert!(got == pattern(60_000));
        Ok(())
    });
}

#[test]
fn a_file_goes_to_a_unix_socket_over_either_road() {
    for road in [Road::Inline, Road::Ring] {
        let scratch = Scratch::new(&format!("unix-file-{road}"));
        let path = scratch.0.join("file");
        let len = bulk(5 << 20) + 12_345;
        std::fs::write(&path, pattern(len)).unwrap();
        on_one_core(move || async move {
            let (ours, theirs) = UnixStream::pair()?;
            let (fd, _) = theirs.into_owned_fd().await?;
            let client = thread::spawn(move || {
                let mut got = Vec::new();
                let mut client = StdUnix::from(fd);
                client.set_nonblocking(false).unwrap();
                client.read_to_end(&mut got).unwrap();
                got
            });
            let file = File::open(Path::new(&path), OpenOptions::new()).await?;
            let (reader, writer) = ours.split();
            // A half is enough.
            assert_eq!(send_file(&writer, &file, 0..len as u64, road).await?, len as u64);
            drop((reader, writer));
            assert!(client.join().unwrap() == pattern(len));
            Ok(())
        });
    }
}

/// A TCP client, a relay to a Unix server, and one from there to a TCP server again: both kinds on both
/// sides.
#[test]
fn relays_carry_between_tcp_and_unix_over_either_road() {
    for road in [Road::Inline, Road::Ring] {
        let scratch = Scratch::new(&format!("unix-relay-{road}"));
        let path = scratch.0.join("socket");
        let len = bulk(4 << 20);
        on_one_core(move || async move {
            let front = TcpListener::bind("127.0.0.1:0".parse::<SocketAddr>().unwrap())?;
            let middle = UnixListener::bind(&path).await?;
            let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let (address, end) = (front.local_addr(), upstream.local_addr().unwrap());
            let talk = move |stream: Std| {
                let mut back = stream.try_clone().unwrap();
                let reads = thread::spawn(move || {
                    let mut got = Vec::new();
                    back.read_to_end(&mut got).unwrap();
                    assert!(got == pattern(len));
                });
                (&stream).write_all(&pattern(len)).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                reads.join().unwrap();
            };
            let server = thread::spawn(move || talk(upstream.accept().unwrap().0));
            let client = thread::spawn(move || talk(Std::connect(address).unwrap()));
            let a = front.accept().await?;
            let b = UnixStream::connect(&path).await?;
            let c = middle.accept().await?;
            let d = TcpStream::connect(end).await?;
            let first = annulus::spawn(relay(a, b, road));
            let second = relay(c, d, road).await;
            let first = first.await.unwrap();
            for end in [first, second] {
                end.result?;
                assert_eq!((end.a_to_b, end.b_to_a), (len as u64, len as u64));
            }
            client.join().unwrap();
            server.join().unwrap();
            Ok(())
        });
    }
}
