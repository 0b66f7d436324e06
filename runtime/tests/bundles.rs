//! One completion for several receive buffers (`Builder::bundles`), alone and with incremental buffers. Where
//! the kernel cannot, what is looked at is that the bytes come all the same. `fragments.rs` has what holds in
//! every way of receiving.

mod common;

use std::io::Write;
use std::net::{Shutdown, TcpStream as Std};
use std::thread;
use std::time::Duration;

use annulus::buf::Lease;
use annulus::net::{TcpListener, TcpStream};
use annulus::time::timeout;
use annulus::{Builder, cores, spawn, yield_now};
use common::{on_first_cpu, on_one_core_of, report_of};

/// Bytes of a receive buffer.
const BUFFER: usize = 8 << 10;

fn ways() -> [Builder; 2] {
    [common::small().bundles(true), common::small().bundles(true).incremental_buffers(true)]
}

/// With 16 receive buffers, the least that there can be.
fn tiny(builder: Builder) -> Builder {
    builder.pool_bytes(256 << 10).pool_limit(256 << 10)
}

/// Whether the kernel bundles in this way. Asked of a runtime of its own.
fn is_in_force(builder: Builder) -> bool {
    let report = report_of(on_first_cpu(builder).build().unwrap()).unwrap();
    if !report.cores[0].ring.bundles {
        println!("completions are not counted: {report}");
    }
    report.cores[0].ring.bundles
}

fn has_limit(builder: Builder) -> bool {
    let report = report_of(on_first_cpu(builder).build().unwrap()).unwrap();
    println!("a receive ends by itself: {}", report.cores[0].ring.bundle_limit);
    report.cores[0].ring.bundle_limit
}

async fn pair(listener: &TcpListener) -> annulus::Result<(TcpStream, Std)> {
    let client = Std::connect(listener.local_addr()).unwrap();
    Ok((listener.accept().await?, client))
}

/// Bytes whose place in the stream they tell: the period is a prime, so that none of it falls on the
/// buffers'.
struct Pattern(Vec<u8>);

const PERIOD: usize = 65_521;

impl Pattern {
    fn new(stream: usize) -> Self {
        let byte = |i: usize| ((i * 31 + stream * 101) ^ (i >> 7)) as u8;
        Self((0..PERIOD).map(byte).cycle().take(PERIOD + (2 << 20)).collect())
    }

    /// The bytes at `from` of the stream.
    fn at(&self, from: usize, len: usize) -> &[u8] {
        &self.0[from % PERIOD..][..len]
    }
}

/// Sends so many bytes of a stream, in writes of all sizes, and closes.
fn send(mut client: Std, stream: usize, total: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let pattern = Pattern::new(stream);
        let (mut sent, mut step) = (0, 1);
        while sent < total {
            let len = step.min(total - sent);
            client.write_all(pattern.at(sent, len)).unwrap();
            sent += len;
            step = step * 13 % 1_000_003;
        }
        client.shutdown(Shutdown::Write).unwrap();
    })
}

/// The next chunk, which comes before long.
async fn next(stream: &TcpStream) -> annulus::Result<Option<Lease>> {
    timeout(Duration::from_secs(60), stream.recv()).await.expect("nothing came for a minute")
}

/// Receives a whole stream, byte for byte, and keeps a few of its leases for a while. Says how many there
/// were.
async fn receive(stream: &TcpStream, number: usize, total: usize, keep: usize) -> annulus::Result<u64> {
    let pattern = Pattern::new(number);
    let (mut got, mut leases, mut kept) = (0, 0, Vec::new());
    while let Some(lease) = next(stream).await? {
        assert!(lease.len() <= BUFFER && !lease.is_empty());
        assert!(*lease == *pattern.at(got, lease.len()), "stream {number} is wrong after {got} bytes");
        kept.push((got, lease.len(), lease));
        got += kept[kept.len() - 1].1;
        leases += 1;
        while kept.len() > keep {
            let (from, len, lease) = kept.swap_remove(leases as usize * 7 % kept.len());
            assert!(*lease == *pattern.at(from, len), "stream {number} was written over at {from}");
        }
    }
    assert_eq!(got, total);
    Ok(leases)
}

fn much() -> usize {
    common::bulk(100 << 20)
}

#[test]
fn a_long_stream_comes_byte_for_byte() {
    // The last for comparison.
    for way in ways().into_iter().chain([common::small()]) {
        on_one_core_of(way, || async {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let (stream, client) = pair(&listener).await?;
            let writer = send(client, 1, much());
            let leases = receive(&stream, 1, much(), 5).await?;
            let counters = cores::counters();
            println!("{leases} leases, {} completions, {} turns", counters.cqes, counters.turns);
            writer.join().unwrap();
            Ok(())
        });
    }
}

/// What waits in the socket when the receive is armed takes a completion or two, and not one for each buffer.
#[test]
fn a_completion_tells_of_several_buffers() {
    const BUFFERS: usize = 6;
    for way in ways() {
        if !is_in_force(way.clone()) {
            continue;
        }
        on_one_core_of(way, || async {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let (stream, mut client) = pair(&listener).await?;
            client.write_all(Pattern::new(2).at(0, BUFFERS * BUFFER)).unwrap();
            while rustix::io::ioctl_fionread(&stream).unwrap() < (BUFFERS * BUFFER) as u64 {
                yield_now().await;
            }
            let before = cores::counters().cqes;
            let mut got = 0;
            while got < BUFFERS * BUFFER {
                let lease = next(&stream).await?.expect("bytes");
                assert!(*lease == *Pattern::new(2).at(got, lease.len()), "wrong after {got} bytes");
                got += lease.len();
            }
            let cqes = cores::counters().cqes - before;
            assert!(cqes <= 3, "{cqes} completions for {BUFFERS} buffers");
            Ok(())
        });
    }
}

/// Each takes all the buffers again and again, so that each finds none again and again.
#[test]
fn two_streams_share_sixteen_buffers() {
    for way in ways() {
        on_one_core_of(tiny(way), || async {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let total = much() / 8;
            let mut tasks = Vec::new();
            let mut writers = Vec::new();
            for number in 0..2 {
                let (stream, client) = pair(&listener).await?;
                writers.push(send(client, number, total));
                tasks.push(spawn(async move { receive(&stream, number, total, 3).await }));
            }
            for task in tasks {
                task.await.expect("no panic")?;
            }
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            while cores::counters().recv_buffers_out > 0 {
                yield_now().await;
            }
            Ok(())
        });
    }
}

/// What came is handed over, what did not is in the socket, and nothing is in both.
#[test]
fn quiesce_in_the_middle_of_a_bundle_loses_nothing() {
    for way in ways() {
        on_one_core_of(way, || async {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let pattern = Pattern::new(3);
            for round in 0..12 {
                let total = (2 + round) * 50_000;
                let (stream, client) = pair(&listener).await?;
                let writer = send(client, 3, total);
                let mut got = next(&stream).await?.expect("bytes").len();
                let (fd, chunks) = stream.into_owned_fd().await?;
                for chunk in chunks {
                    assert!(*chunk == *pattern.at(got, chunk.len()), "wrong after {got} bytes");
                    got += chunk.len();
                }
                let stream = TcpStream::from_owned_fd(fd)?;
                while let Some(chunk) = next(&stream).await? {
                    assert!(*chunk == *pattern.at(got, chunk.len()), "wrong after {got} bytes");
                    got += chunk.len();
                }
                assert_eq!(got, total);
                writer.join().unwrap();
            }
            Ok(())
        });
    }
}

/// What a stream takes before it is held back has a bound, however much waits in its socket.
#[test]
fn a_stream_that_nobody_reads_takes_64_buffers_at_most() {
    for way in ways() {
        if !has_limit(way.clone()) {
            continue;
        }
        on_one_core_of(way, || async {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let (stream, mut client) = pair(&listener).await?;
            let pusher = thread::spawn(move || while client.write_all(&[1; 1 << 16]).is_ok() {});
            let taken = next(&stream).await?;
            // It ends by itself, or is held back before.
            while cores::counters().recv_bytes < 512 << 10 && cores::counters().recv_held_back == 0 {
                yield_now().await;
            }
            // It may be cancelled meanwhile, and is not armed again.
            for _ in 0..1000 {
                yield_now().await;
            }
            let out = cores::counters().recv_buffers_out;
            assert!(out <= 65, "{out} buffers are out");
            drop(taken);
            drop(stream);
            // Not joined here: the close goes through the ring, and a core that blocks submits nothing.
            annulus::spawn_blocking(move || pusher.join().unwrap()).await.expect("no panic");
            Ok(())
        });
    }
}
