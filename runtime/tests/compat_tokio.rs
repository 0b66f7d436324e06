//! Streams and descriptors under the traits of tokio, and what stays on its core among those who ask for
//! `Send`.

mod common;

use std::cell::Cell;
use std::io::{IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnix;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use annulus::compat::{FdIo, HyperOverFutures, HyperOverTokio, Io, OnCore};
use annulus::net::{TcpListener, TcpStream, UnixStream};
use annulus::pipe::pipe;
use annulus::time::timeout;
use common::wire::pattern;
use common::{bulk, on_one_core};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};

/// One end for the runtime, one for a plain thread.
async fn pair() -> annulus::Result<(UnixStream, StdUnix)> {
    let (ours, theirs) = UnixStream::pair()?;
    let theirs = StdUnix::from(theirs.into_owned_fd().await?.0);
    theirs.set_nonblocking(false).unwrap();
    Ok((ours, theirs))
}

/// TCP and Unix, each as both ends, by tokio's own relay.
///
/// Seen to fail: with a shutdown that does not flush.
#[test]
fn a_relay_of_tokios_carries_every_byte_both_ways() {
    let len = bulk(4 << 20);
    on_one_core(move || async move {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut front = Io::new(TcpStream::connect(listener.local_addr()).await?);
        let client = listener.accept().await?;
        let (back, mut server) = pair().await?;
        let echo = thread::spawn(move || {
            let mut got = Vec::new();
            server.read_to_end(&mut got).unwrap();
            server.write_all(&got).unwrap();
            server.shutdown(Shutdown::Write).unwrap();
        });
        let relayed = annulus::spawn(async move {
            let mut back = Io::new(back);
            let moved = copy_bidirectional(&mut front, &mut back).await.unwrap();
            back.shutdown().await.unwrap();
            front.shutdown().await.unwrap();
            moved
        });
        let (reader, writer) = client.split();
        let sends = annulus::spawn(async move {
            let mut writer = Io::new(writer);
            writer.write_all(&pattern(0, len)).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        Io::new(reader).read_to_end(&mut got).await.unwrap();
        assert!(got == pattern(0, len));
        sends.await.unwrap();
        assert_eq!(relayed.await.unwrap(), (len as u64, len as u64));
        annulus::spawn_blocking(move || echo.join().unwrap()).await?;
        Ok(())
    });
}

#[test]
fn lines_and_parts_of_them_are_read_and_parts_are_written_together() {
    on_one_core(|| async {
        let (ours, mut theirs) = pair().await?;
        theirs.write_all(b"first line\nsecond line\nand the rest").unwrap();
        let mut io = Io::new(ours);
        let mut line = String::new();
        assert_eq!(io.read_line(&mut line).await.unwrap(), 11);
        let mut word = [0; 6];
        io.read_exact(&mut word).await.unwrap();
        assert_eq!((&*line, &word), ("first line\n", b"second"));
        assert!(io.is_write_vectored());
        let parts = [&b"head "[..], b"", b"body"].map(IoSlice::new);
        assert_eq!(io.write_vectored(&parts).await.unwrap(), 9);
        io.shutdown().await.unwrap();
        let mut got = String::new();
        theirs.read_to_string(&mut got).unwrap();
        assert_eq!(got, "head body");
        let ours = io.into_inner();
        assert_eq!(&*ours.recv().await?.expect("bytes"), b" line\nand the rest");
        Ok(())
    });
}

/// More than a pipe holds, so both sides wait. Seen to fail: with a wait that is kept when it is over.
#[test]
fn a_pipe_carries_every_byte_and_closing_it_ends_it() {
    let len = bulk(4 << 20);
    on_one_core(move || async move {
        let (reader, writer) = pipe()?;
        let (mut reader, mut writer) = (FdIo::new(reader)?, FdIo::new(writer)?);
        let writes = annulus::spawn(async move {
            let bytes = pattern(0, len);
            let mut from = 0;
            while from < len {
                // In two parts, of which the first may end anywhere.
                let (a, b) = bytes[from..].split_at((len - from).min(5000));
                from += writer.write_vectored(&[IoSlice::new(a), IoSlice::new(b)]).await.unwrap();
            }
            writer.shutdown().await.unwrap();
            let after = writer.write(b"x").await.unwrap_err();
            assert_eq!(after.kind(), std::io::ErrorKind::BrokenPipe);
            assert!(writer.get_ref().is_none());
        });
        // A deadline around a read that waits loses nothing.
        let mut first = [0; 1];
        let (empty, other) = pipe()?;
        let mut empty = FdIo::new(empty)?;
        assert!(timeout(Duration::from_millis(5), empty.read(&mut first)).await.is_err());
        other.write_all("y").await?;
        assert_eq!(empty.read(&mut first).await.unwrap(), 1);
        assert_eq!(&first, b"y");
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.unwrap();
        assert!(got == pattern(0, len));
        writes.await.unwrap();
        Ok(())
    });
}

/// By the traits of futures-io, on a descriptor of another kind, which is made non-blocking.
#[test]
fn any_descriptor_is_a_stream() {
    on_one_core(|| async {
        let (a, b) = StdUnix::pair().unwrap();
        let (mut a, mut b) = (FdIo::new(a)?, FdIo::new(b)?);
        let flags = rustix::fs::fcntl_getfl(a.get_ref().unwrap().as_fd()).unwrap();
        assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
        let reads = annulus::spawn(async move {
            let mut got = String::new();
            futures_util::AsyncReadExt::read_to_string(&mut b, &mut got).await.unwrap();
            got
        });
        annulus::yield_now().await;
        futures_util::AsyncWriteExt::write_all(&mut a, b"through a socket of std").await.unwrap();
        futures_util::AsyncWriteExt::close(&mut a).await.unwrap();
        assert_eq!(reads.await.unwrap(), "through a socket of std");
        let (mut closed, _) = (FdIo::new(StdUnix::pair().unwrap().0)?, ());
        assert_eq!(closed.read(&mut [0; 4]).await.unwrap(), 0, "its peer has gone");
        assert!(closed.write(b"x").await.is_err());
        Ok(())
    });
}

/// A request over two layers, by each of the adapters.
#[test]
fn hyper_serves_over_streams_that_were_made_of_ours() {
    use http_body_util::{BodyExt, Full};
    use hyper::body::Bytes;
    use hyper::{Request, Response};
    on_one_core(|| async {
        for tokios in [true, false] {
            let (client, server) = UnixStream::pair()?;
            let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async {
                let body = request.into_body().collect().await?.to_bytes();
                Ok::<_, hyper::Error>(Response::new(Full::new(body)))
            });
            let serves = annulus::spawn(async move {
                let http = hyper::server::conn::http1::Builder::new();
                // Another crate's layer between the two.
                if tokios {
                    let layer = tokio::io::BufStream::new(Io::new(server));
                    http.serve_connection(HyperOverTokio(layer), service).await
                } else {
                    let layer = futures_util::io::BufReader::new(Io::new(server));
                    http.serve_connection(HyperOverFutures(layer), service).await
                }
            });
            let stream = HyperOverTokio(Io::new(client));
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
            let connection = annulus::spawn(connection);
            let sent = pattern(0, 100_000);
            let request = Request::post("/").body(Full::new(Bytes::from(sent.clone()))).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(body == sent, "by tokio's traits: {tokios}");
            drop(sender);
            connection.await.unwrap().unwrap();
            serves.await.unwrap().unwrap();
        }
        Ok(())
    });
}

#[derive(Debug)]
struct Silent;

/// Seen to fail: without the look at the core in `deref` and `poll`.
#[test]
fn what_stays_on_its_core_panics_elsewhere_and_is_leaked_there() {
    struct Told(Rc<Cell<u32>>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    on_one_core(|| async {
        let dropped = Rc::new(Cell::new(0));
        let here = OnCore::new(Rc::new(Told(Rc::clone(&dropped))));
        assert_eq!(here.clone().0.get(), 0);
        let held = here.clone();
        let future = OnCore::new(async move {
            annulus::yield_now().await;
            held.0.get()
        });
        assert_eq!(future.await, 0);
        let (elsewhere, never) = (here.clone(), OnCore::new(std::future::pending::<()>()));
        let silent = OnCore::new(Silent);
        assert_eq!(format!("{silent:?}"), "OnCore(Silent)");
        let panicked = annulus::spawn_blocking(move || {
            let mut never = never;
            let used = catch_unwind(AssertUnwindSafe(|| elsewhere.0.get())).is_err();
            let polled = catch_unwind(AssertUnwindSafe(|| {
                // SAFETY: it is dropped in this closure's frame and not moved after this.
                let pinned = unsafe { Pin::new_unchecked(&mut never) };
                let polled: Poll<()> =
                    std::future::Future::poll(pinned, &mut Context::from_waker(Waker::noop()));
                polled.is_pending()
            }));
            (used, polled.is_err(), format!("{silent:?}"))
        });
        let (used, polled, told) = panicked.await?;
        assert!(used && polled);
        assert_eq!(told, "OnCore(..)");
        assert_eq!(Rc::strong_count(&here), 2, "what was dropped there is leaked");
        let inner = here.into_inner();
        drop(inner);
        assert_eq!(dropped.get(), 0);
        Ok(())
    });
}

/// What was pinned keeps its memory until it is dropped: others may know it by its address, as a list does of
/// which it is a link. Dropped elsewhere it is never dropped.
#[test]
fn what_is_leaked_elsewhere_keeps_its_memory() {
    on_one_core(|| async {
        let pinned = Box::pin(OnCore::new([7_u8; 64]));
        let (outer, inner) = (std::ptr::from_ref(&*pinned).addr(), pinned.as_ptr().addr());
        assert!(!(outer..outer + size_of::<OnCore<[u8; 64]>>()).contains(&inner));
        annulus::spawn_blocking(move || drop(pinned)).await?;
        Ok(())
    });
}
