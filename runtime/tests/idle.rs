//! A core with nothing to do does nothing.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream as Std};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use annulus::Counters;
use annulus::net::TcpListener;
use annulus::{Running, spawn};
use common::small;

/// One core that echoes whatever comes, and its address.
fn echo() -> (Running, SocketAddr) {
    let (tx, rx) = mpsc::channel();
    let tx = Mutex::new(tx);
    let first = annulus::numa::thread::affinity_of_current().unwrap().first().unwrap();
    let runtime = small().cores(first.to_string().parse().unwrap()).build().unwrap();
    let running = runtime.start(move || {
        let tx = tx.lock().unwrap().clone();
        async move {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            tx.send(listener.local_addr()).expect("the test waits");
            spawn(async move {
                while let Ok(stream) = listener.accept().await {
                    while let Some(chunk) = stream.recv().await? {
                        stream.send_all(chunk).await?;
                    }
                }
                annulus::Ok(())
            })
            .detach();
            annulus::cores::stopping().await;
            annulus::Ok(())
        }
    });
    (running.unwrap(), rx.recv().unwrap())
}

fn counters(running: &Running) -> Counters {
    running.counters()[0]
}

/// Waits until the core sleeps: it has turned no further for a while.
fn asleep(running: &Running) -> Counters {
    loop {
        let before = counters(running);
        thread::sleep(Duration::from_millis(20));
        let now = counters(running);
        if now.parks > 0 && now.turns == before.turns {
            return now;
        }
    }
}

/// CPU time of the core's thread, in clock ticks (proc(5), `/proc/pid/task/tid/stat`).
fn ticks(running: &Running) -> u64 {
    let tid = running.report().cores[0].tid;
    let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// On a busy machine the last events come late. A core that stirs by itself stirs in every such time.
///
/// Seen to fail: with a `park` that wakes every 50 ms.
#[test]
fn without_events_a_core_neither_turns_nor_enters_nor_takes_cpu() {
    let (running, address) = echo();
    let _idle_clients: Vec<_> = (0..20).map(|_| Std::connect(address).unwrap()).collect();
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let before = asleep(&running);
        let used = ticks(&running);
        thread::sleep(Duration::from_millis(300));
        let (after, used) = (counters(&running), ticks(&running) - used);
        let stirs =
            [after.turns - before.turns, after.enters - before.enters, after.polls - before.polls, used];
        if stirs[..3] == [0; 3] && used <= 1 {
            break;
        }
        assert!(Instant::now() < patience, "turns, enters, polls and ticks of CPU in 300 ms: {stirs:?}");
    }
    running.stop();
    running.wait().unwrap();
}

/// Between events it sleeps, too: what it does is bounded by how many there were.
///
/// Seen to fail: with a core that looks at its ring ten times before it sleeps.
#[test]
fn what_a_core_does_is_bounded_by_its_events() {
    const EVENTS: u64 = 200;
    let (running, address) = echo();
    let mut client = Std::connect(address).unwrap();
    client.set_nodelay(true).unwrap();
    let before = asleep(&running);
    for _ in 0..EVENTS {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    let after = asleep(&running);
    // Bytes that came, and the result of the send; each may cost a tick of its own, and one that finds
    // nothing.
    let most = 5 * EVENTS + 20;
    let (turns, enters) = (after.turns - before.turns, after.enters - before.enters);
    assert!(turns <= most && enters <= most, "{turns} turns and {enters} enters for {EVENTS} echoes");
    running.stop();
    running.wait().unwrap();
}

/// Tasks of the machine that count as waiting for a disk now (proc(5), `/proc/stat`).
fn procs_blocked() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let line = stat.lines().find_map(|line| line.strip_prefix("procs_blocked ")).unwrap();
    line.trim().parse().unwrap()
}

/// Seen to fail: without `ENTER_NO_IOWAIT` the sleeping core is one more for as long as it sleeps.
#[test]
fn a_sleeping_core_is_not_counted_as_waiting_for_a_disk() {
    let looks = (0..50).map(|_| {
        thread::sleep(Duration::from_millis(2));
        procs_blocked()
    });
    let without_us = looks.min().unwrap();
    let (running, address) = echo();
    if running.report().cores[0].ring.no_iowait {
        let _idle_client = Std::connect(address).unwrap();
        asleep(&running);
        // Others may wait for disks meanwhile, but not all the time.
        let patience = Instant::now() + Duration::from_secs(20);
        while procs_blocked() > without_us {
            assert!(Instant::now() < patience, "never fewer than {} tasks wait for disks", without_us + 1);
            thread::sleep(Duration::from_millis(2));
        }
    } else {
        println!("not looked at: this kernel has no NO_IOWAIT (Linux 6.15)");
    }
    running.stop();
    running.wait().unwrap();
}
