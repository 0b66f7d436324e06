//! Subscribers of `tracing` that are told of something in a destructor, or in the midst of something: they
//! panic while their thread does, and they use what is being changed.
//!
//! Seen to fail, each, with the event as it is and not contained: by an abort, where it says nothing else.

use std::net::TcpStream as StdStream;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::socket::Socket;
use super::{ListenOptions, TcpListener, TcpStream, UnixListener, UnixStream};
use crate::core::Core;
use crate::place::Place;
use crate::testing::{alive, at_the_next_event, dropped_by_a_panic, has_acted, on_a_core, small, until};

/// Puts something that is no socket in the place of a socket's descriptor.
fn spoil(socket: impl AsFd) {
    let null = std::fs::File::open("/dev/null").unwrap();
    // SAFETY: both are open, and the number stays its owner's, which closes it once.
    let rc = unsafe { libc::dup3(null.as_raw_fd(), socket.as_fd().as_raw_fd(), libc::O_CLOEXEC) };
    assert_eq!(rc, socket.as_fd().as_raw_fd());
}

/// A peer that resets its connection.
fn resets(peer: StdStream) {
    rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
    drop(peer);
}

fn pair() -> (TcpStream, StdStream) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let peer = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    (TcpStream::from_std(listener.accept().unwrap().0).unwrap(), peer)
}

#[test]
fn over_a_listener() {
    on_a_core(small(64), async || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr();
        let before = alive();
        // Its accept is armed, and has to be given up all the same.
        let nothing = crate::time::timeout(Duration::ZERO, listener.accept()).await;
        assert!(nothing.is_err() && alive() == before + 1);
        spoil(&listener);
        dropped_by_a_panic("annulus::net::listener", listener);
        until("the end of its accept", || alive() == before).await;
        TcpListener::bind(address).unwrap();
    });
}

#[test]
fn over_a_half_of_a_connection() {
    on_a_core(small(64), async || {
        let (stream, peer) = pair();
        let (reader, writer) = stream.split();
        resets(peer);
        until("the reset", || reader.socket().is_gone()).await;
        let link = crate::testing::link_of(reader.as_fd());
        dropped_by_a_panic("annulus::net::connection", writer);
        drop(reader);
        until("the close", || !crate::testing::is_open(&link)).await;
    });
}

/// Seen to fail: the panic comes out, in the midst of whatever resets it.
#[test]
fn over_the_resets_of_a_socket() {
    on_a_core(small(64), async || {
        let (near, _far) = UnixStream::pair().unwrap();
        let socket = Socket::new(near.into_owned_fd().await.unwrap().0);
        let guard = at_the_next_event("annulus::net::socket", || panic!("the subscriber, on purpose"));
        socket.abort();
        assert!(has_acted());
        drop(guard);
        let _guard = at_the_next_event("annulus::net::socket::lending", || panic!("on purpose"));
        socket.reset("on purpose");
        assert!(has_acted());
    });
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("annulus-{name}-{}", std::process::id()))
}

fn listens(path: &Path) -> UnixListener {
    UnixListener::listen_on(Place::Path(path.to_owned()), &ListenOptions::new()).unwrap()
}

/// Seen to fail, by waiting for ever: with the event while the table of addresses is locked.
#[test]
fn a_subscriber_that_is_told_of_a_replacement_may_listen() {
    on_a_core(small(64), async || {
        let [first, second] = ["told-first", "told-second"].map(path);
        drop(std::os::unix::net::UnixListener::bind(&first).unwrap());
        let other = second.clone();
        let guard = at_the_next_event("annulus::core::unix_path", move || drop(listens(&other)));
        let listener = listens(&first);
        assert!(has_acted(), "it was told");
        drop(guard);
        // A panic there is no failure of the bind.
        drop(std::os::unix::net::UnixListener::bind(&second).unwrap());
        let guard = at_the_next_event("annulus::core::unix_path", || panic!("on purpose"));
        drop(listens(&second));
        assert!(has_acted());
        drop(guard);
        drop(listener);
        assert!(!first.exists() && !second.exists());
    });
}

/// Seen to fail, by waiting for ever: with the event while the table of addresses is locked.
#[test]
fn a_subscriber_that_is_told_of_the_end_of_a_socket_may_listen_in_its_place() {
    on_a_core(small(64), async || {
        let path = path("told-end");
        let listener = listens(&path);
        Core::with(|core| {
            let groups = core.shared.runtime.groups.lock();
            let one = groups.groups.iter().find_map(|group| group.one.as_ref()).unwrap();
            spoil(one.socket());
        });
        let (place, again) = (path.clone(), std::rc::Rc::new(std::cell::RefCell::new(None)));
        let keep = std::rc::Rc::clone(&again);
        let guard = at_the_next_event("annulus::core::unix_path", move || {
            keep.replace(Some(listens(&place)));
        });
        drop(listener);
        assert!(has_acted(), "it was told");
        drop(guard);
        assert!(path.exists() && again.take().is_some());
        assert!(!path.exists());
    });
}
