//! Streams under the traits of futures-io. hyper's are shown at work by the integration tests.

mod common;

use std::future::{Future as _, poll_fn};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream as StdUnix;
use std::pin::{Pin, pin};
use std::thread;
use std::time::Duration;

use annulus::compat::{HyperTimer, Io};
use annulus::net::UnixStream;
use annulus::time::timeout;
use common::{bulk, on_one_core};
use futures_util::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter, copy, copy_buf};
use hyper::rt::Timer;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// One end for the runtime, one for a plain thread.
async fn pair() -> annulus::Result<(UnixStream, StdUnix)> {
    let (ours, theirs) = UnixStream::pair()?;
    let theirs = StdUnix::from(theirs.into_owned_fd().await?.0);
    theirs.set_nonblocking(false).unwrap();
    Ok((ours, theirs))
}

#[test]
fn halves_copy_every_byte_and_closing_ends_the_stream() {
    let len = bulk(8 << 20);
    on_one_core(move || async move {
        let (ours, theirs) = pair().await?;
        let peer = thread::spawn(move || {
            let mut back = theirs.try_clone().unwrap();
            let reads = thread::spawn(move || {
                let mut got = Vec::new();
                back.read_to_end(&mut got).unwrap();
                got
            });
            (&theirs).write_all(&pattern(len)).unwrap();
            theirs.shutdown(Shutdown::Write).unwrap();
            reads.join().unwrap()
        });
        let (reader, writer) = ours.split();
        let mut writer = Io::new(writer);
        assert_eq!(copy_buf(Io::new(reader), &mut writer).await.unwrap(), len as u64);
        writer.close().await.unwrap();
        assert!(peer.join().unwrap() == pattern(len));
        Ok(())
    });
}

/// The combinators of another crate, stacked: its buffers in both directions, its own split, its copy.
#[test]
fn foreign_buffers_split_and_copy_carry_every_byte() {
    let len = bulk(8 << 20);
    on_one_core(move || async move {
        let (ours, mut theirs) = pair().await?;
        let peer = thread::spawn(move || {
            let mut back = theirs.try_clone().unwrap();
            let reads = thread::spawn(move || {
                let mut got = Vec::new();
                back.read_to_end(&mut got).unwrap();
                got
            });
            for piece in pattern(len).chunks(7_777) {
                theirs.write_all(piece).unwrap();
            }
            theirs.shutdown(Shutdown::Write).unwrap();
            reads.join().unwrap()
        });
        let (reader, writer) = Io::new(ours).split();
        let (mut reader, mut writer) = (BufReader::with_capacity(5_000, reader), BufWriter::new(writer));
        // The first bytes by hand, through the buffer, and then all the rest.
        let mut first = [0; 100];
        reader.read_exact(&mut first).await.unwrap();
        writer.write_all(&first).await.unwrap();
        assert_eq!(copy(reader, &mut writer).await.unwrap(), len as u64 - 100);
        writer.close().await.unwrap();
        assert!(peer.join().unwrap() == pattern(len));
        Ok(())
    });
}

#[test]
fn reading_is_in_parts_and_the_rest_is_given_back() {
    on_one_core(|| async {
        let (ours, mut theirs) = pair().await?;
        theirs.write_all(b"first line\nsecond line\nand the rest").unwrap();
        let mut io = Io::new(ours);
        let mut line = String::new();
        assert_eq!(io.read_line(&mut line).await.unwrap(), 11);
        let mut word = [0; 6];
        io.read_exact(&mut word).await.unwrap();
        assert_eq!((&*line, &word), ("first line\n", b"second"));
        let ours = io.into_inner();
        assert_eq!(&*ours.recv().await?.expect("bytes"), b" line\nand the rest");
        Ok(())
    });
}

/// Seen to fail: with a send that has to wait dropped by the poll that finds it so, the next write is
/// refused.
#[test]
fn a_deadline_around_write_loses_nothing_that_was_accepted() {
    on_one_core(|| async {
        let (ours, mut theirs) = pair().await?;
        let mut io = Io::new(ours);
        // More than the socket holds, and nobody reads: some write has to wait.
        let (bytes, mut accepted) = (pattern(1 << 20), 0);
        while let Ok(n) = timeout(Duration::from_millis(20), io.write(&bytes[accepted..])).await {
            accepted += n.unwrap();
            assert!(accepted < bytes.len(), "1 MiB fitted into socket buffers");
        }
        assert!(timeout(Duration::from_millis(5), io.flush()).await.is_err());
        let peer = thread::spawn(move || {
            let mut got = Vec::new();
            theirs.read_to_end(&mut got).unwrap();
            got
        });
        io.close().await.unwrap();
        drop(io);
        assert!(peer.join().unwrap() == bytes[..accepted]);
        Ok(())
    });
}

#[test]
fn parts_that_are_written_together_arrive_in_order() {
    on_one_core(|| async {
        let (ours, mut theirs) = pair().await?;
        let mut io = Io::new(ours);
        let parts = [&b"head "[..], b"", b"body"].map(std::io::IoSlice::new);
        assert_eq!(io.write_vectored(&parts).await.unwrap(), 9);
        io.close().await.unwrap();
        let mut got = String::new();
        theirs.read_to_string(&mut got).unwrap();
        assert_eq!(got, "head body");
        drop(theirs);
        // It is known with the flush at the latest.
        let wrote = match io.write(b"to nobody").await {
            Ok(_) => io.flush().await,
            Err(e) => Err(e),
        };
        assert_eq!(wrote.expect_err("closed").raw_os_error(), Some(libc::EPIPE));
        Ok(())
    });
}

#[test]
fn hypers_timers_fire_at_home_and_may_be_dropped_anywhere() {
    on_one_core(|| async {
        let begun = std::time::Instant::now();
        HyperTimer.sleep(Duration::from_millis(3)).await;
        assert!(begun.elapsed() >= Duration::from_millis(3));
        let armed = |after| {
            let mut sleep = HyperTimer.sleep(after);
            poll_fn(move |cx| {
                let pending = sleep.as_mut().poll(cx).is_pending();
                std::task::Poll::Ready((
                    pending,
                    std::mem::replace(&mut sleep, HyperTimer.sleep(Duration::ZERO)),
                ))
            })
        };
        let (pending, elsewhere) = armed(Duration::from_millis(5)).await;
        assert!(pending);
        thread::spawn(move || drop(elsewhere)).join().unwrap();
        let (_, mut polled) = armed(Duration::from_secs(60)).await;
        let stranger = thread::spawn(move || {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            let _ = pin!(Pin::new(&mut polled)).as_mut().poll(&mut cx);
        });
        assert!(stranger.join().is_err(), "polled away from its core");
        // The one that was dropped elsewhere fires in vain.
        annulus::time::sleep(Duration::from_millis(6)).await;
        Ok(())
    });
}

/// Behind another that waited, and gave up: the half that writes keeps the socket, and with it the list of
/// those that wait.
///
/// Seen to fail: with the place kept when the `Io` is dropped, as it was.
#[test]
fn an_io_that_is_dropped_takes_its_waker_along() {
    struct Idle;
    impl std::task::Wake for Idle {
        fn wake(self: std::sync::Arc<Self>) {}
    }
    on_one_core(|| async {
        let (ours, _theirs) = pair().await?;
        let (reader, _writer) = ours.split();
        let [first, second] = [(); 2].map(|()| std::sync::Arc::new(Idle));
        let waker = std::sync::Arc::clone(&first).into();
        let gives_up = pin!(reader.recv()).poll(&mut std::task::Context::from_waker(&waker)).is_pending();
        assert!(gives_up, "nothing was sent");
        let mut io = Io::new(reader);
        let waker: std::task::Waker = std::sync::Arc::clone(&second).into();
        let waits = pin!(io.fill_buf()).poll(&mut std::task::Context::from_waker(&waker)).is_pending();
        assert!(waits, "nothing was sent");
        drop(waker);
        assert_eq!(std::sync::Arc::strong_count(&second), 2, "it waits");
        drop(io);
        assert_eq!(std::sync::Arc::strong_count(&second), 1, "nobody wakes it any more");
        Ok(())
    });
}
