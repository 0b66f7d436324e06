//! Subscribers of `tracing` that panic over what a relay tells at its end.
//!
//! Seen to fail, by an abort where it says nothing else: with the event as it is and not contained.

use std::net::TcpStream as StdStream;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use super::{RelayLimits, relay, relay_within};
use crate::net::{TcpStream, UnixStream};
use crate::testing::{
    at_the_next_event, dropped_by_a_panic, has_acted, is_open, link_of, on_a_core, small, until,
};
use crate::transfer::Road;

fn pair() -> (TcpStream, StdStream) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let peer = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    (TcpStream::from_std(listener.accept().unwrap().0).unwrap(), peer)
}

/// A Unix socket knows no reset, which is told of both.
#[test]
fn over_a_relay() {
    on_a_core(small(64), async || {
        let ((a, _far_a), (b, _far_b)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let (link_a, link_b) = (link_of(a.as_fd()), link_of(b.as_fd()));
        dropped_by_a_panic("annulus::net::socket", relay(a, b, Road::Inline));
        until("the close", || !is_open(&link_a) && !is_open(&link_b)).await;
    });
}

/// Seen to fail: with the event as it is, the relay panics between its two sides, and the peer of the second
/// would take what was cut off for the whole.
#[test]
fn over_the_reset_of_the_first_side_of_a_relay() {
    on_a_core(small(64), async || {
        let ((a, _far_a), (b, mut peer)) = (UnixStream::pair().unwrap(), pair());
        let limits = RelayLimits { lifetime: Some(Duration::ZERO), ..Default::default() };
        let guard = at_the_next_event("annulus::net::socket", || panic!("the subscriber, on purpose"));
        let end = relay_within(a, b, Road::Inline, &Rc::new(limits)).await;
        assert!(end.result.is_err() && has_acted());
        drop(guard);
        let end = crate::spawn_blocking(move || std::io::Read::read(&mut peer, &mut [0])).await.unwrap();
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    });
}
