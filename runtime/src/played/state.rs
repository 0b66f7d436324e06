//! The state of the played kernel, and its steps.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::os::fd::{AsRawFd as _, OwnedFd};

use super::buffers::Buffers;
use super::connects::Serving;
use super::datagrams::PlayedUdp;
use super::files::Opened;
use super::network::{Act, Conn, Listening, Peer, inode, stand_in};
use super::ops::{F_MORE, Goes, Op};
use super::random::Random;
use super::sqe::{Sqe, code, key_of};
use super::trace::{Trace, Tracing};
use crate::ring::Cqe;

/// `IORING_ASYNC_CANCEL_ANY` in a cancel's flags.
const CANCEL_ANY: u32 = 1 << 2;
/// Steps after which a play must have come to its end.
const MOST_STEPS: u64 = 30_000;

pub(super) struct State {
    pub(super) random: Random,
    pub(super) trace: Trace,
    pub(super) steps: u64,
    /// Nanoseconds of the play.
    pub(super) now: u64,
    pub(super) failure: Option<String>,
    /// The core was told so.
    pub(super) stopped: bool,
    pub(super) sq: VecDeque<Sqe>,
    pub(super) sq_entries: usize,
    /// Each with how many buffers of the ring it has used up.
    cq: VecDeque<(Cqe, u16)>,
    cq_entries: usize,
    pub(super) overflow: VecDeque<(Cqe, u16)>,
    /// An enter would post something.
    pub(super) taskrun: bool,
    pub(super) running: Vec<Op>,
    /// Keys of which the kernel may still speak, and what they stand for.
    pub(super) spoken_of: BTreeMap<u64, &'static str>,
    pub(super) buffers: Buffers,
    pub(super) conns: Vec<Conn>,
    pub(super) listening: Vec<Listening>,
    pub(super) serving: Vec<Serving>,
    pub(super) udp: Vec<PlayedUdp>,
    /// Files that the core had opened for it.
    pub(super) opened: Vec<Opened>,
    /// How many bytes of files are in memory, by inode.
    pub(super) cached: BTreeMap<u64, u64>,
    /// How often no descriptor was left for a socket or a pipe.
    pub(super) lacked: u64,
    /// Zero-copy sends are copied after all.
    pub(super) copies: bool,
    /// Seconds may pass while the kernel has something to do, as on a machine that was suspended.
    pub(super) leaps: bool,
}

/// What may happen next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    /// The operation at this place goes on.
    Op(usize),
    /// The peer of the connection at this place does something.
    Peer(usize, Act),
    /// A client connects to the listener at this place.
    Client(usize),
    /// Something comes for the UDP socket at this place.
    Datagram(usize),
}

impl State {
    pub(super) fn new(seed: u64, tracing: Tracing) -> Self {
        let random = Random::new(seed);
        let sq_entries = random.pick(&[4, 8, 64]);
        let cq_entries = random.pick(&[4, 16, 256]);
        let copies = random.once_in(2);
        Self {
            random,
            trace: Trace::new(tracing),
            steps: 0,
            now: 0,
            failure: None,
            stopped: false,
            sq: VecDeque::new(),
            sq_entries,
            cq: VecDeque::new(),
            cq_entries,
            overflow: VecDeque::new(),
            taskrun: false,
            running: Vec::new(),
            spoken_of: BTreeMap::new(),
            buffers: Buffers::default(),
            conns: Vec::new(),
            listening: Vec::new(),
            serving: Vec::new(),
            udp: Vec::new(),
            opened: Vec::new(),
            cached: BTreeMap::new(),
            lacked: 0,
            copies,
            leaps: true,
        }
    }

    pub(super) fn tell(&mut self, what: fmt::Arguments<'_>) {
        self.trace.line(self.steps, self.now, what);
    }

    /// Something is wrong: the first such thing counts.
    pub(super) fn fail(&mut self, what: String) {
        self.tell(format_args!("WRONG: {what}"));
        self.trace.stopped = true;
        self.failure.get_or_insert(what);
    }

    /// A new connection, and the descriptor that stands for it.
    pub(super) fn connect(&mut self, peer: Peer) -> OwnedFd {
        let (ours, witness) = stand_in();
        let id = self.conns.len() as u32;
        let number = ours.as_raw_fd();
        let inode = inode(number).expect("it was just made");
        self.conns.push(Conn::new(id, inode, witness, peer));
        self.tell(format_args!("connection {id}, descriptor {number}: {peer:?}"));
        ours
    }

    /// The connection that a descriptor stands for.
    pub(super) fn conn_at(&self, fd: i32) -> Option<usize> {
        let inode = inode(fd)?;
        self.conns.iter().rposition(|conn| conn.inode == inode && !conn.closed)
    }

    pub(super) fn conn_of(&self, sqe: Sqe) -> Option<usize> {
        match sqe.opcode {
            code::SPLICE => self.conn_at(sqe.fd).or_else(|| self.conn_at(sqe.splice_from)),
            _ => self.conn_at(sqe.fd),
        }
    }

    /// The kernel takes this many SQEs.
    pub(super) fn submit(&mut self, count: usize) {
        for _ in 0..count {
            let Some(sqe) = self.sq.pop_front() else { return };
            let then = if sqe.is_linked() { self.sq.pop_front() } else { None };
            self.begin(sqe, then);
        }
    }

    fn begin(&mut self, sqe: Sqe, then: Option<Sqe>) {
        if sqe.opcode == code::ASYNC_CANCEL {
            return self.cancel(sqe);
        }
        match self.conn_of(sqe) {
            Some(at) => {
                self.tell(format_args!("takes {} on connection {at}, {:x}", sqe.name(), sqe.user_data))
            }
            None => self.tell(format_args!("takes {} {:x}", sqe.name(), sqe.user_data)),
        }
        if sqe.opcode == code::CLOSE
            && let Some(op) = self.running.iter().find(|op| op.sqe.fd == sqe.fd && op.sqe.key().is_some())
        {
            self.fail(format!(
                "descriptor {} is closed while the kernel has {} on it",
                sqe.fd,
                op.sqe.name()
            ));
        }
        let mut op = Op::new(self, sqe, then);
        // Closing a socket is done when the SQE is taken.
        if sqe.opcode == code::CLOSE {
            self.go_on(&mut op);
        } else {
            self.running.push(op);
        }
    }

    fn cancel(&mut self, sqe: Sqe) {
        let any = sqe.op_flags & CANCEL_ANY != 0;
        let mut found = 0;
        let is_it = |op: &&Op| op.sqe.user_data == sqe.addr && op.is_a_workers();
        if !any && self.running.iter().any(|op| is_it(&op)) && self.random.once_in(4) {
            // A worker is in the midst of it and goes on to its end.
            self.tell(format_args!("cancels {:x}, too late", sqe.addr));
            return self.post(sqe.user_data, -libc::EALREADY, 0);
        }
        for op in &mut self.running {
            let is_it = any || op.sqe.user_data == sqe.addr;
            if is_it && op.can_be_cancelled() && !matches!(op.sqe.opcode, code::CLOSE | code::NOP) {
                op.cancelled = true;
                found += 1;
            }
        }
        if any {
            self.tell(format_args!("cancels all, finds {found}"));
        } else {
            self.tell(format_args!("cancels {:x}, finds {found}", sqe.addr));
        }
        if found == 0 {
            self.post(sqe.user_data, -libc::ENOENT, 0);
        } else if !sqe.skips_success() {
            self.post(sqe.user_data, found, 0);
        }
    }

    /// Posts a CQE, into the queue or behind it.
    pub(super) fn post(&mut self, user_data: u64, result: i32, flags: u32) {
        self.post_with(user_data, result, flags, 0);
    }

    /// Posts a CQE that has used up this many receive buffers.
    pub(super) fn post_with(&mut self, user_data: u64, result: i32, flags: u32, used_up: u16) {
        self.tell(format_args!("answers {user_data:x}: {result}, flags {flags:x}"));
        let cqe = (Cqe { user_data, result, flags }, used_up);
        if self.cq.len() < self.cq_entries && self.overflow.is_empty() {
            self.cq.push_back(cqe);
        } else {
            self.overflow.push_back(cqe);
        }
    }

    /// What overflowed goes into the queue, as far as there is room.
    pub(super) fn flush_overflow(&mut self) {
        while self.cq.len() < self.cq_entries
            && let Some(cqe) = self.overflow.pop_front()
        {
            self.cq.push_back(cqe);
        }
    }

    pub(super) fn completions(&self) -> usize {
        self.cq.len()
    }

    /// Buffers that are named by CQEs which the core has not taken.
    pub(super) fn untaken_buffers(&self) -> usize {
        self.cq.iter().chain(&self.overflow).map(|(_, used_up)| usize::from(*used_up)).sum()
    }

    /// The core takes a CQE.
    pub(super) fn take(&mut self) -> Option<Cqe> {
        let (cqe, _) = self.cq.pop_front()?;
        if cqe.flags & F_MORE == 0
            && let Some(key) = key_of(cqe.user_data)
        {
            self.spoken_of.remove(&key);
        }
        Some(cqe)
    }

    /// All events that may happen now.
    pub(super) fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for (at, op) in self.running.iter().enumerate() {
            if self.is_ready(op) {
                events.push(Event::Op(at));
            }
        }
        for (at, conn) in self.conns.iter().enumerate() {
            events.extend(conn.acts(self.now).into_iter().map(|act| Event::Peer(at, act)));
        }
        for (at, listening) in self.listening.iter().enumerate() {
            if !listening.to_come.is_empty() {
                events.push(Event::Client(at));
            }
        }
        for (at, udp) in self.udp.iter().enumerate() {
            if udp.is_awaited() {
                events.push(Event::Datagram(at));
            }
        }
        events
    }

    /// Has one of them happen.
    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Op(at) => {
                let mut op = self.running.swap_remove(at);
                if self.go_on(&mut op) == Goes::On {
                    self.running.push(op);
                }
            }
            Event::Peer(at, act) => {
                let now = self.now;
                self.conns[at].act(act, &self.random, now);
                let conn = &self.conns[at];
                let (arrived, taken, sent, read) = (conn.arrived, conn.taken, conn.sent, conn.read);
                self.tell(format_args!(
                    "peer {at} {act:?}: {arrived} came, {taken} taken; {sent} sent, {read} taken"
                ));
            }
            Event::Client(at) => {
                let listening = &mut self.listening[at];
                let client = listening.to_come.pop();
                listening.backlog.extend(client);
            }
            Event::Datagram(at) => self.udp[at].arrive(&self.random),
        }
    }

    /// When a peer that has stopped goes on.
    pub(super) fn next_wake(&self) -> Option<u64> {
        self.conns.iter().filter_map(|conn| conn.wakes_at(self.now)).min()
    }

    /// Whether a play takes longer than any should.
    pub(super) fn is_too_long(&self) -> bool {
        self.steps > MOST_STEPS
    }
}
