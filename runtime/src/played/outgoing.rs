//! Connections that the core makes, to one server or to the first of several that answers. Servers answer,
//! refuse, or never reply.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;

use super::connects::Manner;
use super::program::{Ground, lacks_descriptors};
use super::programs::{Seen, echoes};
use crate::ErrorKind;
use crate::net::TcpStream;
use crate::net::eyeballs::first_to_answer;
use crate::time::timeout;

/// An address of its own in the play, and a server there that echoes.
fn server(ground: &Ground, manner: Manner) -> SocketAddr {
    let number = ground.dice.roll() as u32;
    let host = [198, 18, (number >> 24) as u8, (number >> 16) as u8];
    let address = SocketAddr::from((host, (number as u16).max(1)));
    let peers = (0..4).map(|_| {
        let mut peer = ground.peer(6_000);
        peer.expects = peer.sends;
        peer
    });
    ground.world.serve(address, manner, peers.collect());
    address
}

/// Connects, and echoes what the server sends. Some give up: what is connected late must be closed.
pub(super) async fn dials(ground: Rc<Ground>) -> Seen {
    for _ in 0..ground.dice.between(1, 4) {
        let manners = [Manner::Answers, Manner::Answers, Manner::Refuses(libc::ECONNREFUSED), Manner::Silent];
        let several = ground.dice.pick(&[1, 1, 2, 4]);
        let manners: Vec<_> = (0..several).map(|_| ground.dice.pick(&manners)).collect();
        let addresses: Vec<_> = manners.iter().map(|manner| server(&ground, *manner)).collect();
        let is_answered = manners.contains(&Manner::Answers);
        let may_be_silent = manners.contains(&Manner::Silent) && !is_answered;
        let connecting = first_to_answer(addresses, TcpStream::connect);
        let connected = if may_be_silent || ground.dice.once_in(4) {
            timeout(ground.time(), connecting).await
        } else {
            Ok(connecting.await)
        };
        let stream = match connected {
            Ok(Ok(stream)) if is_answered => stream,
            Ok(Err(e)) if !is_answered && e.kind() == ErrorKind::Io => continue,
            Ok(Err(e)) if lacks_descriptors(&e) => continue,
            Err(_) => continue,
            Ok(other) => return Err(format!("connecting to {manners:?} gave {other:?}")),
        };
        let conn = ground.world.conn_at(stream.as_fd().as_raw_fd());
        echoes(&ground, &stream, conn).await?;
    }
    Ok(())
}
