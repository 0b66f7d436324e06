//! Bulk bytes through a relay: the driver is both ends, on Annulus.

use super::order::{ACK, Ask, Order};
use super::wire::Wire;
use super::{Outcome, wrong};
use annulus::spawn;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the backend to the client.
    Down,
    /// From the client to the backend.
    Up,
}

impl FromStr for Direction {
    type Err = String;

    fn from_str(text: &str) -> Result<Direction, String> {
        match text {
            "down" => Ok(Direction::Down),
            "up" => Ok(Direction::Up),
            _ => Err(format!("`{text}` is no direction: down or up")),
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Down => "down",
            Direction::Up => "up",
        })
    }
}

/// Connections through a relay to the driver's own backend.
pub(super) struct Bulk {
    wires: Vec<Wire>,
    direction: Direction,
}

impl Bulk {
    /// Connects `connections` times, each until the backend behind the relay has answered.
    pub(super) async fn open(
        relay: SocketAddr,
        direction: Direction,
        connections: usize,
        moved: &Arc<AtomicU64>,
    ) -> io::Result<Bulk> {
        let mut wires = Vec::with_capacity(connections);
        for _ in 0..connections {
            let mut wire = Wire::connect(relay, moved).await?;
            up(&mut wire, 0, false).await?;
            wires.push(wire);
        }
        Ok(Bulk { wires, direction })
    }

    /// Moves bytes on all connections at the same time.
    pub(super) async fn pass(&mut self, ask: Ask) -> io::Result<Outcome> {
        let count = self.wires.len() as u64;
        let (each, verify) = match ask {
            // More than the sockets and the pipe on the way can hold, and no multiple of any step.
            Ask::Verify => ((12 << 20) / count + 4_099, true),
            Ask::Run(bytes) => ((bytes / count).max(1), false),
        };
        let begun = Instant::now();
        let direction = self.direction;
        let moving = self.wires.drain(..).map(|mut wire| {
            spawn(async move {
                match direction {
                    Direction::Down => down(&mut wire, each, verify).await?,
                    Direction::Up => up(&mut wire, each, verify).await?,
                }
                Ok::<_, io::Error>(wire)
            })
        });
        let moving: Vec<_> = moving.collect();
        for wire in moving {
            self.wires.push(wire.await.map_err(|e| io::Error::other(e.to_string()))??);
        }
        let bytes = each * count;
        Ok(Outcome { requests: count, bytes, wall: begun.elapsed(), ..Outcome::default() })
    }
}

async fn down(wire: &mut Wire, bytes: u64, verify: bool) -> io::Result<()> {
    wire.send(Order::Send { bytes, verify }.encode()).await?;
    wire.take(bytes, verify, 0).await?;
    if wire.has_rest() { Err(wrong("bytes came that nobody sent")) } else { Ok(()) }
}

async fn up(wire: &mut Wire, bytes: u64, verify: bool) -> io::Result<()> {
    wire.send(Order::Receive { bytes, verify }.encode()).await?;
    wire.put(bytes, verify).await?;
    match wire.exactly().await? {
        Some(ACK) if !wire.has_rest() => Ok(()),
        Some(_) => Err(wrong("bytes came that nobody sent")),
        None => Err(wrong("the connection ended before the backend had all, or bytes were wrong there")),
    }
}
