//! What a connection costs that comes, asks, is answered and goes. In a program of its own, because every
//! allocation is counted.

mod common;
#[path = "common/counting.rs"]
mod counting;

use std::io::{Read, Write};
use std::net::TcpStream as Std;
use std::sync::atomic::Ordering;

use annulus::net::TcpListener;
use common::{answer, on_one_core};
use counting::MADE;

/// Connections before the count begins: what the first ones make is the core's.
const FIRST: usize = 100;
const COUNTED: usize = 200;

/// Two allocations: the socket and the task. Three SQEs: the receive, the send and the close. At most six
/// polls, each by a wake: the acceptor's two (here it awaits the task), and those of the task when it is new,
/// has bytes, has sent, and finds the end.
///
/// Seen to fail: with a box more for each socket.
#[test]
fn a_connection_takes_two_allocations_and_three_submissions() {
    let (made, sqes, polls) = on_one_core(|| async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr();
        let client = std::thread::spawn(move || {
            for _ in 0..FIRST + COUNTED {
                let mut peer = Std::connect(address).unwrap();
                peer.write_all(b"asks").unwrap();
                peer.read_exact(&mut [0; 6]).unwrap();
            }
        });
        let seen = || {
            let counters = annulus::cores::counters();
            (MADE.load(Ordering::Relaxed), counters.sqes, counters.polls)
        };
        let mut before = seen();
        for n in 0..FIRST + COUNTED {
            if n == FIRST {
                before = seen();
            }
            annulus::spawn(answer(listener.accept().await?)).await??;
        }
        let after = seen();
        client.join().unwrap();
        let polls = (after.2 - before.2) as usize;
        Ok((after.0 - before.0, (after.1 - before.1) as usize, polls))
    });
    println!("{made} allocations, {sqes} SQEs and {polls} polls of {COUNTED} connections");
    assert_eq!(made, 2 * COUNTED, "allocations");
    // What the first of them had asked for may have been submitted after the count began, and so at its end.
    assert!(sqes.abs_diff(3 * COUNTED) <= 3, "{sqes} SQEs");
    assert!(polls <= 6 * COUNTED, "{polls} polls");
}
