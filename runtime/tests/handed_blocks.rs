//! Connections that are given away while the network still holds blocks that were sent over them without a
//! copy.

mod common;

use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpStream as Std;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use annulus::net::TcpStream;
use annulus::{Builder, Result, Running, cores, time};
use common::wire::{block, free_blocks, jammed, pattern, reader};
use common::{must_end, on_one_core_of, one_cpu, small, two_cpus};

/// Ten of these, in tests beside each other, are within what an unprivileged user may lock: a block beyond
/// that is copied, and nothing is lent.
fn tiny() -> Builder {
    small().pool_bytes(1 << 20).pool_limit(1 << 20).ring_entries(256)
}

/// A runtime on the cores of `list` which gives a peer that does not read no time at all. Each core does
/// `root`; those but the first then wait for the stop.
fn impatient<T, Fut>(list: &str, root: fn(Sender<T>) -> Fut) -> (Running, T)
where
    T: Send + 'static,
    Fut: Future<Output = Result<()>> + 'static,
{
    let (tx, rx) = mpsc::channel();
    let tx = std::sync::Mutex::new(tx);
    let settings = tiny().cores(list.parse().unwrap()).zero_copy_patience(Duration::from_millis(10));
    let running = settings.build().unwrap().start(move || {
        let tx = tx.lock().unwrap().clone();
        async move {
            if cores::index() == 0 {
                return root(tx).await;
            }
            cores::stopping().await;
            annulus::Ok(())
        }
    });
    (running.unwrap(), rx.recv().unwrap())
}

/// Has a connection until its core ends.
async fn keep(stream: TcpStream) {
    let _stream = stream;
    std::future::pending::<()>().await;
}

/// Lends a block to the network, gives the connection to core 1, and tells of the peer.
async fn lend_and_hand_over(tell: Sender<Std>) -> Result<()> {
    let (stream, client, _) = jammed().await?;
    stream.send_zc(block(0, 60_000)).await?;
    stream.hand_over(1, keep).await?;
    tell.send(client).unwrap();
    Ok(())
}

/// Waits until core 0 has looked for its blocks several times since it came to its end, or has taken them by
/// force.
fn is_at_its_end(running: &Running) {
    let handle = running.handle();
    while handle.submit_to_blocking(0, async || ()).is_ok() {}
    let before = running.counters()[0].enters;
    while running.counters()[0].enters < before + 10 && running.counters()[0].zc_resets == 0 {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(running.counters()[0].zc_resets, 0, "it has reset what is another's");
}

/// Seen to fail: with a reset of whatever is lent at the end, the peer's read fails with ECONNRESET.
#[test]
fn a_connection_on_another_core_outlives_the_end_of_the_one_that_it_came_from() {
    let Some(cpus) = two_cpus() else { return };
    let (running, (mut client, before)) = impatient(&cpus, |tell: Sender<(Std, usize)>| async move {
        let (stream, client, before) = jammed().await?;
        let all = free_blocks();
        stream.send_zc(block(0, 60_000)).await?;
        assert_eq!(free_blocks(), all - 1, "not lent: the test shows nothing");
        // It has the connection until the peer has read everything.
        let goes_on = async |stream: TcpStream| {
            stream.send_all("the end").await.unwrap();
            assert_eq!(&*stream.recv().await.unwrap().expect("an answer"), b"read");
        };
        stream.hand_over(1, goes_on).await?;
        tell.send((client, before)).unwrap();
        annulus::Ok(())
    });
    is_at_its_end(&running);
    let expected = [vec![0; before], pattern(0, 60_000), b"the end".to_vec()].concat();
    let mut got = vec![1; expected.len()];
    client.read_exact(&mut got).unwrap();
    assert!(got == expected);
    client.write_all(b"read").unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    running.stop();
    must_end(running);
}

/// Seen to fail: as above.
#[test]
fn a_descriptor_outlives_the_runtime_that_gave_it_up() {
    let (running, (fd, client, before)) =
        impatient(&one_cpu(), |tell: Sender<(OwnedFd, Std, usize)>| async move {
            let (stream, client, before) = jammed().await?;
            let all = free_blocks();
            stream.send_zc(block(0, 60_000)).await?;
            assert_eq!(free_blocks(), all - 1, "not lent: the test shows nothing");
            tell.send((stream.into_owned_fd().await?.0, client, before)).unwrap();
            annulus::Ok(())
        });
    is_at_its_end(&running);
    drop(fd);
    let got = reader(client).join().unwrap();
    assert!(got == [vec![0; before], pattern(0, 60_000)].concat());
    running.stop();
    must_end(running);
}

/// The end of both at once. Seen to fail, by operations that are leaked: with what was handed over never
/// reset.
#[test]
fn the_end_of_all_cores_takes_back_what_was_lent_on_one_and_handed_to_another() {
    let Some(cpus) = two_cpus() else { return };
    let (running, mut client) = impatient(&cpus, |tell| async move {
        lend_and_hand_over(tell).await?;
        cores::stopping().await;
        annulus::Ok(())
    });
    running.stop();
    must_end(running);
    client.read_to_end(&mut Vec::new()).expect_err("reset");
}

/// A core that has come to its end long before the others, which still have its connection. Seen to fail:
/// with no look at what is lent when all have ended.
#[test]
fn what_was_lent_comes_back_at_the_end_of_the_last_core() {
    let Some(cpus) = two_cpus() else { return };
    let (running, mut client) = impatient(&cpus, lend_and_hand_over);
    let leaked = || running.counters()[0].ops_leaked;
    let wait_until = |is_so: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} operations are out", leaked());
            thread::sleep(Duration::from_millis(5));
        }
    };
    wait_until(&|| leaked() == 1);
    running.stop();
    wait_until(&|| leaked() == 0);
    running.wait().unwrap();
    client.read_to_end(&mut Vec::new()).expect_err("reset");
}

/// Seen to fail, by waiting for ever: with nobody who sees to the blocks once the connection has been packed.
#[test]
fn a_connection_that_was_handed_over_and_closed_gives_its_blocks_back() {
    on_one_core_of(tiny().zero_copy_patience(Duration::from_millis(20)), || async {
        let all = free_blocks();
        let (stream, mut client, _) = jammed().await?;
        stream.send_zc(block(0, 60_000)).await?;
        let stream = stream.detach().await?.attach();
        // There is no event for what must not come: some spans of patience.
        time::sleep(Duration::from_millis(100)).await;
        assert_eq!((cores::counters().zc_resets, free_blocks()), (0, all - 1), "reset while somebody has it");
        drop(stream);
        while free_blocks() < all {
            annulus::yield_now().await;
        }
        assert_eq!(cores::counters().zc_resets, 1);
        client.read_to_end(&mut Vec::new()).expect_err("reset");
        Ok(())
    });
}
