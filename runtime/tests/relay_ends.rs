//! How a relay tells each side in which manner the other has ended: the table of `docs/relay.md`, each line
//! of it on real sockets, over both roads.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener as StdListener, TcpStream as Std};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use annulus::net::{TcpListener, TcpStream, UnixStream};
use annulus::transfer::{RelayCause, RelayEnd, RelayLimits, Road, relay, relay_within};
use common::on_one_core;

const ROADS: [Road; 2] = [Road::Inline, Road::Ring];
/// No wait of these tests comes near it.
const WATCHDOG: Duration = Duration::from_secs(60);
/// More than a message, less than what the sockets on the way take in without a reader.
const BULK: usize = 200_000;

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// How a peer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// By shutting its write side down.
    Fin,
    /// By a reset, once what it has sent is acknowledged.
    Reset,
    /// Not at all.
    Stays,
}

/// What a peer reads at last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finds {
    End,
    Reset,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
struct Case {
    road: Road,
    /// How client and upstream end.
    ends: [Ends; 2],
    /// Bytes that each of them sends before.
    bytes: [usize; 2],
    /// Each reads only after the other has ended.
    late: bool,
}

fn cases() -> Vec<Case> {
    use Ends::{Fin, Reset, Stays};
    let mut cases = Vec::new();
    for road in ROADS {
        for client in [Fin, Reset, Stays] {
            for upstream in [Fin, Reset, Stays] {
                for up in [0, 1000, BULK] {
                    for down in [0, 1000, BULK] {
                        for late in [false, true] {
                            if (client, upstream) != (Stays, Stays) {
                                cases.push(Case { road, ends: [client, upstream], bytes: [up, down], late });
                            }
                        }
                    }
                }
            }
        }
    }
    cases
}

/// Bytes that were sent and are not acknowledged (`SIOCOUTQ`, `tcp(7)`).
fn unacknowledged(stream: &Std) -> i32 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one integer, which lives across the call.
    let rc = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
    bytes
}

fn wait_until_acknowledged(stream: &Std) {
    // The other peer may have gone before.
    while unacknowledged(stream) > 0 && stream.take_error().unwrap().is_none() {
        thread::sleep(Duration::from_micros(200));
    }
}

fn reset(stream: &Std) {
    wait_until_acknowledged(stream);
    rustix::net::connect_unspec(stream).expect("a reset");
}

/// Waits for a reset without reading.
fn wait_for_reset(stream: &Std) {
    let begun = std::time::Instant::now();
    while stream.take_error().unwrap().is_none() {
        assert!(begun.elapsed() < WATCHDOG, "no reset comes");
        thread::sleep(Duration::from_millis(1));
    }
}

fn watched(stream: &Std) {
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    stream.set_write_timeout(Some(WATCHDOG)).unwrap();
}

/// Plays one peer: what it has read, and what it found at the end; `None` for one that has reset its own
/// connection. The connection stays open with the stream.
fn play(
    mut stream: Std,
    ends: Ends,
    bytes: usize,
    has_ended: mpsc::Sender<()>,
    other_has_ended: Option<mpsc::Receiver<()>>,
) -> (Option<(usize, Finds)>, Std) {
    watched(&stream);
    let reads = (ends != Ends::Reset).then(|| {
        let mut stream = stream.try_clone().unwrap();
        thread::spawn(move || {
            if let Some(other) = other_has_ended {
                other.recv().expect("the other one ends, or stays");
            }
            let (mut total, mut piece) = (0, [0; 10_000]);
            loop {
                match stream.read(&mut piece) {
                    Ok(0) => return (total, Finds::End),
                    Ok(n) => total += n,
                    Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {
                        return (total, Finds::Reset);
                    }
                    Err(e) => panic!("after {total} bytes: {e}"),
                }
            }
        })
    });
    // A peer that has gone meanwhile refuses some of it.
    let sent = stream.write_all(&vec![7; bytes]);
    match ends {
        Ends::Fin if sent.is_ok() => drop(stream.shutdown(Shutdown::Write)),
        Ends::Reset => reset(&stream),
        Ends::Fin | Ends::Stays => {}
    }
    // Nobody waits for it where the other one reads at once.
    let _ = has_ended.send(());
    // The kernel tells an error once, and it may have told the writer.
    let is_reset = sent.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset);
    let found = reads.map(|reads| {
        let (bytes, finds) = reads.join().unwrap();
        (bytes, if is_reset { Finds::Reset } else { finds })
    });
    (found, stream)
}

/// Plays a case against a relay that listens on `address` and goes to `door`. `cut` ends the relay.
fn play_case(case: Case, address: SocketAddr, door: &StdListener, cut: annulus::channel::OneSender<()>) {
    let Case { ends, bytes, late, .. } = case;
    let client = Std::connect(address).unwrap();
    let upstream = door.accept().unwrap().0;
    let (client_ended, client_end) = mpsc::channel();
    let (upstream_ended, upstream_end) = mpsc::channel();
    let (client_waits, upstream_waits) =
        if late { (Some(upstream_end), Some(client_end)) } else { (None, None) };
    let client = thread::spawn(move || play(client, ends[0], bytes[0], client_ended, client_waits));
    let upstream = thread::spawn(move || play(upstream, ends[1], bytes[1], upstream_ended, upstream_waits));
    let mut peers = [Some(client), Some(upstream)];
    let mut open = Vec::new();
    let mut see = |side: usize| {
        let (found, stream) = peers[side].take().unwrap().join().unwrap();
        open.push(stream);
        check(case, side, found);
    };
    // Where one peer stays and the other has ended, the relay goes on until it is cut. First the end must
    // have arrived.
    let stays = ends.iter().position(|end| *end == Ends::Stays);
    match stays {
        Some(side) if ends[1 - side] == Ends::Fin => {
            see(side);
            cut.send(()).expect("the relay goes on");
            see(1 - side);
        }
        _ => {
            drop(cut);
            see(0);
            see(1);
        }
    }
}

fn check(case: Case, side: usize, found: Option<(usize, Finds)>) {
    let Some((bytes, finds)) = found else { return };
    let other = 1 - side;
    let due = if case.ends[other] == Ends::Fin { Finds::End } else { Finds::Reset };
    assert_eq!(finds, due, "side {side} of {case:?}, which has read {bytes} bytes");
    // What the cut has come before is lost.
    let is_cut = case.ends[other] == Ends::Stays;
    assert!(bytes == case.bytes[other] || is_cut, "side {side} of {case:?} has read {bytes} bytes");
}

/// Each case in turn, on one core.
///
/// Seen to fail: with a plain close in place of each reset; with a reset that does not wait for
/// acknowledgements; with the first error ending both directions.
#[test]
fn each_side_learns_how_the_other_has_ended() {
    on_one_core(|| async {
        let listener = TcpListener::bind(any())?;
        let door = StdListener::bind(any()).unwrap();
        let (address, to) = (listener.local_addr(), door.local_addr().unwrap());
        for case in cases() {
            let door = door.try_clone().unwrap();
            let (cut, is_cut) = annulus::channel::oneshot::<()>();
            let played = annulus::spawn_blocking(move || play_case(case, address, &door, cut));
            let a = listener.accept().await?;
            let b = TcpStream::connect(to).await?;
            let relaying = annulus::spawn(relay(a, b, case.road));
            if is_cut.await.is_ok() {
                drop(relaying);
            } else {
                let end = annulus::time::timeout(WATCHDOG, relaying).await;
                let end = end.unwrap_or_else(|_| panic!("{case:?} does not end")).expect("no panic");
                let is_orderly = case.ends == [Ends::Fin; 2];
                assert_eq!(end.result.is_ok(), is_orderly, "{case:?}: {end:?}");
                assert_eq!(end.cause == RelayCause::Ended, is_orderly, "{case:?}: {end:?}");
            }
            played.await.unwrap_or_else(|e| panic!("{case:?}: {e:?}"));
        }
        Ok(())
    });
}

/// Relays one connection on a core of its own, between a client and an upstream that are functions on their
/// own threads.
fn relayed<C, U>(road: Road, limits: RelayLimits, client: C, upstream: U) -> RelayEnd
where
    C: FnOnce(Std) + Send + 'static,
    U: FnOnce(Std) + Send + 'static,
{
    on_one_core(move || async move {
        let listener = TcpListener::bind(any())?;
        let door = StdListener::bind(any()).unwrap();
        let (address, to) = (listener.local_addr(), door.local_addr().unwrap());
        let client = annulus::spawn_blocking(move || {
            let stream = Std::connect(address).unwrap();
            watched(&stream);
            client(stream);
        });
        let upstream = annulus::spawn_blocking(move || {
            let stream = door.accept().unwrap().0;
            watched(&stream);
            upstream(stream);
        });
        let a = listener.accept().await?;
        let b = TcpStream::connect(to).await?;
        let end = relay_within(a, b, road, &Rc::new(limits)).await;
        client.await.expect("the client is content");
        upstream.await.expect("the upstream is content");
        Ok(end)
    })
}

/// Two MiB of an answer, an upstream that has closed and refuses the rest of the upload, a client that
/// uploads on and reads slowly.
///
/// Seen to fail: with the first error ending both directions some tens of KiB arrive.
#[test]
fn a_refused_upload_costs_no_byte_of_the_answer() {
    const ANSWER: usize = 2 << 20;
    for road in ROADS {
        let end = relayed(
            road,
            RelayLimits::default(),
            |client| {
                let mut reader = client.try_clone().unwrap();
                let reads = thread::spawn(move || {
                    let (mut total, mut piece) = (0, [0; 9000]);
                    loop {
                        match reader.read(&mut piece) {
                            Ok(0) => return (total, None),
                            Ok(n) => total += n,
                            Err(e) => return (total, Some(e.kind())),
                        }
                        thread::yield_now();
                    }
                });
                // Until it is refused.
                let mut client = client;
                while client.write_all(&[1; 5000]).is_ok() {
                    thread::sleep(Duration::from_micros(100));
                }
                let (total, end) = reads.join().unwrap();
                assert_eq!(total, ANSWER, "{end:?}");
            },
            |mut upstream| {
                upstream.read_exact(&mut [0; 1000]).unwrap();
                upstream.write_all(&vec![2; ANSWER]).unwrap();
                upstream.shutdown(Shutdown::Write).unwrap();
                // What it has read by then does not reset it as it closes.
                wait_until_acknowledged(&upstream);
                upstream.set_nonblocking(true).unwrap();
                while upstream.read(&mut [0; 10_000]).is_ok() {}
            },
        );
        assert_eq!(end.b_to_a, ANSWER as u64);
        assert!(end.result.is_err() && end.cause == RelayCause::FailedB, "{end:?}");
    }
}

/// The default's limits, but for those that `set` changes.
fn limits(set: impl FnOnce(&mut RelayLimits)) -> RelayLimits {
    let mut limits = RelayLimits::default();
    set(&mut limits);
    limits
}

/// A failure is noticed also on a side from which nothing is taken: its bytes have no room on the other side,
/// or it has ended.
///
/// Seen to fail, by the watchdog: without the look-out.
#[test]
fn a_reset_is_noticed_while_nothing_is_taken() {
    for road in ROADS {
        // A client that sends more than anybody takes, and then is reset.
        let limits = limits(|limits| limits.drain = Duration::from_millis(100));
        let end = relayed(
            road,
            limits,
            |mut client| {
                client.set_nonblocking(true).unwrap();
                let mut full = 0;
                while full < 50 {
                    // Whatever went of it.
                    if client.write_all(&[1; 65536]).is_ok() {
                        full = 0;
                    } else {
                        full += 1;
                        thread::sleep(Duration::from_millis(2));
                    }
                }
                rustix::net::connect_unspec(&client).expect("a reset");
            },
            |upstream| wait_for_reset(&upstream),
        );
        assert_eq!(end.cause, RelayCause::FailedA, "{end:?}");
        // A client that has sent its end waits for an answer, and then is reset.
        let end = relayed(
            road,
            RelayLimits::default(),
            |mut client| {
                client.write_all(b"question").unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                client.read_exact(&mut [0; 4]).unwrap();
                rustix::net::connect_unspec(&client).expect("a reset");
            },
            |mut upstream| {
                let mut question = Vec::new();
                upstream.read_to_end(&mut question).unwrap();
                upstream.write_all(b"wait").unwrap();
                let e = upstream.read(&mut [0; 1]).err();
                assert!(e.is_none(), "the end came before: {e:?}");
                // The reset comes while nothing is sent.
                wait_for_reset(&upstream);
            },
        );
        assert_eq!(end.cause, RelayCause::FailedA, "{end:?}");
    }
}

/// Seen to fail: with a plain close at the limit the peers find an end.
#[test]
fn a_limit_ends_a_relay_by_a_reset() {
    let find_reset = |mut stream: Std| {
        let mut read = [0; 16];
        let found = loop {
            match stream.read(&mut read) {
                Ok(0) => break None,
                Ok(_) => {}
                Err(e) => break Some(e.kind()),
            }
        };
        assert_eq!(found, Some(std::io::ErrorKind::ConnectionReset));
    };
    let soon = Some(Duration::from_millis(50));
    for road in ROADS {
        for (limits, cause) in [
            (limits(|limits| limits.idle = soon), RelayCause::Idle),
            (limits(|limits| limits.lifetime = soon), RelayCause::Lifetime),
        ] {
            let end = relayed(road, limits, find_reset, find_reset);
            assert_eq!(end.cause, cause);
            assert!(end.result.is_err());
        }
        let limits = limits(|limits| (limits.half_closed, limits.idle) = (soon, Some(WATCHDOG)));
        let end = relayed(
            road,
            limits,
            move |client| {
                client.shutdown(Shutdown::Write).unwrap();
                find_reset(client);
            },
            |mut upstream| {
                assert_eq!(upstream.read(&mut [0; 1]).unwrap(), 0, "the client's end");
                wait_for_reset(&upstream);
            },
        );
        assert_eq!(end.cause, RelayCause::HalfClosed);
    }
}

/// A peer that takes a little now and then is given its time.
///
/// Seen to fail: with acknowledgements that are not counted.
#[test]
fn a_slow_reader_is_not_idle() {
    let limits = limits(|limits| limits.idle = Some(Duration::from_millis(400)));
    let end = relayed(
        Road::Inline,
        limits,
        |mut client| {
            let mut total = 0;
            for _ in 0..12 {
                thread::sleep(Duration::from_millis(100));
                total += client.read(&mut [0; 100_000]).unwrap();
            }
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).unwrap();
            assert_eq!(total + rest.len(), 8 << 20);
        },
        |mut upstream| upstream.write_all(&vec![3; 8 << 20]).unwrap(),
    );
    end.result.expect("it is carried to the end");
}

/// A Unix socket knows no reset: it is closed, and what was on its way is not lost.
#[test]
fn a_unix_upstream_is_closed_where_a_tcp_one_is_reset() {
    for road in ROADS {
        on_one_core(move || async move {
            let listener = TcpListener::bind(any())?;
            let client = Std::connect(listener.local_addr()).unwrap();
            let a = listener.accept().await?;
            let (b, upstream) = UnixStream::pair()?;
            let relaying = annulus::spawn(relay(a, b, road));
            let gone = annulus::spawn_blocking(move || {
                (&client).write_all(&[1; 30_000]).unwrap();
                reset(&client);
            });
            gone.await.expect("no panic");
            let mut total = 0;
            while let Some(chunk) = upstream.recv().await? {
                total += chunk.len();
            }
            assert_eq!(total, 30_000);
            assert_eq!(relaying.await.expect("no panic").cause, RelayCause::FailedA);
            Ok(())
        });
    }
}

/// Seen to fail: without the look at what sends before have come to, the relay goes on in the middle of one.
#[test]
fn a_side_of_which_an_unknown_part_has_left_is_not_relayed_to() {
    on_one_core(|| async {
        let listener = TcpListener::bind(any())?;
        let client = Std::connect(listener.local_addr()).unwrap();
        let a = listener.accept().await?;
        let sent = annulus::time::timeout(Duration::from_millis(20), a.send_all(vec![0; 64 << 20])).await;
        assert!(sent.is_err(), "nobody reads");
        let (b, _upstream) = UnixStream::pair()?;
        let end = relay(a, b, Road::Inline).await;
        assert_eq!(end.result.map_err(|e| e.kind()), Err(annulus::ErrorKind::WritePoisoned));
        drop(client);
        Ok(())
    });
}
