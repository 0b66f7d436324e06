//! Tasks with datagrams. Each one that a receive was told of is seen once, whole and in its place. Each one
//! that was sent has left once, or its sender was told that it did not.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::datagrams::{NUMBER, datagram_byte, datagram_of};
use super::program::{Bytes, Fixture};
use super::programs::Seen;
use super::several::all;
use crate::buf::BufError;
use crate::net::{Datagram, UdpSocket};
use crate::spawn;
use crate::time::{sleep, timeout};

/// A socket of the kernel's stands for the UDP socket.
pub(super) fn made() -> OwnedFd {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None).expect("a socket")
}

struct Exchange {
    socket: UdpSocket,
    at: usize,
    comes: u32,
    leaves: u32,
    /// Those that have left, as far as their senders know.
    left: RefCell<BTreeSet<u32>>,
}

pub(super) async fn datagrams(fixture: Rc<Fixture>) -> Seen {
    let fd = made();
    let number = fd.as_fd().as_raw_fd();
    // Where buffers come in parts there are no datagrams.
    let Ok(socket) = UdpSocket::from_owned_fd(fd) else { return Ok(()) };
    let (comes, leaves) = (fixture.random.next() as u32, fixture.random.next() as u32);
    let to_come = fixture.random.below(60) as u32;
    let at = fixture.simulation.add_udp(number, (comes, to_come), leaves);
    let exchange = Rc::new(Exchange { socket, at, comes, leaves, left: RefCell::default() });
    let mut tasks = vec![spawn(receives(Rc::clone(&fixture), Rc::clone(&exchange), to_come))];
    for sender in 0..fixture.random.below(4) as u32 {
        tasks.push(spawn(sends(Rc::clone(&fixture), Rc::clone(&exchange), sender)));
    }
    all(tasks).await?;
    let has_left = fixture.simulation.udp(at, |udp| udp.left.clone());
    match exchange.left.borrow().difference(&has_left).next() {
        Some(number) => Err(format!("datagram {number} was sent and has not left")),
        None => Ok(()),
    }
}

async fn receives(fixture: Rc<Fixture>, exchange: Rc<Exchange>, to_come: u32) -> Seen {
    let mut seen = 0;
    while seen < to_come {
        if fixture.random.once_in(6) {
            sleep(fixture.time()).await;
        }
        let received = match fixture.random.once_in(3) {
            true => timeout(fixture.time(), exchange.socket.recv()).await,
            false => Ok(exchange.socket.recv().await),
        };
        // An error is of a datagram that was sent. It is told once, and receiving goes on.
        if let Ok(Ok(datagram)) = received {
            must_be(&datagram, exchange.comes, seen)?;
            seen += 1;
        }
    }
    let told = fixture.simulation.udp(exchange.at, |udp| udp.told);
    if told == seen { Ok(()) } else { Err(format!("{told} datagrams were told of, {seen} seen")) }
}

fn must_be(datagram: &Datagram, stream: u32, number: u32) -> Seen {
    let (len, from) = datagram_of(stream, number);
    if (datagram.full_len() as u64, datagram.source()) != (len, from) {
        let (is, source) = (datagram.full_len(), datagram.source());
        return Err(format!("datagram {number} has {is} bytes from {source}, not {len} from {from}"));
    }
    match datagram.iter().zip(0..).find(|(is, at)| **is != datagram_byte(stream, number, *at)) {
        Some((_, at)) => Err(format!("byte {at} of datagram {number} is wrong")),
        None => Ok(()),
    }
}

async fn sends(fixture: Rc<Fixture>, exchange: Rc<Exchange>, sender: u32) -> Seen {
    for number in (0..fixture.random.below(12) as u32).map(|at| sender << 8 | at) {
        let (len, to): (u64, SocketAddr) = datagram_of(exchange.leaves, number);
        let mut bytes = Vec::with_capacity(NUMBER + len as usize);
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend((0..len).map(|at| datagram_byte(exchange.leaves, number, at)));
        let sending = exchange.socket.send_to(Bytes(bytes), to);
        let sent = match fixture.random.once_in(5) {
            true => timeout(fixture.time(), sending).await,
            false => Ok(sending.await),
        };
        match sent {
            Ok(Ok(_)) => drop(exchange.left.borrow_mut().insert(number)),
            Ok(Err(BufError { error, .. })) => {
                if fixture.simulation.udp(exchange.at, |udp| udp.left.contains(&number)) {
                    return Err(format!("datagram {number} has left, and its sender was told: {error}"));
                }
            }
            // It may leave yet.
            Err(_) => {}
        }
    }
    Ok(())
}
