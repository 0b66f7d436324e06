//! Several tasks with one stream or one listener, and tasks that wait for each other.

use std::cell::RefCell;
use std::future::{Future as _, poll_fn};
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::network::{Ending, Peer};
use super::program::{Bytes, End, Fixture, Reading};
use super::programs::{Seen, connect, echoes};
use super::random::{ANY, byte};
use crate::net::{TcpListener, TcpStream};
use crate::time::{sleep, timeout};
use crate::{JoinHandle, spawn};

/// Waits for all, and gives the first thing that was wrong.
pub(super) async fn all(tasks: Vec<JoinHandle<Seen>>) -> Seen {
    let mut seen = Ok(());
    for task in tasks {
        let one = task.await.map_err(|e| e.to_string()).and_then(|seen| seen);
        seen = seen.and(one);
    }
    seen
}

/// Each gets some of the chunks; each is told of the end. Now and then one gives up, and comes back.
pub(super) async fn readers(fixture: Rc<Fixture>) -> Seen {
    let (stream, conn) = connect(&fixture, fixture.peer(60_000));
    let reading = Rc::new(RefCell::new(Reading::new(&fixture, conn)));
    let stream = Rc::new(stream);
    let tasks = (0..fixture.random.between(2, 3)).map(|_| {
        let (fixture, stream, reading) = (Rc::clone(&fixture), Rc::clone(&stream), Rc::clone(&reading));
        spawn(async move {
            loop {
                let received = match fixture.random.once_in(3) {
                    true => timeout(fixture.time(), stream.recv()).await,
                    false => Ok(stream.recv().await),
                };
                match received {
                    Ok(Ok(Some(chunk))) => reading.borrow_mut().came(&fixture, chunk)?,
                    Ok(Ok(None)) => return reading.borrow_mut().judge(&fixture, &End::Clean),
                    Ok(Err(_)) => return reading.borrow_mut().judge(&fixture, &End::Failed),
                    Err(_) => sleep(fixture.time()).await,
                }
            }
        })
    });
    all(tasks.collect()).await
}

/// Each sends bytes that are all alike, so that their order does not matter.
pub(super) async fn writers(fixture: Rc<Fixture>) -> Seen {
    let mut peer = fixture.peer(0);
    peer.expects = ANY;
    let (stream, conn) = connect(&fixture, peer);
    let stream = Rc::new(stream);
    let tasks = (0..fixture.random.between(2, 4)).map(|_| {
        let (fixture, stream) = (Rc::clone(&fixture), Rc::clone(&stream));
        spawn(async move {
            for _ in 0..fixture.random.below(6) {
                let bytes = Bytes(vec![byte(ANY, 0); fixture.random.below(9_000) as usize]);
                let sends = stream.send_all(bytes);
                // One that waits for its turn may be dropped: nothing of it has left.
                let sent = match fixture.random.once_in(5) {
                    true => timeout(fixture.time(), sends).await,
                    false => Ok(sends.await),
                };
                match sent {
                    Ok(Ok(_)) => {}
                    // A reset, or poison: nobody sends any more.
                    Ok(Err(_)) | Err(_) => return Ok(()),
                }
            }
            Ok(())
        })
    });
    all(tasks.collect()).await?;
    fixture.simulation.says(format_args!("connection {conn} was written by several"));
    Ok(())
}

/// Two accept from one listener; each gives up now and then, and none is left asleep.
pub(super) async fn acceptors(fixture: Rc<Fixture>) -> Seen {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    let clients = fixture.random.between(2, 6);
    let peers = (0..clients).map(|_| echoed(&fixture, 3_000));
    fixture.simulation.listen(listener.as_fd().as_raw_fd(), peers.collect());
    let (listener, left) = (Rc::new(listener), Rc::new(RefCell::new(clients)));
    let tasks = (0..2).map(|_| {
        let (fixture, listener, left) = (Rc::clone(&fixture), Rc::clone(&listener), Rc::clone(&left));
        spawn(async move {
            let mut echoing = Vec::new();
            while *left.borrow() > 0 {
                // Who waits longer than this without a client looks whether the other had them all.
                let Ok(accepted) = timeout(Duration::from_millis(200), listener.accept()).await else {
                    continue;
                };
                let Ok(stream) = accepted else { continue };
                *left.borrow_mut() -= 1;
                echoing.push(echo_of(&fixture, stream));
            }
            all(echoing).await
        })
    });
    all(tasks.collect()).await
}

/// One that accepts is not polled for a while, and must keep nobody else waiting.
pub(super) async fn one_that_is_not_polled(fixture: Rc<Fixture>) -> Seen {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    let clients = fixture.random.between(1, 4);
    let peers = (0..clients).map(|_| echoed(&fixture, 3_000));
    fixture.simulation.listen(listener.as_fd().as_raw_fd(), peers.collect());
    let listener = Rc::new(listener);
    let mut waits = Box::pin(listener.accept());
    let first = poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx))).await;
    let (shared, accepting) = (Rc::clone(&fixture), Rc::clone(&listener));
    let left = clients - u64::from(first.is_ready());
    let others = spawn(async move {
        let mut echoing = Vec::new();
        while (echoing.len() as u64) < left {
            if let Ok(stream) = accepting.accept().await {
                echoing.push(echo_of(&shared, stream));
            }
        }
        all(echoing).await
    });
    let seen = all(vec![others]).await;
    drop(waits);
    if let Poll::Ready(Ok(stream)) = first {
        return seen.and(all(vec![echo_of(&fixture, stream)]).await);
    }
    seen
}

/// A client whose bytes come back to it.
fn echoed(fixture: &Fixture, most: u64) -> Peer {
    let mut peer = fixture.peer(most);
    peer.expects = peer.sends;
    peer
}

fn echo_of(fixture: &Rc<Fixture>, stream: TcpStream) -> JoinHandle<Seen> {
    let fixture = Rc::clone(fixture);
    spawn(async move {
        let conn = fixture.simulation.conn_at(stream.as_fd().as_raw_fd());
        echoes(&fixture, &stream, conn).await
    })
}

/// Stops to listen while clients come: what is accepted late is nobody's. Or empties the backlog first.
pub(super) async fn stops_listening(fixture: Rc<Fixture>) -> Seen {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    let peers = (0..fixture.random.between(1, 8)).map(|_| echoed(&fixture, 3_000));
    fixture.simulation.listen(listener.as_fd().as_raw_fd(), peers.collect());
    let mut echoing = Vec::new();
    for _ in 0..fixture.random.below(4) {
        if let Ok(Ok(stream)) = timeout(fixture.time(), listener.accept()).await {
            echoing.push(echo_of(&fixture, stream));
        }
    }
    if fixture.random.once_in(2) {
        echoing.extend(listener.drain().await.into_iter().map(|stream| echo_of(&fixture, stream)));
    } else {
        drop(listener);
    }
    all(echoing).await
}

/// Reads one stream only when another has been read to its end: what came for the first must not take what
/// the second needs.
pub(super) async fn one_after_the_other(fixture: Rc<Fixture>) -> Seen {
    let mut first = fixture.peer(100_000);
    first.ending = Ending::Fin;
    let ((first, at_first), (second, at_second)) =
        (connect(&fixture, first), connect(&fixture, fixture.peer(100_000)));
    let (mut of_first, mut of_second) = (Reading::new(&fixture, at_first), Reading::new(&fixture, at_second));
    if let Some(end) = of_first.step(&fixture, &first).await? {
        of_first.judge(&fixture, &end)?;
        return of_second.finish(&fixture, &second).await;
    }
    of_first.let_go()?;
    of_second.finish(&fixture, &second).await?;
    of_first.finish(&fixture, &first).await
}

/// A time-out ends also beside what is always ready.
pub(super) async fn in_time(fixture: Rc<Fixture>) -> Seen {
    let mut peer = fixture.peer(1);
    peer.ending = Ending::Fin;
    let (stream, conn) = connect(&fixture, peer);
    let mut reading = Reading::new(&fixture, conn);
    reading.finish(&fixture, &stream).await?;
    let busy = async |stream: &TcpStream| {
        loop {
            // The end comes as often as it is asked for.
            if !matches!(stream.recv().await, Ok(None)) {
                return;
            }
        }
    };
    match timeout(Duration::from_micros(fixture.random.below(500)), busy(&stream)).await {
        Err(_) => Ok(()),
        Ok(()) => Err(format!("connection {conn}: after its end there was something else")),
    }
}
