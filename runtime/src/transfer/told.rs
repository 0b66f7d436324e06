//! A reset that the kernel has told to a send, whose completion waits in the ring or says nothing of it. The
//! kernel tells it once, so receives find what looks like an orderly end.

use std::future::{Future, poll_fn};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream as StdStream;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use rustix::net::{SendFlags, connect_unspec, send};

use super::{RelayCause, Road, relay, splice};
use crate::core::Core;
use crate::net::TcpStream;
use crate::net::sys::delivery;
use crate::testing::{let_kernel, on_a_core, small, until};
use crate::{JoinHandle, pipe, spawn, yield_now};

/// More than a connection has room for.
const MUCH: usize = 64 << 20;
/// More than one receive takes, less than a pipe holds.
const BYTES: usize = 20_000;

fn pair() -> (TcpStream, StdStream) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let peer = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    (TcpStream::from_std(listener.accept().unwrap().0).unwrap(), peer)
}

/// A connection that has no room, because its peer takes nothing.
fn full() -> (TcpStream, StdStream) {
    let (stream, peer) = pair();
    loop {
        while send(stream.as_fd(), &[0; 4096], SendFlags::DONTWAIT).is_ok() {}
        if delivery(stream.as_fd()).is_some_and(|it| it.unacknowledged == 0 && it.not_sent > 0) {
            return (stream, peer);
        }
        std::thread::yield_now();
    }
}

fn in_kernel() -> usize {
    Core::with(|core| core.ops.in_kernel())
}

/// Resets the connection from its peer's side. A send is told, and its completion waits in the ring.
fn reset_by(peer: &StdStream) {
    connect_unspec(peer).expect("a reset");
    let_kernel("the send is told", |core| core.ring.completions() > 0);
}

async fn poll_once<T>(mut future: Pin<&mut impl Future<Output = T>>) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

/// Has so many bytes sent, again and again until that fails, and returns when a send waits: there may be room
/// yet for some.
async fn sends(stream: &Rc<TcpStream>, bytes: usize) -> JoinHandle<()> {
    let (before, stream) = (in_kernel(), Rc::clone(stream));
    let sends = spawn(async move { while stream.send_all(vec![1; bytes]).await.is_ok() {} });
    until("the send is under way", || in_kernel() > before).await;
    sends
}

/// Seen to fail: with an end that is believed while bytes are under way to the one that has ended.
#[test]
fn a_relay_passes_it_on() {
    on_a_core(small(64), async || {
        let ((a, mut client), (b, mut upstream)) = (full(), pair());
        // It is polled by hand, because what matters is what it finds between two ticks.
        let mut joined = pin!(relay(a, b, Road::Inline));
        // There may be room yet for a message.
        while !joined.held_up().1 {
            upstream.write_all(&[1; 100]).unwrap();
            assert!(!poll_once(joined.as_mut()).await);
            yield_now().await;
        }
        let before = in_kernel();
        client.write_all(&[2; BYTES]).unwrap();
        until("the relay is told of the bytes", || in_kernel() < before).await;
        reset_by(&client);
        assert!(!poll_once(joined.as_mut()).await, "it is not known how the client has ended");
        let end = joined.await;
        assert_eq!(end.cause, RelayCause::FailedA, "{end:?}");
        let read = crate::spawn_blocking(move || {
            let mut read = Vec::new();
            let end = upstream.read_to_end(&mut read);
            (read.len(), end.map_err(|e| e.kind()))
        });
        assert_eq!(read.await.unwrap(), (BYTES, Err(ErrorKind::ConnectionReset)));
    });
}

/// Seen to fail: with the end that `splice(2)` finds.
#[test]
fn a_splice_tells_it() {
    on_a_core(small(64), async || {
        let (stream, peer) = full();
        let stream = Rc::new(stream);
        let (_reader, writer) = pipe::pipe().unwrap();
        let sends = sends(&stream, 100).await;
        reset_by(&peer);
        splice(&*stream, &writer, 100).await.expect_err("a reset is no end");
        sends.await.unwrap();
    });
}

/// A send that was taken in part returns how much that was, and the next one `EPIPE`.
///
/// Seen to fail: with nobody asking whether the peer's end had come.
#[test]
fn a_send_that_hides_it_costs_no_receive_the_news() {
    on_a_core(small(64), async || {
        for how in ["recv", "recv_into"] {
            let (stream, peer) = pair();
            let stream = Rc::new(stream);
            let sends = sends(&stream, MUCH).await;
            peer.set_nonblocking(true).unwrap();
            until("some of it has arrived", || peer.peek(&mut [0]).is_ok()).await;
            connect_unspec(&peer).expect("a reset");
            sends.await.unwrap();
            let found = match how {
                "recv" => stream.recv().await.map(drop),
                _ => stream.recv_into(Vec::with_capacity(100)).await.map(drop).map_err(|e| e.error),
            };
            found.expect_err(how);
        }
    });
}

/// Seen to fail: with the end that `recv(2)` finds.
#[test]
fn a_receive_into_a_buffer_tells_it() {
    on_a_core(small(64), async || {
        let (stream, peer) = full();
        let stream = Rc::new(stream);
        let sends = sends(&stream, 100).await;
        reset_by(&peer);
        stream.recv_into(Vec::with_capacity(100)).await.expect_err("a reset is no end");
        sends.await.unwrap();
    });
}
