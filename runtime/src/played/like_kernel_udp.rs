//! As [`like_kernel`](super::like_kernel), for datagrams: whole ones, those of no bytes, and those that no
//! buffer holds.

use std::cell::RefCell;
use std::net::UdpSocket as StdSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::sync::mpsc;

use super::Simulation;
use super::datagrams::{datagram_byte, datagram_of};
use super::launch::on_a_core_of;
use super::trace::Tracing;
use super::udp_tasks::made;
use crate::launch::played::Shape;
use crate::net::UdpSocket;
use crate::testing::{on_a_core, small};

/// Datagrams of each stream.
const COUNT: u32 = 8;

/// Receives all, and says of each how long it was, how much of it came, and the sum of its bytes.
async fn receives(socket: &UdpSocket) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..COUNT {
        let datagram = socket.recv().await.expect("nothing was sent that could fail");
        let sum = datagram.iter().fold(0u32, |sum, byte| sum.rotate_left(3) ^ u32::from(*byte));
        let (len, cut) = (datagram.len(), datagram.is_truncated());
        seen.push(format!("{} bytes, {len} here, cut {cut}, {sum:x}", datagram.full_len()));
    }
    seen
}

fn with_the_kernel(stream: u32) -> Vec<String> {
    let (tell, told) = mpsc::channel();
    on_a_core(small(64), async move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = StdSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(socket.local_addr().unwrap()).unwrap();
        for number in 0..COUNT {
            let (len, _) = datagram_of(stream, number);
            let bytes: Vec<u8> = (0..len).map(|at| datagram_byte(stream, number, at)).collect();
            assert_eq!(sender.send(&bytes).unwrap(), bytes.len());
        }
        tell.send(receives(&socket).await).unwrap();
    });
    told.recv().unwrap()
}

fn played(stream: u32, seed: u64) -> Vec<String> {
    let simulation = Rc::new(Simulation::new(seed, Tracing::Off));
    let seen = Rc::new(RefCell::new(Vec::new()));
    let shape = Shape { pool_bytes: 1 << 20, ..Shape::default() };
    let ended = on_a_core_of(&simulation, shape, || {
        let (simulation, seen) = (Rc::clone(&simulation), Rc::clone(&seen));
        async move {
            let fd = made();
            let number = fd.as_fd().as_raw_fd();
            let socket = UdpSocket::from_owned_fd(fd)?;
            simulation.add_udp(number, (stream, COUNT), 0);
            seen.replace(receives(&socket).await);
            Ok(())
        }
    });
    assert_eq!(ended, Ok(()), "seed {seed}");
    assert_eq!(simulation.state.borrow().failure, None, "seed {seed}");
    seen.take()
}

/// Seen to fail: with a player that gives no more bytes than a buffer holds as the length of a datagram.
#[test]
fn played_datagrams_are_like_the_kernels() {
    for stream in 1..7 {
        let seen = with_the_kernel(stream);
        for seed in 0..10 {
            assert_eq!(played(stream, seed), seen, "stream {stream}, seed {seed}");
        }
    }
}
