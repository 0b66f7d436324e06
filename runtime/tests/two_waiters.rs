//! Two tasks that wait for the same thing, which comes twice: each gets one. And one waits behind another
//! that has given up, or that is not polled any more.
//!
//! Seen to fail: with one waker for all that wait (`accept`, `recv` of a connection and of datagrams,
//! `quiesce` beside them), the earlier task sleeps for ever.

mod common;

use std::future::{Future, poll_fn};
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use annulus::buf::Block;
use annulus::fd::{AsyncFd, Interest};
use annulus::fs::{Dir, TempDir, Watcher};
use annulus::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use annulus::net::{UnixDatagram, UnixSeqpacket, UnixSeqpacketListener};
use annulus::pipe::pipe;
use annulus::signal::{Signal, Signals, block_before_threads};
use annulus::time::timeout;
use annulus::{Result, TaskTracker, spawn};
use common::on_one_core;
use rustix::event::{EventfdFlags, eventfd};

/// Long enough for what must happen, on any machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Lets the tasks that were spawned come to their waits.
async fn settle() {
    for _ in 0..10 {
        annulus::yield_now().await;
    }
}

/// Polls once a future that is not ready then.
async fn begin(future: &mut Pin<&mut impl Future>) {
    poll_fn(|cx| {
        assert!(future.as_mut().poll(cx).is_pending(), "nothing has come yet");
        Poll::Ready(())
    })
    .await;
}

/// `wait` waits for one of the things of which `make_one` makes one.
async fn each_gets_one<S, W, M>(
    shared: S,
    wait: impl Fn(Rc<S>) -> W + Clone + 'static,
    mut make_one: impl FnMut() -> M,
) where
    S: 'static,
    W: Future<Output = ()> + 'static,
    M: Future<Output = ()>,
{
    let shared = Rc::new(shared);
    let waits = || {
        let (shared, wait) = (Rc::clone(&shared), wait.clone());
        async move { wait(shared).await }
    };
    let both = "each of two that wait gets one";
    let (first, second) = (spawn(waits()), spawn(waits()));
    settle().await;
    make_one().await;
    make_one().await;
    timeout(PATIENCE, first).await.expect(both).unwrap();
    timeout(PATIENCE, second).await.expect(both).unwrap();
    // One gives up, before or after the other came.
    for gives_up_first in [true, false] {
        let (first, second) = (spawn(waits()), spawn(waits()));
        settle().await;
        let (gives_up, stays) = if gives_up_first { (first, second) } else { (second, first) };
        drop(gives_up);
        settle().await;
        make_one().await;
        timeout(PATIENCE, stays).await.expect("the one that is left gets it").unwrap();
    }
    // One is there and is not polled.
    for asleep_first in [true, false] {
        let mut asleep = pin!(waits());
        let other = if asleep_first {
            begin(&mut asleep).await;
            spawn(waits())
        } else {
            let other = spawn(waits());
            settle().await;
            begin(&mut asleep).await;
            other
        };
        settle().await;
        make_one().await;
        timeout(PATIENCE, other).await.expect("nobody waits for one that is not polled").unwrap();
    }
}

#[test]
fn accept() {
    on_one_core(|| async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr();
        let wait = |listener: Rc<TcpListener>| async move { drop(listener.accept().await.unwrap()) };
        each_gets_one(listener, wait, || async { drop(TcpStream::connect(address).await.unwrap()) }).await;
        let path = std::env::temp_dir().join(format!("annulus-two-waiters-{}", std::process::id()));
        let listener = UnixListener::bind(&path).await?;
        let wait = |listener: Rc<UnixListener>| async move { drop(listener.accept().await.unwrap()) };
        each_gets_one(listener, wait, || async { drop(UnixStream::connect(&path).await.unwrap()) }).await;
        Ok(())
    });
}

/// A connection whose far end sends without delay.
async fn connected() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()).await?;
    Ok((near, listener.accept().await?))
}

#[test]
fn recv_of_a_connection() {
    on_one_core(|| async {
        let (near, far) = connected().await?;
        let wait =
            |near: Rc<TcpStream>| async move { assert_eq!(near.recv().await.unwrap().unwrap()[..], *b"x") };
        each_gets_one(near, wait, || async {
            far.send_all("x").await.unwrap();
            // Not two in one chunk.
            settle().await;
        })
        .await;
        Ok(())
    });
}

#[test]
fn quiesce_beside_recv() {
    on_one_core(|| async {
        let (near, far) = connected().await?;
        let near = Rc::new(near);
        let reader = spawn({
            let near = Rc::clone(&near);
            async move { near.recv().await.unwrap().map(|bytes| bytes.to_vec()) }
        });
        settle().await;
        // It ends the receive, whose last word wakes both: the reader arms anew.
        timeout(PATIENCE, near.quiesce()).await.expect("quiet");
        far.send_all("x").await?;
        let got = timeout(PATIENCE, reader).await.expect("the reader was there first").unwrap();
        assert_eq!(got, Some(b"x".to_vec()));
        Ok(())
    });
}

#[test]
fn recv_of_datagrams() {
    on_one_core(|| async {
        let (near, far) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        let to = near.local_addr()?;
        let wait = |near: Rc<UdpSocket>| async move { drop(near.recv().await.unwrap()) };
        each_gets_one(near, wait, || async { assert_eq!(far.send_to("x", to).await.unwrap(), "x") }).await;
        Ok(())
    });
}

#[test]
fn sends_that_wait_for_their_turn() {
    on_one_core(|| async {
        let (near, far) = connected().await?;
        let near = Rc::new(near);
        let send = || {
            let near = Rc::clone(&near);
            spawn(async move { near.send_all(vec![1; 16 << 20]).await.map(drop) })
        };
        let (first, second, third) = (send(), send(), send());
        settle().await;
        drop(second);
        let reader = spawn(async move {
            let mut got = 0;
            while let Some(chunk) = far.recv().await.unwrap() {
                got += chunk.len();
            }
            got
        });
        timeout(PATIENCE, first).await.expect("the first has its turn").unwrap()?;
        timeout(PATIENCE, third).await.expect("the third has the turn of the second").unwrap()?;
        near.shutdown(std::net::Shutdown::Write)?;
        assert_eq!(timeout(PATIENCE, reader).await.expect("the end").unwrap(), 32 << 20);
        Ok(())
    });
}

#[test]
fn a_pipe_that_is_read_and_one_that_is_full() {
    on_one_core(|| async {
        let (reader, writer) = pipe()?;
        let wait = |reader: Rc<annulus::pipe::PipeReader>| async move {
            drop(reader.read(Vec::with_capacity(1)).await.unwrap());
        };
        each_gets_one(reader, wait, || async { assert_eq!(writer.write("x").await.unwrap().0, 1) }).await;
        let (reader, writer) = pipe()?;
        let size = reader.size()?;
        writer.write_all(vec![0; size]).await?;
        let wait = |writer: Rc<annulus::pipe::PipeWriter>| async move {
            writer.write_all(vec![0; 4096]).await.unwrap();
        };
        each_gets_one(writer, wait, || async {
            let (n, _) = reader.read(Vec::with_capacity(4096)).await.unwrap();
            assert_eq!(n, 4096);
        })
        .await;
        Ok(())
    });
}

#[test]
fn blocks_of_the_pool() {
    on_one_core(|| async {
        let mut all: Vec<_> = std::iter::from_fn(Block::take).collect();
        let waits = || spawn(async { drop(Block::get().await) });
        let (first, second) = (waits(), waits());
        settle().await;
        drop(first);
        settle().await;
        all.pop();
        timeout(PATIENCE, second).await.expect("the second has the turn of the first").unwrap();
        Ok(())
    });
}

#[test]
fn the_stop_is_told_to_all() {
    on_one_core(|| async {
        let waits = || spawn(annulus::cores::stopping());
        let (first, second, third) = (waits(), waits(), waits());
        settle().await;
        drop(second);
        annulus::cores::handle().stop();
        for waits in [first, third] {
            timeout(PATIENCE, waits).await.expect("told of the stop").unwrap();
        }
        Ok(())
    });
}

#[test]
fn recv_of_signals() {
    // One of those that queue: of the others a second that comes before the first was taken is the same one.
    let queued = Signal::from_raw(libc::SIGRTMIN()).unwrap();
    // For this test's thread, and the core that it starts.
    block_before_threads(&[queued]).unwrap();
    on_one_core(move || async move {
        let signals = Signals::new(&[queued])?;
        let wait = |signals: Rc<Signals>| async move { signals.recv().await.map(drop).unwrap() };
        each_gets_one(signals, wait, || async {
            // SAFETY: raise(3) with a valid number; the calling thread, which is the core's, blocks it.
            assert_eq!(unsafe { libc::raise(queued.as_raw()) }, 0);
        })
        .await;
        Ok(())
    });
}

#[test]
fn recv_into_a_buffer() {
    on_one_core(|| async {
        let (near, far) = connected().await?;
        let wait = |near: Rc<TcpStream>| async move {
            assert_eq!(near.recv_into(Vec::with_capacity(1)).await.unwrap().1, b"x");
        };
        each_gets_one(near, wait, || async { assert_eq!(far.send_all("x").await.unwrap(), "x") }).await;
        Ok(())
    });
}

#[test]
fn any_descriptor() {
    on_one_core(|| async {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE;
        let event = AsyncFd::new(eventfd(0, flags).unwrap());
        let one = event.clone();
        let wait = |event: Rc<AsyncFd<OwnedFd>>| async move {
            let taken = event.io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut [0; 8])?)).await;
            assert_eq!(taken.unwrap(), 8);
        };
        each_gets_one(event, wait, || async {
            assert_eq!(rustix::io::write(one.get_ref(), &1_u64.to_ne_bytes()), Ok(8));
        })
        .await;
        Ok(())
    });
}

#[test]
fn unix_datagrams_and_packets() {
    on_one_core(|| async {
        let (near, far) = UnixDatagram::pair()?;
        let wait = |near: Rc<UnixDatagram>| async move {
            assert_eq!(near.recv(Vec::with_capacity(8)).await.unwrap().buf, b"x");
        };
        each_gets_one(near, wait, || async { assert_eq!(far.send("x").await.unwrap(), "x") }).await;
        let (near, far) = UnixSeqpacket::pair()?;
        let wait = |near: Rc<UnixSeqpacket>| async move {
            assert_eq!(near.recv(Vec::with_capacity(8)).await.unwrap().buf, b"x");
        };
        each_gets_one(near, wait, || async { assert_eq!(far.send("x").await.unwrap(), "x") }).await;
        let path = std::env::temp_dir().join(format!("annulus-two-packets-{}", std::process::id()));
        let listener = UnixSeqpacketListener::bind(&path).await?;
        let wait = |listener: Rc<UnixSeqpacketListener>| async move {
            drop(listener.accept().await.unwrap());
        };
        each_gets_one(listener, wait, || async { drop(UnixSeqpacket::connect(&path).await.unwrap()) }).await;
        std::fs::remove_file(path)?;
        Ok(())
    });
}

#[test]
fn changes_in_a_directory() {
    on_one_core(|| async {
        let place = TempDir::new().await?;
        let (dir, watcher) = (Dir::open(place.path()).await?, Watcher::new()?);
        watcher.watch(&dir, ".").await?;
        let wait = |watcher: Rc<Watcher>| async move {
            watcher.changed().await.unwrap();
            watcher.take(|_| ()).unwrap();
        };
        each_gets_one(watcher, wait, || async {
            std::fs::write(place.path().join("name"), "x").unwrap();
            settle().await;
        })
        .await;
        Ok(())
    });
}

/// Seen to fail: with the first woken only.
#[test]
fn the_end_of_tracked_tasks_is_told_to_all() {
    on_one_core(|| async {
        let tracker = TaskTracker::new();
        let (tell, told) = annulus::channel::oneshot::<()>();
        tracker.spawn(told);
        let waits = || {
            let tracker = tracker.clone();
            spawn(async move { tracker.all_ended().await })
        };
        let (first, second, third) = (waits(), waits(), waits());
        settle().await;
        drop(second);
        tell.send(()).unwrap();
        for waits in [first, third] {
            timeout(PATIENCE, waits).await.expect("told of the end").unwrap();
        }
        Ok(())
    });
}
