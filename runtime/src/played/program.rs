//! What the application does in a play: tasks with connections, each of which knows what it has to see.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use super::network::{Ending, Peer};
use super::random::{Random, byte, differs};
use super::{Simulation, foreign, launch, programs};
use crate::buf::{Block, IoBuf, Lease};
use crate::net::TcpStream;
use crate::time::{sleep, timeout};
use crate::transfer::Road;
use crate::{ErrorKind, spawn};

/// What all tasks of a program have.
pub(super) struct Fixture {
    pub(super) simulation: Rc<Simulation>,
    pub(super) random: Random,
}

/// A buffer that leaves nothing behind when it is dropped.
pub(super) struct Bytes(pub(super) Vec<u8>);

// SAFETY: the bytes lie in the vector's allocation, which does not move with the value.
unsafe impl IoBuf for Bytes {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        self.0.fill(0xDD);
    }
}

type Root = Pin<Box<dyn Future<Output = crate::Result<()>>>>;

/// Runs the program of a seed to the end of its core.
///
/// # Errors
/// What failed, in words.
pub(super) fn run(simulation: &Rc<Simulation>, seed: u64) -> Result<(), String> {
    let random = Random::new(seed ^ 0x70_6c_61_79);
    let shape = launch::shape(&random);
    let is_watched = random.once_in(8);
    let root = program(simulation, random);
    let play = || launch::on_a_core_of(simulation, shape, root);
    if is_watched { foreign::watches(play) } else { play() }
}

/// The root future of a play.
pub(super) fn program(simulation: &Rc<Simulation>, random: Random) -> impl Fn() -> Root + use<> {
    tasks(simulation, random, programs::one_of_them)
}

/// Runs nothing but relays by a road, of which one side is reset.
///
/// # Errors
/// What failed, in words.
pub(super) fn relays_of_reset(simulation: &Rc<Simulation>, seed: u64, road: Road) -> Result<(), String> {
    let random = Random::new(seed);
    let shape = launch::shape(&random);
    let root = tasks(simulation, random, move |fixture| programs::relays_one_that_is_reset(fixture, road));
    launch::on_a_core_of(simulation, shape, root)
}

/// A root future that runs a task a few times at once.
fn tasks<F, Fut>(simulation: &Rc<Simulation>, random: Random, task: F) -> impl Fn() -> Root + use<F, Fut>
where
    F: Fn(Rc<Fixture>) -> Fut + 'static,
    Fut: Future<Output = programs::Seen> + 'static,
{
    let made = RefCell::new(Some((Rc::clone(simulation), random, task)));
    move || {
        let (simulation, random, task) = made.take().expect("called once");
        let fixture = Rc::new(Fixture { simulation, random });
        Box::pin(async move {
            let tasks: Vec<_> =
                (0..fixture.random.between(1, 6)).map(|_| spawn(task(Rc::clone(&fixture)))).collect();
            for task in tasks {
                let seen = task.await.map_err(|e| format!("a task of the program: {e}"));
                if let Err(wrong) = seen.and_then(|seen| seen) {
                    fixture.simulation.wrong(wrong);
                }
            }
            fixture.simulation.all_are_closed().await;
            Ok(())
        })
    }
}

/// Whether the process had no descriptor left.
pub(super) fn lacks_descriptors(e: &crate::Error) -> bool {
    e.io_error().and_then(std::io::Error::raw_os_error) == Some(libc::EMFILE)
}

impl Fixture {
    /// Some time, mostly short.
    pub(super) fn time(&self) -> Duration {
        let most = self.random.pick(&[20, 500, 5_000, 60_000]);
        Duration::from_micros(self.random.below(most))
    }

    /// A peer that sends and expects streams of its own.
    pub(super) fn peer(&self, most: u64) -> Peer {
        let total = self.random.pick(&[0, 1, 100, 9_000, most, most]);
        let total = self.random.between(total / 2, total);
        let ending = match self.random.below(8) {
            0..=2 => Ending::Fin,
            3..=5 => Ending::FinAfter(self.random.below(most)),
            6 => Ending::ResetAtIn(self.random.below(total + 1)),
            _ => Ending::ResetAtOut(self.random.below(most)),
        };
        Peer {
            sends: self.random.next() as u32,
            total,
            expects: self.random.next() as u32,
            window: self.random.pick(&[60, 700, 9_000, 64 << 10]),
            ending,
            vanishes: self.random.once_in(5),
            patience: self.random.between(1, 300) * 1_000_000,
            stalls: self.random.pick(&[0, 3, 40]),
        }
    }
}

/// How reading has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Clean,
    Failed,
}

/// What was read of a connection, in order.
pub(super) struct Reading {
    conn: usize,
    stream: u32,
    pub(super) at: u64,
    /// Leases that are kept for a while, and where their bytes begin.
    held: Vec<(u64, Lease)>,
}

impl Reading {
    pub(super) fn new(fixture: &Fixture, conn: usize) -> Self {
        let stream = fixture.simulation.conn(conn, |conn| conn.peer.sends);
        Self { conn, stream, at: 0, held: Vec::new() }
    }

    fn must_be(&self, at: u64, bytes: &[u8], what: &str) -> Result<(), String> {
        match differs(self.stream, at, bytes) {
            None => Ok(()),
            Some(wrong) => Err(format!("connection {}: byte {wrong} is wrong {what}", self.conn)),
        }
    }

    /// A chunk came: it is looked at, and may be kept.
    pub(super) fn came(&mut self, fixture: &Fixture, mut chunk: Lease) -> Result<(), String> {
        self.must_be(self.at, &chunk, "as it came")?;
        let at = self.at;
        self.at += chunk.len() as u64;
        if fixture.random.once_in(8) && self.held.len() < 2 {
            if fixture.random.once_in(2) {
                let first = chunk.split_to(chunk.len() / 2);
                self.must_be(at, &first, "of the first half")?;
                self.held.push((at + first.len() as u64, chunk));
            } else {
                self.held.push((at, chunk));
            }
        }
        if fixture.random.once_in(3)
            && let Some((at, lease)) = self.held.pop()
        {
            self.must_be(at, &lease, "of a lease that was kept")?;
        }
        Ok(())
    }

    /// Receives once, in one of the ways that there are.
    pub(super) async fn step(
        &mut self,
        fixture: &Fixture,
        stream: &TcpStream,
    ) -> Result<Option<End>, String> {
        match fixture.random.below(12) {
            0 => {
                self.let_go()?;
                sleep(fixture.time()).await;
            }
            1 => {
                for chunk in stream.quiesce().await {
                    self.came(fixture, chunk)?;
                }
            }
            2 => {
                if let Ok(received) = timeout(fixture.time(), stream.recv()).await {
                    return self.got(fixture, received);
                }
            }
            3 => {
                let room = fixture.random.between(1, 6_000) as usize;
                return match stream.recv_into(Vec::with_capacity(room)).await {
                    Ok((0, _)) => Ok(Some(End::Clean)),
                    Ok((n, buf)) => {
                        self.must_be(self.at, &buf[..n], "in a buffer of ours")?;
                        self.at += n as u64;
                        Ok(None)
                    }
                    Err(_) => Ok(Some(End::Failed)),
                };
            }
            _ => {
                // What is kept may be what others wait for.
                let received = stream.recv();
                let received = match timeout(Duration::from_millis(30), received).await {
                    Ok(received) => received,
                    Err(_) => {
                        self.let_go()?;
                        stream.recv().await
                    }
                };
                return self.got(fixture, received);
            }
        }
        Ok(None)
    }

    pub(super) fn let_go(&mut self) -> Result<(), String> {
        for (at, lease) in std::mem::take(&mut self.held) {
            self.must_be(at, &lease, "of a lease that was kept")?;
        }
        Ok(())
    }

    fn got(
        &mut self,
        fixture: &Fixture,
        received: crate::Result<Option<Lease>>,
    ) -> Result<Option<End>, String> {
        match received {
            Ok(Some(chunk)) => self.came(fixture, chunk).map(|()| None),
            Ok(None) => Ok(Some(End::Clean)),
            Err(_) => Ok(Some(End::Failed)),
        }
    }

    /// Reads to the end and judges what was seen. The end is the same however often it is asked for.
    pub(super) async fn finish(&mut self, fixture: &Fixture, stream: &TcpStream) -> Result<(), String> {
        loop {
            let Some(end) = self.step(fixture, stream).await? else { continue };
            self.judge(fixture, &end)?;
            return match (stream.recv().await, end) {
                (Ok(None), End::Clean) | (Err(_), End::Failed) => Ok(()),
                (other, end) => Err(format!("connection {}: {end:?} end, and then {other:?}", self.conn)),
            };
        }
    }

    /// Bytes arrive whole and in order, or the stream says that it broke.
    pub(super) fn judge(&mut self, fixture: &Fixture, end: &End) -> Result<(), String> {
        self.let_go()?;
        let (at, conn) = (self.at, self.conn);
        fixture.simulation.says(format_args!("connection {conn} was read to its end, {at} bytes: {end:?}"));
        fixture.simulation.conn(conn, |conn| match end {
            End::Clean if conn.fin && at == conn.peer.total => Ok(()),
            End::Failed if conn.was_reset => Ok(()),
            _ => Err(format!(
                "connection {}: {end:?} end after {at} of {} bytes; it has {} and {}",
                conn.id,
                conn.peer.total,
                if conn.fin { "ended" } else { "not ended" },
                if conn.was_reset { "was reset" } else { "was not reset" },
            )),
        })
    }
}

/// What was written to a connection.
pub(super) struct Writing {
    conn: usize,
    stream: u32,
    at: u64,
}

impl Writing {
    pub(super) fn new(fixture: &Fixture, conn: usize) -> Self {
        let stream = fixture.simulation.conn(conn, |conn| conn.peer.expects);
        Self { conn, stream, at: 0 }
    }

    fn next(&self, from: u64, len: u64) -> Bytes {
        Bytes((self.at + from..self.at + from + len).map(|at| byte(self.stream, at)).collect())
    }

    /// Sends once, in one of the ways that there are. False: no more is to be sent.
    pub(super) async fn step(&mut self, fixture: &Fixture, stream: &TcpStream) -> Result<bool, String> {
        let most = fixture.random.pick(&[1, 2_000, 30_000]);
        let len = fixture.random.below(most + 1);
        let sent = match fixture.random.below(7) {
            0 => stream.send_all_more(self.next(0, len)).await.map(drop).map_err(crate::Error::from),
            1 => {
                let parts = [self.next(0, len / 3), self.next(len / 3, len - len / 3)];
                stream.send_all_vectored(parts).await.map(drop).map_err(crate::Error::from)
            }
            2 | 3 => {
                let Some(mut block) = Block::take() else { return Ok(true) };
                block.extend_from_slice(&self.next(0, len).0);
                stream.send_zc(block).await
            }
            4 if fixture.random.once_in(3) => {
                match timeout(fixture.time(), stream.send_all(self.next(0, len))).await {
                    Ok(sent) => sent.map(drop).map_err(crate::Error::from),
                    Err(_) => return self.poisoned(stream).await,
                }
            }
            _ => stream.send_all(self.next(0, len)).await.map(drop).map_err(crate::Error::from),
        };
        match sent {
            Ok(()) => {
                self.at += len;
                let left = fixture.simulation.conn(self.conn, |conn| conn.sent);
                if left != self.at {
                    return Err(format!("connection {}: {left} bytes have left of {}", self.conn, self.at));
                }
                Ok(true)
            }
            Err(_) if fixture.simulation.conn(self.conn, |conn| conn.was_reset) => Ok(false),
            Err(e) => Err(format!("connection {}: a send failed: {e}", self.conn)),
        }
    }

    /// A send was dropped: the stream says so, or nothing of it was asked for.
    async fn poisoned(&mut self, stream: &TcpStream) -> Result<bool, String> {
        match stream.send_all(Bytes(Vec::new())).await {
            Err(e) if e.error.kind() != ErrorKind::WritePoisoned => {
                Err(format!("connection {}: after a dropped send: {}", self.conn, e.error))
            }
            _ => Ok(false),
        }
    }
}
