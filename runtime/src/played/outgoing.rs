//! Connections that the core makes, to one server or to the first of several that answers. Servers answer,
//! refuse, or never reply.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use super::connects::Behaviour;
use super::program::Fixture;
use super::programs::{Seen, echoes};
use crate::ErrorKind;
use crate::net::TcpStream;
use crate::net::eyeballs::first_to_answer;
use crate::time::timeout;

/// An address of its own in the play, and a server there that echoes.
fn server(fixture: &Fixture, behaviour: Behaviour) -> SocketAddr {
    let number = fixture.random.next() as u32;
    let host = [198, 18, (number >> 24) as u8, (number >> 16) as u8];
    let address = SocketAddr::from((host, (number as u16).max(1)));
    let peers = (0..4).map(|_| {
        let mut peer = fixture.peer(6_000);
        peer.expects = peer.sends;
        peer
    });
    fixture.simulation.serve(address, behaviour, peers.collect());
    address
}

/// Connects, and echoes what the server sends. Some give up: what is connected late must be closed.
pub(super) async fn dials(fixture: Rc<Fixture>) -> Seen {
    for _ in 0..fixture.random.between(1, 4) {
        let behaviours = [
            Behaviour::Answers,
            Behaviour::Answers,
            Behaviour::Refuses(libc::ECONNREFUSED),
            Behaviour::Silent,
        ];
        let several = fixture.random.pick(&[1, 1, 2, 4]);
        let behaviours: Vec<_> = (0..several).map(|_| fixture.random.pick(&behaviours)).collect();
        let addresses: Vec<_> = behaviours.iter().map(|behaviour| server(&fixture, *behaviour)).collect();
        let is_answered = behaviours.contains(&Behaviour::Answers);
        let may_be_silent = behaviours.contains(&Behaviour::Silent) && !is_answered;
        let before = fixture.simulation.lacked();
        let lacked = || fixture.simulation.lacked() > before;
        let mut connecting = pin!(first_to_answer(addresses, TcpStream::connect));
        let connected = if may_be_silent || fixture.random.once_in(4) {
            timeout(fixture.time(), connecting).await
        } else {
            // Without a descriptor for the one that answers, the silent ones are left.
            loop {
                let connected = timeout(Duration::from_secs(5), connecting.as_mut()).await;
                if connected.is_ok() || lacked() {
                    break connected;
                }
            }
        };
        let stream = match connected {
            Ok(Ok(stream)) if is_answered => stream,
            Ok(Err(e)) if (!is_answered || lacked()) && e.kind() == ErrorKind::Io => continue,
            Err(_) => continue,
            Ok(other) => return Err(format!("connecting to {behaviours:?} gave {other:?}")),
        };
        let conn = fixture.simulation.conn_at(stream.as_fd().as_raw_fd());
        echoes(&fixture, &stream, conn).await?;
    }
    Ok(())
}
