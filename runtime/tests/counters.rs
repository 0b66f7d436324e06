//! Each counter of a core moves by what was done, and by nothing else. Those that need a machine in trouble
//! move in the tests of that trouble; [`every_counter_is_moved_by_a_test`] knows where.

mod common;

use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream as Std};
use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use annulus::channel::{Sender, bounded};
use annulus::cores::counters;
use annulus::fs::{File, OpenOptions};
use annulus::net::{TcpListener, TcpStream, UdpSocket};
use annulus::numa::topology::Proximity;
use annulus::transfer::{Road, relay, send_file};
use annulus::{Counters, Result, spawn, yield_now};
use common::{Scratch, idle_cores, on_one_core, one_cpu, two_idle_cores};

/// A task that waits is not polled again in the same tick, and counters are told when it ends.
async fn end_turn() {
    annulus::time::sleep(Duration::from_millis(1)).await;
}

#[test]
fn polls_are_counted_one_by_one() {
    on_one_core(|| async {
        end_turn().await;
        let before = counters();
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                spawn(async {
                    yield_now().await;
                    yield_now().await;
                })
            })
            .collect();
        end_turn().await;
        let after = counters();
        drop(tasks);
        assert_eq!(after.polls - before.polls, 1 + 10 * 3, "this one, and three of each: {after}");
        Ok(())
    });
}

#[test]
fn submissions_completions_and_system_calls_are_counted_one_by_one() {
    let scratch = Scratch::new("counters-reads");
    let path = scratch.0.join("file");
    std::fs::write(&path, "content").unwrap();
    on_one_core(|| async move {
        let file = File::open(path, OpenOptions::new()).await?;
        end_turn().await;
        let before = counters();
        for _ in 0..20 {
            file.read_at(Vec::with_capacity(8), 0).await?;
        }
        end_turn().await;
        let after = counters();
        assert_eq!((after.sqes - before.sqes, after.cqes - before.cqes), (20, 20), "{after}");
        // Each is one enter at least; each enter and each tick is one of its histogram.
        let (enters, turns) = (after.enters - before.enters, after.turns - before.turns);
        assert!((20..=64).contains(&enters), "{enters} enters");
        assert_eq!(after.sqes_per_enter.count() - before.sqes_per_enter.count(), enters);
        assert_eq!(after.cqes_per_turn.count() - before.cqes_per_turn.count(), turns);
        let with_one = |histogram: annulus::Histogram| {
            histogram.buckets().find(|(from, _)| *from == 1).map_or(0, |(_, n)| n)
        };
        assert_eq!(with_one(after.sqes_per_enter) - with_one(before.sqes_per_enter), 20);
        assert_eq!(with_one(after.cqes_per_turn) - with_one(before.cqes_per_turn), 20);
        // A core that sleeps has entered to do so.
        let before = counters();
        for _ in 0..5 {
            end_turn().await;
        }
        let after = counters();
        assert!((5..=after.enters - before.enters).contains(&(after.parks - before.parks)), "{after}");
        Ok(())
    });
}

#[test]
fn operations_in_flight_are_a_level() {
    on_one_core(|| async {
        let sockets = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?];
        end_turn().await;
        let before = counters().operations;
        let receives = sockets.map(|socket| spawn(async move { socket.recv().await.map(drop) }));
        // Each is armed when its task is polled, which on a slow machine may be in two ticks.
        while counters().operations < before + 2 {
            end_turn().await;
        }
        end_turn().await;
        assert_eq!(counters().operations, before + 2);
        drop(receives);
        // Cancelling them takes a tick or two.
        while counters().operations != before {
            end_turn().await;
        }
        Ok(())
    });
}

/// Completes when `wake` has woken it, which is begun when this task's poll is over: until then a wake from
/// elsewhere is none.
async fn woken_by<F: Future<Output = ()> + 'static>(wake: impl FnOnce(Waker) -> F) {
    let mut wake = Some(wake);
    poll_fn(|cx| match wake.take() {
        Some(wake) => {
            spawn(wake(cx.waker().clone())).detach();
            Poll::Pending
        }
        None => Poll::Ready(()),
    })
    .await;
}

#[test]
fn wakes_from_other_threads_are_counted_one_by_one() {
    on_one_core(|| async {
        let (tx, rx) = mpsc::channel::<Waker>();
        let other = thread::spawn(move || rx.into_iter().for_each(Waker::wake));
        end_turn().await;
        let before = counters();
        for _ in 0..50 {
            let tx = tx.clone();
            woken_by(|waker| async move { tx.send(waker).expect("the other thread waits") }).await;
        }
        end_turn().await;
        assert_eq!(counters().remote_wakes - before.remote_wakes, 50);
        drop(tx);
        other.join().unwrap();
        Ok(())
    });
}

#[test]
fn closures_from_outside_are_counted_one_by_one() {
    let running = idle_cores(&one_cpu());
    let before = running.counters()[0];
    for i in 0..30 {
        assert_eq!(running.handle().submit_to_blocking(0, async move || i).unwrap(), i);
    }
    assert_eq!(running.counters()[0].errands - before.errands, 30);
    running.stop();
    running.wait().unwrap();
}

/// A connection that another core has, counted by the core that gave it.
#[test]
fn connections_that_go_to_another_core_are_counted_by_how_near_it_is() {
    fn handed(counters: Counters) -> [u64; 4] {
        [
            counters.handed_same_core,
            counters.handed_same_cache,
            counters.handed_same_node,
            counters.handed_remote,
        ]
    }
    let Some(running) = two_idle_cores() else { return };
    let class = running
        .handle()
        .submit_to_blocking(0, async || {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            for _ in 0..3 {
                let client = Std::connect(listener.local_addr())?;
                listener.accept().await?.hand_over(1, async |stream| drop(stream)).await?;
                drop(client);
            }
            Ok::<_, annulus::Error>(match annulus::cores::neighbours()[0].proximity {
                Proximity::SameCore => 0,
                Proximity::SameCache => 1,
                Proximity::SameNode => 2,
                _ => 3,
            })
        })
        .unwrap()
        .unwrap();
    let mut expected = [0; 4];
    expected[class] = 3;
    let counters = running.counters();
    assert_eq!((handed(counters[0]), handed(counters[1])), (expected, [0; 4]), "class {class}");
    running.stop();
    running.wait().unwrap();
}

#[test]
fn wakes_of_another_core_are_counted_by_how_near_it_is() {
    fn wakes(counters: Counters) -> [u64; 4] {
        [counters.wakes_same_core, counters.wakes_same_cache, counters.wakes_same_node, counters.wakes_remote]
    }
    let Some(running) = two_idle_cores() else { return };
    let (class, there): (usize, Sender<Waker>) = running
        .handle()
        .submit_to_blocking(1, async || {
            let class = match annulus::cores::neighbours()[0].proximity {
                Proximity::SameCore => 0,
                Proximity::SameCache => 1,
                Proximity::SameNode => 2,
                _ => 3,
            };
            let (there, mut wakers) = bounded(1);
            spawn(async move {
                while let Some(waker) = wakers.recv().await {
                    Waker::wake(waker);
                }
            })
            .detach();
            (class, there)
        })
        .unwrap();
    let before = running.counters();
    running
        .handle()
        .submit_to_blocking(0, async move || {
            for _ in 0..50 {
                let there = there.clone();
                woken_by(|waker| async move { there.send(waker).await.expect("core 1 receives") }).await;
            }
        })
        .unwrap();
    let after = running.counters();
    let mut expected = wakes(before[1]);
    expected[class] += 50;
    assert_eq!(wakes(after[1]), expected, "class {class}");
    // The other way it is one wake for each message at most: the receiver may be awake.
    let woke = wakes(after[0])[class] - wakes(before[0])[class];
    assert!((1..=51).contains(&woke), "{woke} wakes");
    running.stop();
    running.wait().unwrap();
}

#[test]
fn the_load_is_sixteen_times_the_tasks_that_are_ready() {
    on_one_core(|| async {
        let busy: Vec<_> = (0..10)
            .map(|_| {
                spawn(async {
                    for _ in 0..3000 {
                        yield_now().await;
                    }
                    counters().load
                })
            })
            .collect();
        for task in busy.into_iter().take(1) {
            let load = task.await.expect("no panic");
            assert!((153..=160).contains(&load), "{load}");
        }
        for _ in 0..60 {
            end_turn().await;
        }
        assert!((1..=16).contains(&counters().load), "{}", counters());
        Ok(())
    });
}

#[test]
fn connections_and_bytes_are_counted_one_by_one() {
    on_one_core(|| async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr();
        let clients = thread::spawn(move || {
            for _ in 0..3 {
                let mut client = Std::connect(address).unwrap();
                client.write_all(&[1; 1000]).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                client.read_to_end(&mut Vec::new()).unwrap();
            }
        });
        let before = counters();
        for _ in 0..3 {
            let stream = listener.accept().await?;
            while stream.recv().await?.is_some() {}
            stream.send_all(vec![2; 500]).await?;
            stream.send_all_vectored(vec![vec![3; 300], vec![4; 200]]).await?;
        }
        let after = counters();
        assert_eq!(after.accepts - before.accepts, 3);
        assert_eq!(after.recv_bytes - before.recv_bytes, 3 * 1000);
        assert_eq!(after.send_bytes - before.send_bytes, 3 * 1000);
        // Closing goes through the ring: the clients see the end only if this core goes on.
        annulus::spawn_blocking(move || clients.join().unwrap()).await.expect("no panic");

        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let before = counters();
        for _ in 0..4 {
            socket.send_to("datagram", socket.local_addr()?).await?;
            socket.recv().await?;
        }
        let after = counters();
        assert_eq!((after.send_bytes - before.send_bytes, after.recv_bytes - before.recv_bytes), (32, 32));
        Ok(())
    });
}

#[test]
fn pipes_are_counted_when_made() {
    on_one_core(|| async {
        let before = counters().pipes_made;
        let pipes = [annulus::pipe::pipe()?, annulus::pipe::pipe()?, annulus::pipe::pipe()?];
        assert_eq!(counters().pipes_made - before, 3);
        drop(pipes);
        Ok(())
    });
}

/// A connection whose other end a thread reads to its end, and that thread.
async fn read_elsewhere() -> Result<(TcpStream, thread::JoinHandle<usize>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr();
    let reader = thread::spawn(move || {
        let mut got = Vec::new();
        Std::connect(address).unwrap().read_to_end(&mut got).unwrap()
    });
    Ok((listener.accept().await?, reader))
}

#[test]
fn bytes_of_files_are_counted_by_their_road() {
    const LEN: u64 = 300_000;
    let scratch = Scratch::new("counters-files");
    let path = scratch.0.join("file");
    std::fs::write(&path, vec![1; LEN as usize]).unwrap();
    on_one_core(|| async move {
        let file = File::open(&path, OpenOptions::new()).await?;
        for road in [Road::Inline, Road::Ring] {
            let (stream, reader) = read_elsewhere().await?;
            let before = counters();
            send_file(&stream, &file, 0..LEN, road).await.expect("sent");
            let after = counters();
            let moved = [
                after.file_bytes_inline - before.file_bytes_inline,
                after.file_bytes_cold - before.file_bytes_cold,
                after.file_bytes_ring - before.file_bytes_ring,
                after.file_bytes_copied - before.file_bytes_copied,
            ];
            assert_eq!(moved, if road == Road::Inline { [LEN, 0, 0, 0] } else { [0, 0, LEN, 0] }, "{road}");
            drop(stream);
            let got = annulus::spawn_blocking(move || reader.join().unwrap()).await;
            assert_eq!(got.expect("no panic") as u64, LEN);
        }
        Ok(())
    });
    // Not in memory, where the file system lets go of its pages (tmpfs has no other place for them).
    let path = scratch.0.join("file");
    let file = std::fs::File::open(&path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let mut byte = [0];
    let read = rustix::io::preadv2(
        &file,
        &mut [std::io::IoSliceMut::new(&mut byte)],
        0,
        rustix::io::ReadWriteFlags::NOWAIT,
    );
    if read != Err(rustix::io::Errno::AGAIN) {
        println!("skipped: the pages of {} stay in memory", path.display());
        return;
    }
    on_one_core(|| async move {
        let file = File::open(&path, OpenOptions::new()).await?;
        let (stream, reader) = read_elsewhere().await?;
        send_file(&stream, &file, 0..LEN, Road::Inline).await.expect("sent");
        let after = counters();
        // What was brought in by the first step, or read ahead with it, may be all.
        assert!(after.file_bytes_cold >= 4096, "{after}");
        assert_eq!(after.file_bytes_cold + after.file_bytes_inline, LEN, "{after}");
        drop(stream);
        annulus::spawn_blocking(move || reader.join().unwrap()).await.expect("no panic");
        Ok(())
    });
}

#[test]
fn bytes_of_relays_are_counted_by_their_road() {
    /// More than all receive buffers hold, so that some of it is bulk.
    const LEN: u64 = 8 << 20;
    for road in [Road::Inline, Road::Ring] {
        on_one_core(move || async move {
            let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let to = door.local_addr().unwrap();
            let upstream = thread::spawn(move || {
                let mut stream = door.accept().unwrap().0;
                let got = stream.read_to_end(&mut Vec::new()).unwrap();
                stream.write_all(&vec![2; LEN as usize]).unwrap();
                got
            });
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr();
            let client = thread::spawn(move || {
                let mut stream = Std::connect(address).unwrap();
                stream.write_all(&vec![1; LEN as usize]).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                stream.read_to_end(&mut Vec::new()).unwrap()
            });
            let (a, b) = (listener.accept().await?, TcpStream::connect(to).await?);
            let before = counters();
            let end = relay(a, b, road).await;
            end.result?;
            let after = counters();
            let moved = [
                after.relay_bytes_inline - before.relay_bytes_inline,
                after.relay_bytes_ring - before.relay_bytes_ring,
                after.relay_bytes_copied - before.relay_bytes_copied,
            ];
            // What is no more than a few words is copied.
            assert_eq!(moved.iter().sum::<u64>(), 2 * LEN, "{after}");
            let (this, other) = if road == Road::Inline { (0, 1) } else { (1, 0) };
            assert!(moved[this] > 0 && moved[other] == 0, "{road}: {after}");
            let ends =
                annulus::spawn_blocking(move || (client.join().unwrap(), upstream.join().unwrap())).await;
            assert_eq!(ends.expect("no panic"), (LEN as usize, LEN as usize));
            Ok(())
        });
    }
}

#[test]
fn a_pipe_that_still_holds_bytes_is_counted_as_spoilt() {
    let scratch = Scratch::new("counters-spoilt");
    let path = scratch.0.join("file");
    std::fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
    on_one_core(|| async move {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let _deaf = Std::connect(listener.local_addr()).unwrap();
        let stream = listener.accept().await?;
        let file = File::open(&path, OpenOptions::new()).await?;
        let before = counters();
        let sending = send_file(&stream, &file, 0..1 << 30, Road::Ring);
        assert!(annulus::time::timeout(Duration::from_millis(50), sending).await.is_err(), "it took 1 GiB");
        // The splice that was under way holds the pipe until the kernel has given it up.
        while counters().pipes_spoilt == before.pipes_spoilt {
            annulus::time::sleep(Duration::from_millis(1)).await;
        }
        let after = counters();
        assert_eq!((after.pipes_made - before.pipes_made, after.pipes_spoilt - before.pipes_spoilt), (1, 1));
        Ok(())
    });
}

/// A new counter needs a test that moves it. `ops_leaked` needs a kernel that does not give an operation back
/// for five seconds, which none has been made to do: every test of the library sees that it stays zero.
#[test]
fn every_counter_is_moved_by_a_test() {
    let tests = [
        include_str!("counters.rs"),
        include_str!("crowd.rs"),
        include_str!("exhaustion.rs"),
        include_str!("growth.rs"),
        include_str!("options.rs"),
        include_str!("rings.rs"),
        include_str!("seeing.rs"),
        include_str!("sends.rs"),
        include_str!("streams.rs"),
        include_str!("submit.rs"),
        include_str!("common/mod.rs"),
    ];
    let line = on_one_core(|| async { Ok(counters().to_string()) });
    let names = line.split(' ').map(|word| word.split_once('=').expect("name=value").0);
    let missing: Vec<_> =
        names.filter(|name| !tests.iter().any(|test| test.contains(&format!(".{name}")))).collect();
    assert!(missing.is_empty(), "no test speaks of {missing:?}");
}
