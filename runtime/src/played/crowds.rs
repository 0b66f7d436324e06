//! Many streams on few buffers. Streams that nobody reads must not keep the buffers from streams that are
//! read.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::network::Ending;
use super::program::{End, Fixture, Reading};
use super::programs::{Seen, connect};
use super::several::all;
use crate::net::TcpStream;
use crate::spawn;
use crate::time::{sleep, timeout};

/// A stream, and how much of it was read.
struct Read {
    stream: TcpStream,
    reading: Reading,
}

/// Connections that begin to receive and are not read. Each has a chunk or a few.
async fn begin(fixture: &Fixture, count: u64) -> Result<Vec<Read>, String> {
    let mut crowd = Vec::new();
    for _ in 0..count {
        let mut peer = fixture.peer(2_000);
        (peer.ending, peer.stalls) = (Ending::Fin, 0);
        let (stream, conn) = connect(fixture, peer);
        let mut reading = Reading::new(fixture, conn);
        // It is armed at least; what has come already is taken, and may be all.
        if let Ok(Ok(Some(chunk))) =
            timeout(Duration::from_micros(fixture.random.below(30)), stream.recv()).await
        {
            reading.came(fixture, chunk)?;
        }
        reading.let_go()?;
        crowd.push(Read { stream, reading });
    }
    Ok(crowd)
}

/// One stream is read to its end beside many that hold a few chunks each; then those are read.
pub(super) async fn unread(fixture: Rc<Fixture>) -> Seen {
    let count = fixture.random.between(2, 24);
    let crowd = begin(&fixture, count).await?;
    sleep(fixture.time()).await;
    let (stream, conn) = connect(&fixture, fixture.peer(40_000));
    Reading::new(&fixture, conn).finish(&fixture, &stream).await?;
    for mut one in crowd {
        one.reading.finish(&fixture, &one.stream).await?;
    }
    Ok(())
}

/// Streams that wait for a buffer are told to be quiet, by others than those who read them.
pub(super) async fn quieted(fixture: Rc<Fixture>) -> Seen {
    let count = fixture.random.between(1, 20);
    let crowd = begin(&fixture, count).await?;
    let mut tasks = Vec::new();
    for _ in 0..fixture.random.between(1, 4) {
        let mut peer = fixture.peer(30_000);
        peer.ending = Ending::Fin;
        let (stream, conn) = connect(&fixture, peer);
        let read = Rc::new((stream, RefCell::new(Reading::new(&fixture, conn))));
        tasks.push(spawn(reads(Rc::clone(&fixture), Rc::clone(&read))));
        tasks.push(spawn(quiets(Rc::clone(&fixture), read)));
    }
    let seen = all(tasks).await;
    for mut one in crowd {
        one.reading.finish(&fixture, &one.stream).await?;
    }
    seen
}

type Shared = Rc<(TcpStream, RefCell<Reading>)>;

/// Reads to the end, with nothing to wake it but what comes.
async fn reads(fixture: Rc<Fixture>, read: Shared) -> Seen {
    let (stream, reading) = &*read;
    loop {
        match stream.recv().await {
            Ok(Some(chunk)) => {
                let mut reading = reading.borrow_mut();
                reading.came(&fixture, chunk)?;
                reading.let_go()?;
            }
            Ok(None) => return reading.borrow_mut().judge(&fixture, &End::Clean),
            Err(_) => return reading.borrow_mut().judge(&fixture, &End::Failed),
        }
    }
}

async fn quiets(fixture: Rc<Fixture>, read: Shared) -> Seen {
    let (stream, reading) = &*read;
    for _ in 0..fixture.random.below(8) {
        sleep(fixture.time()).await;
        for chunk in stream.quiesce().await {
            reading.borrow_mut().came(&fixture, chunk)?;
        }
        reading.borrow_mut().let_go()?;
    }
    Ok(())
}
