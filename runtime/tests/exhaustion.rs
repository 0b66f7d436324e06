//! A process without descriptors. In a program of its own, because the limit is the whole process's; so the
//! tests take turns.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream as Std};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use annulus::fs::{File, OpenOptions};
use annulus::net::{TcpListener, TcpStream};
use annulus::pipe::pipe;
use annulus::transfer::{Road, relay, send_file};
use common::{Scratch, on_one_core};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

static TURN: Mutex<()> = Mutex::new(());

/// The limit of descriptors as it was, to be set again.
struct Limit(Rlimit);

impl Drop for Limit {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.0).unwrap();
    }
}

/// Leaves no descriptor until the returned limit is dropped.
fn leave_none() -> Limit {
    let limit = getrlimit(Resource::Nofile);
    // Descriptors are given out from the lowest: this one is the first that is free.
    let next = rustix::fd::AsRawFd::as_raw_fd(&std::fs::File::open("/dev/null").unwrap());
    setrlimit(Resource::Nofile, Rlimit { current: Some(next as u64), ..limit }).unwrap();
    Limit(limit)
}

/// Seen to fail: with pipes counted before they are made.
#[test]
fn a_file_is_copied_where_no_pipe_can_be_had() {
    const LEN: u64 = 200_000;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let scratch = Scratch::new("exhaustion");
    let path = scratch.0.join("file");
    std::fs::write(&path, vec![7; LEN as usize]).unwrap();
    on_one_core(move || async move {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut client = Std::connect(listener.local_addr()).unwrap();
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            client.read_to_end(&mut got).map(|_| got)
        });
        let stream = listener.accept().await?;
        let file = File::open(&path, OpenOptions::new()).await?;
        let limit = leave_none();
        // By the ring, because bytes of the page cache need no pipe.
        let (refused, sent) = (pipe().err(), send_file(&stream, &file, 0..LEN, Road::Ring).await);
        drop(limit);
        let errno = refused.and_then(|e| e.io_error()?.raw_os_error());
        assert_eq!(errno, Some(libc::EMFILE), "the limit did not hold: the test shows nothing");
        assert_eq!(sent.expect("copied"), LEN);
        let counters = annulus::cores::counters();
        assert_eq!((counters.file_bytes_copied, counters.pipes_made), (LEN, 0));
        drop(stream);
        let got = annulus::spawn_blocking(move || reader.join().unwrap()).await.expect("no panic");
        assert!(got.unwrap() == vec![7; LEN as usize]);
        Ok(())
    });
}

/// Both streams of a relay, each behind its peer.
async fn to_relay() -> annulus::Result<(Std, TcpStream, TcpStream, Std)> {
    let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = Std::connect(listener.local_addr()).unwrap();
    let (a, b) = (listener.accept().await?, TcpStream::connect(door.local_addr().unwrap()).await?);
    Ok((client, a, b, door.accept().unwrap().0))
}

#[test]
fn a_relay_copies_where_no_pipe_can_be_had() {
    const LEN: usize = 8 << 20;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    on_one_core(move || async move {
        let (mut client, a, b, mut upstream) = to_relay().await?;
        let limit = leave_none();
        // Bulk, for which there would be a pipe.
        let sends = thread::spawn(move || {
            client.write_all(&vec![7; LEN]).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer
        });
        let takes = thread::spawn(move || {
            let mut got = Vec::new();
            upstream.read_to_end(&mut got).unwrap();
            upstream.write_all(b"the answer").unwrap();
            got
        });
        let end = relay(a, b, Road::Inline).await;
        drop(limit);
        end.result?;
        let counters = annulus::cores::counters();
        let inline = counters.relay_bytes_inline;
        assert_eq!((counters.relay_bytes_copied, inline, counters.pipes_made), (LEN as u64 + 10, 0, 0));
        let ends = annulus::spawn_blocking(move || (sends.join().unwrap(), takes.join().unwrap())).await;
        let (answer, got) = ends.expect("no panic");
        assert!(answer == "the answer" && got == vec![7; LEN]);
        Ok(())
    });
}

/// A core's share of what all pipes of a user may hold is too small for one. Seen to fail: without a share.
#[test]
fn a_relay_copies_where_the_share_of_pipes_is_used_up() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    const LEN: usize = 8 << 20;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // On a thread of its own: cores have the capabilities of whoever starts them, and root is bound by none.
    let test = || {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::SYS_RESOURCE | CapabilitySet::SYS_ADMIN);
        set_capabilities(None, sets).unwrap();
        let first = annulus::numa::thread::affinity_of_current().unwrap().first().unwrap();
        let builder = common::small().cores(first.to_string().parse().unwrap()).cores_of_user(1_000_000);
        let relaying = builder.build().unwrap().run(|| async move {
            let (mut client, a, b, mut upstream) = to_relay().await?;
            let sends = thread::spawn(move || {
                client.write_all(&vec![7; LEN]).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            });
            let takes = thread::spawn(move || {
                let mut got = Vec::new();
                upstream.read_to_end(&mut got).unwrap();
                got
            });
            relay(a, b, Road::Inline).await.result?;
            let counters = annulus::cores::counters();
            let copied = (counters.relay_bytes_copied, counters.relay_bytes_inline, counters.pipes_made);
            assert_eq!(copied, (LEN as u64, 0, 0));
            assert!(counters.pipes_refused > 0);
            sends.join().unwrap();
            assert!(takes.join().unwrap() == vec![7; LEN]);
            Ok(())
        });
        relaying.unwrap();
    };
    thread::spawn(test).join().unwrap();
}

/// Messages need no pipe. Seen to fail: with a relay that asks for one again and again, none is received by
/// the ring after bulk.
#[test]
fn a_relay_that_gets_no_pipe_goes_back_to_messages() {
    const LEN: usize = 1 << 20;
    const MESSAGE: usize = 100;
    const ROUNDS: usize = 50;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for road in [Road::Inline, Road::Ring] {
        on_one_core(move || async move {
            let (mut client, a, b, mut upstream) = to_relay().await?;
            let (tell, told) = annulus::channel::oneshot();
            let limit = leave_none();
            let sends = thread::spawn(move || {
                client.write_all(&vec![7; LEN]).unwrap();
                client.read_exact(&mut [0]).unwrap();
                tell.send(()).expect("the relay's core waits for it");
                for _ in 0..ROUNDS {
                    client.write_all(&[1; MESSAGE]).unwrap();
                    client.read_exact(&mut [0]).unwrap();
                }
            });
            let takes = thread::spawn(move || {
                upstream.read_exact(&mut vec![0; LEN]).unwrap();
                upstream.write_all(b"!").unwrap();
                for _ in 0..ROUNDS {
                    upstream.read_exact(&mut [0; MESSAGE]).unwrap();
                    upstream.write_all(b"!").unwrap();
                }
            });
            let relaying = annulus::spawn(relay(a, b, road));
            told.await.expect("bulk arrives");
            let before = annulus::cores::counters().recv_bytes;
            let end = relaying.await.expect("no panic");
            drop(limit);
            end.result?;
            let counters = annulus::cores::counters();
            let received = (counters.recv_bytes - before) as usize;
            // A few are received otherwise before the relay has seen that it is bulk no more.
            assert!(received >= (ROUNDS - 10) * MESSAGE, "{received} bytes by {road}");
            assert_eq!(counters.pipes_made, 0);
            assert_eq!(counters.send_bytes, counters.relay_bytes_copied, "each byte was sent from a buffer");
            sends.join().unwrap();
            takes.join().unwrap();
            Ok(())
        });
    }
}

/// Seen to fail: with EMFILE returned by `accept` as an error, and with the rest left out.
#[test]
fn accepting_recovers_when_descriptors_come_back() {
    const CLIENTS: usize = 100;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    on_one_core(|| async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut clients: Vec<_> =
            (0..CLIENTS).map(|_| Std::connect(listener.local_addr()).unwrap()).collect();
        let limit = leave_none();
        let served = annulus::spawn(async move {
            for _ in 0..CLIENTS {
                let stream = listener.accept().await?;
                stream.send_all("here").await?;
            }
            annulus::Ok(())
        });
        // Some rests of 20 ms, then there are descriptors again.
        let begin = Instant::now();
        while annulus::cores::counters().accept_backoffs < 3 || begin.elapsed() < Duration::from_millis(100) {
            annulus::time::sleep(Duration::from_millis(1)).await;
        }
        let rests = annulus::cores::counters().accept_backoffs as u128;
        assert!(rests <= begin.elapsed().as_millis() / 20 + 1, "{rests} rests in {:?}", begin.elapsed());
        assert_eq!(annulus::cores::counters().accepts, 0, "the limit did not hold: the test shows nothing");
        drop(limit);
        served.await.expect("no panic")?;
        let read = annulus::spawn_blocking(move || {
            for client in &mut clients {
                let mut got = String::new();
                client.read_to_string(&mut got).unwrap();
                assert_eq!(got, "here");
                // The other end has gone; nothing is to be learnt from this.
                drop(client.write_all(b"x"));
            }
        });
        read.await.expect("no panic");
        Ok(())
    });
}
