//! One end of a connection: it does what its plan says, without ever waiting.

use super::plan::{Plan, Random, TOLD, Tail};
use crate::net;
use rustix::event::PollFlags;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What became of one end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// What both ends were to do. `None` at the upstream's end of a connection that brought no word of it.
    pub plan: Option<Plan>,
    /// The client's address; of an upstream's end, 0.
    pub client: Option<SocketAddr>,
    /// Bytes of the other peer that came. They were the right ones.
    pub got: u64,
    /// How the other peer's side ended, as far as this one has looked.
    pub saw: Saw,
}

/// How the other peer's side has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saw {
    /// Not that this one knows.
    Nothing,
    /// By an end.
    End,
    /// By a reset.
    Reset,
}

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The client's.
    Client = 0,
    /// The upstream's.
    Upstream = 1,
}

#[derive(Debug)]
pub(super) struct Peer {
    /// Taken when it is reset.
    stream: Option<TcpStream>,
    side: Side,
    client: Option<SocketAddr>,
    plan: Option<Plan>,
    /// Of the plan, as far as it has come.
    heard: Vec<u8>,
    random: Random,
    /// A client's with the plan before.
    sent: u64,
    got: u64,
    saw: Saw,
    /// A write has been refused.
    is_refused: bool,
    has_shut: bool,
    /// It writes, or ends, from then on.
    next: Instant,
}

impl Peer {
    pub(super) fn client(stream: TcpStream, plan: Plan) -> Peer {
        let client = stream.local_addr().ok();
        Peer { client, plan: Some(plan), ..Peer::new(stream, Side::Client, plan.seed) }
    }

    pub(super) fn upstream(stream: TcpStream, seed: u64) -> Peer {
        Peer::new(stream, Side::Upstream, seed)
    }

    fn new(stream: TcpStream, side: Side, seed: u64) -> Peer {
        Peer {
            stream: Some(unwaiting(stream)),
            side,
            client: None,
            plan: None,
            heard: Vec::new(),
            random: Random::new(seed),
            sent: 0,
            got: 0,
            saw: Saw::Nothing,
            is_refused: false,
            has_shut: false,
            next: Instant::now(),
        }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        self.stream.as_ref().expect("it is over when it is taken")
    }

    /// Bytes that it has sent and received so far.
    pub(super) fn moved(&self) -> u64 {
        self.sent + self.got
    }

    /// Bytes that it has to send in all.
    fn due(&self) -> u64 {
        let before = if self.side == Side::Client { TOLD as u64 } else { 0 };
        self.plan.map_or(0, |plan| before + plan.scripts[self.side as usize].sends)
    }

    /// What it is to be woken for.
    pub(super) fn awaits(&self, now: Instant) -> PollFlags {
        let mut events = PollFlags::empty();
        events.set(PollFlags::IN, self.saw == Saw::Nothing);
        events.set(PollFlags::OUT, !self.is_refused && self.sent < self.due() && now >= self.next);
        events
    }

    /// Whether it has something to do that no descriptor tells of.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.sent == self.due() && now >= self.next
    }

    /// Does what it can do now. How it was, once it is over.
    pub(super) fn step(&mut self, now: Instant) -> Option<Outcome> {
        if self.plan.is_some_and(|plan| self.side == Side::Client && plan.scripts[0].tail == Tail::Vanish) {
            return Some(self.reset());
        }
        self.read();
        // What comes behind an end is told to nobody who does not ask.
        if self.saw == Saw::End && self.stream().take_error().is_ok_and(|error| error.is_some()) {
            self.saw = Saw::Reset;
        }
        let Some(plan) = self.plan else {
            // Without a word of what to do there is nothing to do.
            return (self.saw != Saw::Nothing).then(|| self.outcome());
        };
        if now >= self.next && self.sent < self.due() && !self.is_refused {
            self.write(&plan);
            let pause = plan.scripts[self.side as usize].pause.as_millis() as u64;
            self.next = now + Duration::from_millis(if pause > 0 { self.random.below(pause) } else { 0 });
        }
        let has_sent = self.sent == self.due() && now >= self.next;
        match plan.scripts[self.side as usize].tail {
            _ if self.saw == Saw::Reset => return Some(self.outcome()),
            _ if !has_sent => {}
            Tail::Fin if !self.has_shut => self.shut(),
            Tail::Fin if self.saw == Saw::End => return Some(self.outcome()),
            Tail::Fin => {}
            Tail::Close if self.has_come() && !self.has_shut => self.shut(),
            // Its own kernel throws away what is not acknowledged when it refuses what comes.
            Tail::Close if self.has_shut && net::unacknowledged(self.stream()) == 0 => {
                return Some(self.outcome());
            }
            Tail::Reset if self.has_come() && net::unacknowledged(self.stream()) == 0 => {
                return Some(self.reset());
            }
            Tail::Close | Tail::Reset | Tail::Vanish => {}
        }
        None
    }

    /// Whether the other side is known to be there: who goes before that ends the attempt to connect to it.
    fn has_come(&self) -> bool {
        self.got > 0 || self.side == Side::Upstream || self.saw == Saw::End
    }

    fn shut(&mut self) {
        self.has_shut = true;
        // What has gone meanwhile is seen by reading.
        let _ = self.stream().shutdown(Shutdown::Write);
    }

    fn reset(&mut self) -> Outcome {
        net::reset(self.stream.take().expect("once"));
        self.outcome()
    }

    fn outcome(&self) -> Outcome {
        Outcome { plan: self.plan, client: self.client, got: self.got, saw: self.saw }
    }

    fn read(&mut self) {
        let mut piece = [0; 16 * 1024];
        while self.saw == Saw::Nothing {
            match { self.stream() }.read(&mut piece) {
                // A write that was refused has taken the word of the reset.
                Ok(0) if self.is_refused => self.saw = Saw::Reset,
                Ok(0) => self.saw = Saw::End,
                Ok(n) => self.look_at(&piece[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if net::is_gone(&e) => self.saw = Saw::Reset,
                Err(e) => panic!("reading: {e}: {self:?}"),
            }
        }
    }

    /// Takes the plan in, and checks what comes behind it.
    fn look_at(&mut self, mut piece: &[u8]) {
        if self.side == Side::Upstream && self.plan.is_none() {
            let n = piece.len().min(TOLD - self.heard.len());
            self.heard.extend_from_slice(&piece[..n]);
            piece = &piece[n..];
            let Ok(told) = self.heard.as_slice().try_into() else { return };
            self.plan = Some(Plan::hear(told));
        }
        let Some(plan) = self.plan else { return };
        for (at, byte) in (self.got..).zip(piece) {
            let due = plan.byte(1 - self.side as usize, at);
            assert_eq!(*byte, due, "byte {at} of what the other peer sends is another: {self:?}");
        }
        self.got += piece.len() as u64;
        let most = plan.scripts[1 - self.side as usize].sends;
        assert!(self.got <= most, "more than the other peer sends: {self:?}");
    }

    fn write(&mut self, plan: &Plan) {
        let most = match self.random.below(3) {
            0 => 1 + self.random.below(100),
            1 => 1 + self.random.below(9000),
            _ => 256 * 1024,
        };
        let before = if self.side == Side::Client { TOLD as u64 } else { 0 };
        let piece: Vec<u8> = if self.sent < before {
            plan.tell()[self.sent as usize..].to_vec()
        } else {
            let at = self.sent - before;
            let end = (at + most).min(plan.scripts[self.side as usize].sends);
            (at..end).map(|at| plan.byte(self.side as usize, at)).collect()
        };
        match { self.stream() }.write(&piece) {
            Ok(n) => self.sent += n as u64,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) if net::is_gone(&e) => {
                self.is_refused = true;
                // Nothing more is read that would tell of it.
                if self.saw == Saw::End {
                    self.saw = Saw::Reset;
                }
            }
            Err(e) => panic!("writing: {e}: {self:?}"),
        }
    }
}

/// Gives `stream` back as one that does not wait.
fn unwaiting(stream: TcpStream) -> TcpStream {
    stream.set_nonblocking(true).expect("a socket of ours");
    stream
}
