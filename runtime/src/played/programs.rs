//! What the tasks of a play do with their connections.

use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::Duration;

use super::network::{Ending, Peer};
use super::program::{Bytes, End, Fixture, Reading, Writing};
use super::{crowds, file_tasks, outgoing, several, udp_tasks};
use crate::buf::BufError;
use crate::net::{TcpListener, TcpStream};
use crate::time::{sleep, timeout};
use crate::transfer::{Road, relay};
use crate::{spawn, yield_now};

pub(super) type Seen = Result<(), String>;

pub(super) async fn one_of_them(fixture: Rc<Fixture>) -> Seen {
    let which = fixture.random.below(24);
    fixture.simulation.says(format_args!("program {which}"));
    match which {
        0 | 1 => both_ways(fixture).await,
        2 => echo(fixture).await,
        3 => leaves_early(fixture).await,
        4 => travels(fixture).await,
        5 | 6 => relays(fixture).await,
        7 => accepts(fixture).await,
        8 => reads_late(fixture).await,
        9 => several::readers(fixture).await,
        10 => several::writers(fixture).await,
        11 => several::acceptors(fixture).await,
        12 => several::one_after_the_other(fixture).await,
        13 => several::in_time(fixture).await,
        14 => several::one_that_is_not_polled(fixture).await,
        15 => several::stops_listening(fixture).await,
        16 => crowds::unread(fixture).await,
        17 => crowds::quieted(fixture).await,
        18 => told_by_a_send(fixture).await,
        19 => relays_in_turn(fixture).await,
        20 => outgoing::dials(fixture).await,
        21 => udp_tasks::datagrams(fixture).await,
        _ => file_tasks::files(fixture).await,
    }
}

pub(super) fn connect(fixture: &Fixture, peer: Peer) -> (TcpStream, usize) {
    let (fd, at) = fixture.simulation.connect(peer);
    (TcpStream::from_fd(fd), at)
}

/// Reads and writes, each by a task of its own.
async fn both_ways(fixture: Rc<Fixture>) -> Seen {
    let (stream, conn) = connect(&fixture, fixture.peer(80_000));
    let (reader, writer) = (Rc::new(stream), fixture.random.between(0, 12));
    let (shared, stream) = (Rc::clone(&fixture), Rc::clone(&reader));
    let writes = spawn(async move {
        let mut writing = Writing::new(&shared, conn);
        for _ in 0..writer {
            if !writing.step(&shared, &stream).await? {
                break;
            }
            if shared.random.once_in(4) {
                sleep(shared.time()).await;
            }
        }
        // The peer is told that this was all; it may have gone.
        let told = stream.shutdown(Shutdown::Write);
        shared.simulation.says(format_args!("connection {conn} is written: {told:?}"));
        Ok(())
    });
    let read = Reading::new(&fixture, conn).finish(&fixture, &reader).await;
    let written = writes.await.map_err(|e| e.to_string())?;
    read.and(written)
}

/// Gives back what comes.
async fn echo(fixture: Rc<Fixture>) -> Seen {
    let mut peer = fixture.peer(60_000);
    peer.expects = peer.sends;
    let (stream, conn) = connect(&fixture, peer);
    echoes(&fixture, &stream, conn).await
}

pub(super) async fn echoes(fixture: &Fixture, stream: &TcpStream, conn: usize) -> Seen {
    let mut reading = Reading::new(fixture, conn);
    loop {
        match stream.recv().await {
            Ok(Some(chunk)) => {
                reading.at += chunk.len() as u64;
                if let Err(BufError { error, .. }) = stream.send_all(chunk).await {
                    return fixture.simulation.conn(conn, |conn| match conn.was_reset {
                        true => Ok(()),
                        false => Err(format!("connection {}: an echo failed: {error}", conn.id)),
                    });
                }
            }
            Ok(None) => return reading.judge(fixture, &End::Clean),
            Err(_) => return reading.judge(fixture, &End::Failed),
        }
    }
}

/// Drops its stream before all has come, with receives and sends under way.
async fn leaves_early(fixture: Rc<Fixture>) -> Seen {
    let mut peer = fixture.peer(60_000);
    if fixture.random.once_in(2) {
        // It waits for more than it will be sent: only we can end this.
        (peer.ending, peer.patience) = (Ending::FinAfter(u64::MAX), u64::MAX);
    }
    let (stream, conn) = connect(&fixture, peer);
    let (mut reading, mut writing) = (Reading::new(&fixture, conn), Writing::new(&fixture, conn));
    for _ in 0..fixture.random.below(6) {
        if fixture.random.once_in(2) {
            let step = timeout(Duration::from_millis(80), reading.step(&fixture, &stream)).await;
            if step.unwrap_or(Ok(Some(End::Clean)))?.is_some() {
                break;
            }
        } else if !writing.step(&fixture, &stream).await? {
            break;
        }
    }
    match fixture.random.below(4) {
        // The receive stays armed, and what comes is nobody's.
        0 => drop(timeout(fixture.time(), stream.recv()).await),
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
async fn travels(fixture: Rc<Fixture>) -> Seen {
    let (mut stream, conn) = connect(&fixture, fixture.peer(50_000));
    let (mut reading, mut writing) = (Reading::new(&fixture, conn), Writing::new(&fixture, conn));
    let mut writes = fixture.random.once_in(2);
    loop {
        for _ in 0..fixture.random.below(5) {
            if writes && fixture.random.once_in(3) {
                writes = writing.step(&fixture, &stream).await?;
            } else if let Some(end) = reading.step(&fixture, &stream).await? {
                return reading.judge(&fixture, &end);
            }
        }
        stream = match stream.detach().await {
            Ok(detached) => detached.attach(),
            Err(e) => return Err(format!("connection {conn} cannot be detached: {}", e.error)),
        };
    }
}

/// Joins two connections.
async fn relays(fixture: Rc<Fixture>) -> Seen {
    let (mut first, mut second) = (fixture.peer(150_000), fixture.peer(150_000));
    second.expects = first.sends;
    first.expects = second.sends;
    // One that waits for bytes that its like does not send would wait for ever.
    for peer in [&mut first, &mut second] {
        if let Ending::FinAfter(_) | Ending::ResetAtOut(_) = peer.ending {
            peer.ending = Ending::Fin;
        }
    }
    let road = fixture.random.pick(&[Road::Inline, Road::Ring]);
    joins(&fixture, [first, second], road).await
}

/// Joins two of which one is reset, mostly while it is given bytes.
pub(super) async fn relays_one_that_is_reset(fixture: Rc<Fixture>, road: Road) -> Seen {
    let (mut first, mut second) = (fixture.peer(20_000), fixture.peer(150_000));
    second.expects = first.sends;
    first.expects = second.sends;
    (first.ending, second.ending) = (Ending::ResetAtIn(first.total), Ending::Fin);
    let pair = if fixture.random.once_in(2) { [first, second] } else { [second, first] };
    joins(&fixture, pair, road).await
}

/// Joins these two.
async fn joins(fixture: &Fixture, [first, second]: [Peer; 2], road: Road) -> Seen {
    let ((a, at_a), (b, at_b)) = (connect(fixture, first), connect(fixture, second));
    let joined = relay(a, b, road);
    let ended = match fixture.random.once_in(4) {
        // Given up half-way: both are reset, and what was under way in a pipe is nobody's.
        true => timeout(fixture.time(), joined).await.ok(),
        false => Some(joined.await),
    };
    fixture.simulation.says(format_args!("relay of {at_a} and {at_b} has ended: {ended:?}"));
    for (from, into) in [(at_a, at_b), (at_b, at_a)] {
        let has_ended = fixture.simulation.conn(from, |conn| conn.fin);
        if fixture.simulation.conn(into, |conn| conn.shut_write) && !has_ended {
            return Err(format!("connection {into} was told an end by a relay, and {from} was reset"));
        }
    }
    let Some(ended) = ended else { return Ok(()) };
    let whole = |from: usize, into: usize| {
        let (total, fin, reset) =
            fixture.simulation.conn(from, |conn| (conn.peer.total, conn.fin, conn.was_reset));
        let sent = fixture.simulation.conn(into, |conn| conn.sent);
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
async fn relays_in_turn(fixture: Rc<Fixture>) -> Seen {
    for _ in 0..fixture.random.between(2, 4) {
        relays(Rc::clone(&fixture)).await?;
    }
    Ok(())
}

/// Is told of the connection's end by a send, and reads what had come before it: here, or after a journey.
async fn told_by_a_send(fixture: Rc<Fixture>) -> Seen {
    let mut peer = fixture.peer(20_000);
    peer.ending = Ending::ResetAtIn(peer.total);
    let (mut stream, conn) = connect(&fixture, peer);
    let (mut reading, mut writing) = (Reading::new(&fixture, conn), Writing::new(&fixture, conn));
    if fixture.random.once_in(2)
        && let Some(end) = reading.step(&fixture, &stream).await?
    {
        return reading.judge(&fixture, &end);
    }
    if fixture.random.once_in(2) {
        stream.gone().await;
    }
    for _ in 0..3 {
        if !writing.step(&fixture, &stream).await? {
            break;
        }
    }
    if fixture.random.once_in(2) {
        stream = match stream.detach().await {
            Ok(detached) => detached.attach(),
            Err(e) => return Err(format!("connection {conn} cannot be detached: {}", e.error)),
        };
    }
    reading.finish(&fixture, &stream).await
}

/// Accepts clients, and echoes to each.
async fn accepts(fixture: Rc<Fixture>) -> Seen {
    // A socket that nobody knows stands for the one that the play's clients connect to.
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    let clients = fixture.random.between(1, 8);
    let peers = (0..clients).map(|_| {
        let mut peer = fixture.peer(10_000);
        peer.expects = peer.sends;
        peer
    });
    fixture.simulation.listen(listener.as_fd().as_raw_fd(), peers.collect());
    let mut tasks = Vec::new();
    while tasks.len() < clients as usize {
        let Ok(stream) = listener.accept().await else { continue };
        let fixture = Rc::clone(&fixture);
        tasks.push(spawn(async move {
            let conn = fixture.simulation.conn_at(stream.as_fd().as_raw_fd());
            echoes(&fixture, &stream, conn).await
        }));
    }
    for task in tasks {
        task.await.map_err(|e| e.to_string())??;
    }
    Ok(())
}

/// Is slow to read, so that its receive is switched off and what came is copied out of the buffers.
async fn reads_late(fixture: Rc<Fixture>) -> Seen {
    let (stream, conn) = connect(&fixture, fixture.peer(120_000));
    let mut reading = Reading::new(&fixture, conn);
    if let Some(end) = reading.step(&fixture, &stream).await? {
        return reading.judge(&fixture, &end);
    }
    sleep(fixture.time() * 3).await;
    reading.finish(&fixture, &stream).await
}
