//! Requests and answers one by one, from an Annulus program: as fast as they come back, or at a fixed rate.
//!
//! At a fixed rate each request has its moment, set before the run begins, and latency counts from that
//! moment. One that cannot be sent then, because its connection still waits for an answer, is late from the
//! start: a server that stops for a while pays for all that was due meanwhile (no coordinated omission).

use super::asks::{parse_head, request};
use super::beside::ColdStream;
use super::clock::Clock;
use super::order::{Ask, Order};
use super::wire::Wire;
use super::{Driver, Load, Outcome, wrong};
use crate::cputime;
use crate::histogram::Histogram;
use crate::pattern;
use annulus::spawn;
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// What goes there and back.
#[derive(Clone)]
enum What {
    /// A request, and the bytes of the body that answers it.
    Http(Vec<u8>, u64),
    /// A message that comes back.
    Message(usize),
}

/// Connections, each with one request under way at most.
pub(super) struct Exchange {
    wires: Vec<Wire>,
    what: What,
    rate: Option<u32>,
    beside: Option<ColdStream>,
}

/// What the players of a run find out.
#[derive(Default)]
struct Found {
    /// How long requests took.
    latency: Histogram,
    /// How late requests were sent that waited for their moment.
    late: Histogram,
}

impl Exchange {
    /// Opens the connections of `load`; through a relay, each until the backend behind it has answered.
    pub(super) async fn open(
        load: &Load,
        server: SocketAddr,
        moved: &Arc<AtomicU64>,
    ) -> io::Result<Exchange> {
        let (load, beside) = match load {
            Load::Beside { of, cold } => (&**of, Some(ColdStream::new(server, cold, moved)?)),
            load => (load, None),
        };
        let (of, rate) = match load {
            Load::Paced { of, rate } => (&**of, Some(*rate)),
            load => (load, None),
        };
        let (what, connections, relayed) = match of {
            Load::Http { path, body, connections } => {
                (What::Http(request(server, path, ""), *body), *connections, false)
            }
            Load::Echo { size, connections, relayed } => (What::Message(*size), *connections, *relayed),
            other => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("cannot pace {other:?}")));
            }
        };
        let mut wires = Vec::with_capacity(connections);
        for token in 0..connections as u64 {
            let mut wire = Wire::connect(server, moved).await?;
            if relayed {
                wire.send(Order::Echo.encode()).await?;
                exchange(&mut wire, &what, Some(token)).await?;
            }
            wires.push(wire);
        }
        Ok(Exchange { wires, what, rate, beside })
    }

    /// As many exchanges as were asked for, over all connections.
    pub(super) async fn pass(&mut self, ask: Ask) -> io::Result<Outcome> {
        let Ask::Run(count) = ask else { return self.verify().await };
        let connections = self.wires.len() as u64;
        let streaming = match &self.beside {
            Some(beside) => Some(beside.begin().await?),
            None => None,
        };
        let cpu = cputime::thread_ns()?;
        // What is due in the first millisecond would be late by our own doing.
        let begin = Instant::now() + self.rate.map_or(Duration::ZERO, |_| Duration::from_millis(1));
        let clock = Rc::new(Clock::default());
        let (left, working) = (Rc::new(Cell::new(count)), Rc::new(Cell::new(connections)));
        let mut players = Vec::new();
        for (first, mut wire) in (0_u64..).zip(self.wires.drain(..)) {
            let (what, rate) = (self.what.clone(), self.rate);
            let (left, working, clock) = (Rc::clone(&left), Rc::clone(&working), Rc::clone(&clock));
            players.push(spawn(async move {
                let mut found = Found::default();
                let played = match rate {
                    None => as_they_come(&mut wire, &what, &left).await,
                    Some(rate) => {
                        let due =
                            (first..count).step_by(connections as usize).map(|k| begin + moment(k, rate));
                        on_time(&mut wire, &what, due, &clock, &mut found).await
                    }
                };
                working.set(working.get() - 1);
                played.map(|()| (wire, found))
            }));
        }
        if self.rate.is_some() {
            clock.tick_while(|| working.get() > 0).await;
        }
        let (wall, cpu) = (begin.elapsed(), cputime::thread_ns()? - cpu);
        if let Some(streaming) = streaming {
            streaming.end().await?;
        }
        let (mut latency, mut late) = (Histogram::default(), Histogram::default());
        for player in players {
            let (wire, more) = player.await.map_err(|e| io::Error::other(e.to_string()))??;
            latency.merge(&more.latency);
            late.merge(&more.late);
            self.wires.push(wire);
        }
        let size = match self.what {
            What::Http(_, body) => body,
            What::Message(size) => size as u64,
        };
        let paced = self.rate.map(|_| (latency, Driver { late, cpu: Duration::from_nanos(cpu) }));
        let (latency, driver) = paced.unzip();
        Ok(Outcome { requests: count, bytes: count * size, wall, latency, driver })
    }

    /// Connections carry different messages, so that an answer on the wrong one shows; three times, so that
    /// each answer must begin where the one before has ended.
    async fn verify(&mut self) -> io::Result<Outcome> {
        for round in 0..3 {
            for (token, wire) in (0_u64..).zip(&mut self.wires) {
                exchange(wire, &self.what, Some((round << 40) + (token << 20))).await?;
            }
        }
        Ok(Outcome::default())
    }
}

/// When the `k`-th request is due, from the beginning.
fn moment(k: u64, rate: u32) -> Duration {
    let ns = u128::from(k) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}

async fn as_they_come(wire: &mut Wire, what: &What, left: &Cell<u64>) -> io::Result<()> {
    while let Some(fewer) = left.get().checked_sub(1) {
        left.set(fewer);
        exchange(wire, what, None).await?;
    }
    Ok(())
}

async fn on_time(
    wire: &mut Wire,
    what: &What,
    dues: impl Iterator<Item = Instant>,
    clock: &Clock,
    found: &mut Found,
) -> io::Result<()> {
    let since = |due: Instant| u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX);
    for due in dues {
        if clock.until(due).await {
            found.late.record(since(due));
        }
        exchange(wire, what, None).await?;
        found.latency.record(since(due));
    }
    Ok(())
}

/// There and back; with every byte checked if there is an offset, which for messages says which bytes they
/// are.
async fn exchange(wire: &mut Wire, what: &What, verify: Option<u64>) -> io::Result<()> {
    match what {
        What::Message(size) => {
            let mut message = vec![0; *size];
            if let Some(offset) = verify {
                pattern::fill(&mut message, offset);
            }
            wire.send(message).await?;
            wire.take(*size as u64, verify.is_some(), verify.unwrap_or(0)).await?;
        }
        What::Http(request, body) => {
            wire.send(request.clone()).await?;
            answer(wire, *body, verify.is_some()).await?;
        }
    }
    if wire.has_rest() { Err(wrong("bytes came that nobody asked for")) } else { Ok(()) }
}

/// Takes a head and the body after it.
async fn answer(wire: &mut Wire, body: u64, verify: bool) -> io::Result<()> {
    let mut head = Vec::new();
    loop {
        let piece = wire.some(u64::MAX).await?;
        let piece = piece.ok_or_else(|| wrong("the connection ended where an answer was due"))?;
        let joined = if head.is_empty() {
            &piece[..]
        } else {
            head.extend_from_slice(&piece);
            &head[..]
        };
        if let Some((length, end)) = parse_head(joined, 200)? {
            let begun = &joined[end..];
            if length != body || begun.len() as u64 > body {
                return Err(wrong(format!("a body of {length} bytes where {body} were due")));
            }
            if verify {
                let right = pattern::check(begun, 0);
                right.map_err(|at| wrong(format!("byte {at} of the body is wrong")))?;
            }
            let begun = begun.len() as u64;
            drop(piece);
            return wire.take(body - begun, verify, begun).await;
        }
        if head.is_empty() {
            head = piece.to_vec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_evenly_spread_and_do_not_drift() {
        assert_eq!(moment(0, 10_000), Duration::ZERO);
        assert_eq!(moment(3, 10_000), Duration::from_micros(300));
        assert_eq!(moment(7_000_000, 7), Duration::from_secs(1_000_000));
    }
}
