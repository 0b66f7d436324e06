//! What the tasks of a play do with their connections.

use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::Duration;

use super::network::{Ending, Peer};
use super::program::{Bytes, End, Ground, Reading, Writing};
use super::{crowds, file_tasks, outgoing, several, udp_tasks};
use crate::buf::BufError;
use crate::net::{TcpListener, TcpStream};
use crate::time::{sleep, timeout};
use crate::transfer::{Road, relay};
use crate::{spawn, yield_now};

pub(super) type Seen = Result<(), String>;

pub(super) async fn one_of_them(ground: Rc<Ground>) -> Seen {
    let which = ground.dice.below(24);
    ground.world.says(format_args!("program {which}"));
    match which {
        0 | 1 => both_ways(ground).await,
        2 => echo(ground).await,
        3 => leaves_early(ground).await,
        4 => travels(ground).await,
        5 | 6 => relays(ground).await,
        7 => accepts(ground).await,
        8 => reads_late(ground).await,
        9 => several::readers(ground).await,
        10 => several::writers(ground).await,
        11 => several::acceptors(ground).await,
        12 => several::one_after_the_other(ground).await,
        13 => several::in_time(ground).await,
        14 => several::one_that_is_not_polled(ground).await,
        15 => several::stops_listening(ground).await,
        16 => crowds::unread(ground).await,
        17 => crowds::quieted(ground).await,
        18 => told_by_a_send(ground).await,
        19 => relays_in_turn(ground).await,
        20 => outgoing::dials(ground).await,
        21 => udp_tasks::datagrams(ground).await,
        _ => file_tasks::files(ground).await,
    }
}

pub(super) fn connect(ground: &Ground, peer: Peer) -> (TcpStream, usize) {
    let (fd, at) = ground.world.connect(peer);
    (TcpStream::from_fd(fd), at)
}

/// Reads and writes, each by a task of its own.
async fn both_ways(ground: Rc<Ground>) -> Seen {
    let (stream, conn) = connect(&ground, ground.peer(80_000));
    let (reader, writer) = (Rc::new(stream), ground.dice.between(0, 12));
    let (shared, stream) = (Rc::clone(&ground), Rc::clone(&reader));
    let writes = spawn(async move {
        let mut writing = Writing::new(&shared, conn);
        for _ in 0..writer {
            if !writing.step(&shared, &stream).await? {
                break;
            }
            if shared.dice.once_in(4) {
                sleep(shared.time()).await;
            }
        }
        // The peer is told that this was all; it may have gone.
        let told = stream.shutdown(Shutdown::Write);
        shared.world.says(format_args!("connection {conn} is written: {told:?}"));
        Ok(())
    });
    let read = Reading::new(&ground, conn).finish(&ground, &reader).await;
    let written = writes.await.map_err(|e| e.to_string())?;
    read.and(written)
}

/// Gives back what comes.
async fn echo(ground: Rc<Ground>) -> Seen {
    let mut peer = ground.peer(60_000);
    peer.expects = peer.sends;
    let (stream, conn) = connect(&ground, peer);
    echoes(&ground, &stream, conn).await
}

pub(super) async fn echoes(ground: &Ground, stream: &TcpStream, conn: usize) -> Seen {
    let mut reading = Reading::new(ground, conn);
    loop {
        match stream.recv().await {
            Ok(Some(chunk)) => {
                reading.at += chunk.len() as u64;
                if let Err(BufError { error, .. }) = stream.send_all(chunk).await {
                    return ground.world.conn(conn, |conn| match conn.was_reset {
                        true => Ok(()),
                        false => Err(format!("connection {}: an echo failed: {error}", conn.id)),
                    });
                }
            }
            Ok(None) => return reading.judge(ground, &End::Clean),
            Err(_) => return reading.judge(ground, &End::Failed),
        }
    }
}

/// Drops its stream before all has come, with receives and sends under way.
async fn leaves_early(ground: Rc<Ground>) -> Seen {
    let mut peer = ground.peer(60_000);
    if ground.dice.once_in(2) {
        // It waits for more than it will be sent: only we can end this.
        (peer.ending, peer.patience) = (Ending::FinAfter(u64::MAX), u64::MAX);
    }
    let (stream, conn) = connect(&ground, peer);
    let (mut reading, mut writing) = (Reading::new(&ground, conn), Writing::new(&ground, conn));
    for _ in 0..ground.dice.below(6) {
        if ground.dice.once_in(2) {
            let step = timeout(Duration::from_millis(80), reading.step(&ground, &stream)).await;
            if step.unwrap_or(Ok(Some(End::Clean)))?.is_some() {
                break;
            }
        } else if !writing.step(&ground, &stream).await? {
            break;
        }
    }
    match ground.dice.below(4) {
        // The receive stays armed, and what comes is nobody's.
        0 => drop(timeout(ground.time(), stream.recv()).await),
        1 => {
            let stream = Rc::new(stream);
            let sends = spawn(async move { stream.send_all(Bytes(vec![0; 0])).await.map(drop) });
            yield_now().await;
            drop(sends);
        }
        2 => stream.reset(),
        _ => drop(stream.split()),
    }
    Ok(())
}

/// Reads and writes, and leaves its core and comes back now and then.
async fn travels(ground: Rc<Ground>) -> Seen {
    let (mut stream, conn) = connect(&ground, ground.peer(50_000));
    let (mut reading, mut writing) = (Reading::new(&ground, conn), Writing::new(&ground, conn));
    let mut writes = ground.dice.once_in(2);
    loop {
        for _ in 0..ground.dice.below(5) {
            if writes && ground.dice.once_in(3) {
                writes = writing.step(&ground, &stream).await?;
            } else if let Some(end) = reading.step(&ground, &stream).await? {
                return reading.judge(&ground, &end);
            }
        }
        stream = match stream.detach().await {
            Ok(detached) => detached.attach(),
            Err(e) => return Err(format!("connection {conn} cannot be detached: {}", e.error)),
        };
    }
}

/// Joins two connections.
async fn relays(ground: Rc<Ground>) -> Seen {
    let (mut first, mut second) = (ground.peer(150_000), ground.peer(150_000));
    second.expects = first.sends;
    first.expects = second.sends;
    // One that waits for bytes that its like does not send would wait for ever.
    for peer in [&mut first, &mut second] {
        if let Ending::FinAfter(_) | Ending::ResetAtOut(_) = peer.ending {
            peer.ending = Ending::Fin;
        }
    }
    let road = ground.dice.pick(&[Road::Inline, Road::Ring]);
    joins(&ground, [first, second], road).await
}

/// Joins two of which one is reset, mostly while it is given bytes.
pub(super) async fn relays_one_that_is_reset(ground: Rc<Ground>, road: Road) -> Seen {
    let (mut first, mut second) = (ground.peer(20_000), ground.peer(150_000));
    second.expects = first.sends;
    first.expects = second.sends;
    (first.ending, second.ending) = (Ending::ResetAtIn(first.total), Ending::Fin);
    let pair = if ground.dice.once_in(2) { [first, second] } else { [second, first] };
    joins(&ground, pair, road).await
}

/// Joins these two.
async fn joins(ground: &Ground, [first, second]: [Peer; 2], road: Road) -> Seen {
    let ((a, at_a), (b, at_b)) = (connect(ground, first), connect(ground, second));
    let joined = relay(a, b, road);
    let ended = match ground.dice.once_in(4) {
        // Given up half-way: both are reset, and what was under way in a pipe is nobody's.
        true => timeout(ground.time(), joined).await.ok(),
        false => Some(joined.await),
    };
    ground.world.says(format_args!("relay of {at_a} and {at_b} has ended: {ended:?}"));
    for (from, into) in [(at_a, at_b), (at_b, at_a)] {
        let has_ended = ground.world.conn(from, |conn| conn.fin);
        if ground.world.conn(into, |conn| conn.shut_write) && !has_ended {
            return Err(format!("connection {into} was told an end by a relay, and {from} was reset"));
        }
    }
    let Some(ended) = ended else { return Ok(()) };
    let whole = |from: usize, into: usize| {
        let (total, fin, reset) = ground.world.conn(from, |conn| (conn.peer.total, conn.fin, conn.was_reset));
        let sent = ground.world.conn(into, |conn| conn.sent);
        (sent, total, fin, reset)
    };
    for (from, into) in [(at_a, at_b), (at_b, at_a)] {
        let (sent, total, fin, reset) = whole(from, into);
        if ended.result.is_ok() && !(fin && sent == total) {
            return Err(format!("a relay ended well with {sent} of {total} bytes of connection {from}"));
        }
        if ended.result.is_err() && !reset && !whole(into, from).3 {
            return Err(format!("a relay failed though nobody was reset: {ended:?}"));
        }
    }
    Ok(())
}

/// Relays one after the other, so that what one leaves behind in a pipe the next one finds.
async fn relays_in_turn(ground: Rc<Ground>) -> Seen {
    for _ in 0..ground.dice.between(2, 4) {
        relays(Rc::clone(&ground)).await?;
    }
    Ok(())
}

/// Is told of the connection's end by a send, and reads what had come before it: here, or after a journey.
async fn told_by_a_send(ground: Rc<Ground>) -> Seen {
    let mut peer = ground.peer(20_000);
    peer.ending = Ending::ResetAtIn(peer.total);
    let (mut stream, conn) = connect(&ground, peer);
    let (mut reading, mut writing) = (Reading::new(&ground, conn), Writing::new(&ground, conn));
    if ground.dice.once_in(2)
        && let Some(end) = reading.step(&ground, &stream).await?
    {
        return reading.judge(&ground, &end);
    }
    if ground.dice.once_in(2) {
        stream.gone().await;
    }
    for _ in 0..3 {
        if !writing.step(&ground, &stream).await? {
            break;
        }
    }
    if ground.dice.once_in(2) {
        stream = match stream.detach().await {
            Ok(detached) => detached.attach(),
            Err(e) => return Err(format!("connection {conn} cannot be detached: {}", e.error)),
        };
    }
    reading.finish(&ground, &stream).await
}

/// Accepts clients, and echoes to each.
async fn accepts(ground: Rc<Ground>) -> Seen {
    // A socket that nobody knows stands for the one that the play's clients connect to.
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    let clients = ground.dice.between(1, 8);
    let peers = (0..clients).map(|_| {
        let mut peer = ground.peer(10_000);
        peer.expects = peer.sends;
        peer
    });
    ground.world.listen(listener.as_fd().as_raw_fd(), peers.collect());
    let mut tasks = Vec::new();
    while tasks.len() < clients as usize {
        let Ok(stream) = listener.accept().await else { continue };
        let ground = Rc::clone(&ground);
        tasks.push(spawn(async move {
            let conn = ground.world.conn_at(stream.as_fd().as_raw_fd());
            echoes(&ground, &stream, conn).await
        }));
    }
    for task in tasks {
        task.await.map_err(|e| e.to_string())??;
    }
    Ok(())
}

/// Is slow to read, so that its receive is switched off and what came is copied out of the buffers.
async fn reads_late(ground: Rc<Ground>) -> Seen {
    let (stream, conn) = connect(&ground, ground.peer(120_000));
    let mut reading = Reading::new(&ground, conn);
    if let Some(end) = reading.step(&ground, &stream).await? {
        return reading.judge(&ground, &end);
    }
    sleep(ground.time() * 3).await;
    reading.finish(&ground, &stream).await
}
