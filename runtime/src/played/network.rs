//! The network and its peers: connections, what comes, what was taken, and how they end.
//!
//! A connection does what Linux's TCP does: bytes that came before a reset are received first, the reset is
//! told once, to whoever asks next, and after that a receive finds a clean end (`tcp_recvmsg()`,
//! `sk_stream_error()`).

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use super::random::{Random, byte, differs};
use super::script::Script;

/// Bytes that lie in a socket untaken, at most.
const RECEIVE_BUFFER: u64 = 48 << 10;

/// How a peer ends its side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// When it has sent all.
    Fin,
    /// When it has sent all, and taken so many bytes or been told of the end.
    FinAfter(u64),
    /// By a reset, when so many bytes have come.
    ResetAtIn(u64),
    /// By a reset, when it has taken so many bytes.
    ResetAtOut(u64),
}

/// What a peer will do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// Which stream it sends, and how many bytes of it.
    pub(super) sends: u32,
    pub(super) total: u64,
    /// Which stream it expects to be sent.
    pub(super) expects: u32,
    /// Bytes that its side takes unread.
    pub(super) window: u64,
    pub(super) ending: Ending,
    /// It is out of reach where others reset: the kernel gives it up.
    pub(super) vanishes: bool,
    /// When it ends in any case, in nanoseconds of the play.
    pub(super) patience: u64,
    /// It stops for a while now and then, once in so many of its steps; 0: never.
    pub(super) stalls: u64,
}

/// One connection, as the kernel has it.
pub(super) struct Conn {
    pub(super) id: u32,
    /// What all descriptors that stand for it have in common.
    pub(super) inode: u64,
    /// The other end of the pair whose one end stands for the connection: it tells when that was closed.
    witness: OwnedFd,
    pub(super) peer: Peer,
    /// What the peer says, where that is no stream of numbers.
    pub(super) script: Option<Script>,
    /// Bytes that have come, and of these how many were taken.
    pub(super) arrived: u64,
    pub(super) taken: u64,
    pub(super) fin: bool,
    /// Bytes that were sent, and of these how many the peer has taken.
    pub(super) sent: u64,
    pub(super) read: u64,
    /// An error that was not told yet.
    error: Option<i32>,
    /// No byte moves any more.
    pub(super) gone: bool,
    /// It ended by a reset, of the peer's or of ours.
    pub(super) was_reset: bool,
    pub(super) shut_read: bool,
    pub(super) shut_write: bool,
    /// Its last descriptor was closed.
    pub(super) closed: bool,
    /// The time until which the peer does nothing, in nanoseconds of the play.
    pub(super) stalled_until: u64,
}

/// The answer to a receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Bytes(u64),
    End,
    Error,
}

/// The next step of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Sends,
    Ends,
    Resets,
    Takes,
}

impl Conn {
    pub(super) fn new(id: u32, inode: u64, witness: OwnedFd, peer: Peer) -> Self {
        Self {
            id,
            inode,
            witness,
            peer,
            script: None,
            arrived: 0,
            taken: 0,
            fin: false,
            sent: 0,
            read: 0,
            error: None,
            gone: false,
            was_reset: false,
            shut_read: false,
            shut_write: false,
            closed: false,
            stalled_until: 0,
        }
    }

    /// Whether the descriptor that stands for it is open.
    pub(super) fn is_open(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut polled = [PollFd::new(&self.witness, PollFlags::empty())];
        let ready = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        ready.is_ok_and(|ready| ready == 0)
    }

    pub(super) fn found(&self) -> Found {
        if self.arrived > self.taken {
            Found::Bytes(self.arrived - self.taken)
        } else if self.fin || self.shut_read {
            Found::End
        } else if self.error.is_some() {
            Found::Error
        } else if self.gone {
            Found::End
        } else {
            Found::Nothing
        }
    }

    /// Tells the error that is to be told, once.
    pub(super) fn tell(&mut self) -> i32 {
        self.error.take().unwrap_or(libc::EPIPE)
    }

    /// Whether a send would not wait.
    pub(super) fn is_writable(&self) -> bool {
        self.room() > 0 || self.refuses()
    }

    pub(super) fn room(&self) -> u64 {
        if self.refuses() { 0 } else { self.peer.window - (self.sent - self.read) }
    }

    pub(super) fn refuses(&self) -> bool {
        self.gone || self.shut_write || self.error.is_some()
    }

    /// The error of a send that is refused.
    pub(super) fn refusal(&mut self) -> i32 {
        self.error.take().unwrap_or(libc::EPIPE)
    }

    /// `bytes` leave.
    ///
    /// # Errors
    /// They are not those that the peer expects.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        match &mut self.script {
            Some(script) => script.heard.extend_from_slice(bytes),
            None => {
                if let Some(at) = differs(self.peer.expects, self.sent, bytes) {
                    return Err(format!("connection {} was sent a wrong byte at {at}", self.id));
                }
            }
        }
        self.sent += bytes.len() as u64;
        Ok(())
    }

    /// The first place where `bytes` are not those that were sent from `at` on.
    pub(super) fn differs(&self, at: u64, bytes: &[u8]) -> Option<u64> {
        match &self.script {
            None => differs(self.peer.expects, at, bytes),
            Some(script) => {
                let sent = script.heard[at as usize..].iter().zip(bytes).zip(at..);
                sent.filter(|((was, is), _)| was != is).map(|(_, at)| at).next()
            }
        }
    }

    /// The byte that came `at` bytes after those that were taken.
    pub(super) fn incoming(&self) -> impl Fn(u64) -> u8 + use<> {
        let (stream, from) = (self.peer.sends, self.taken);
        let says = self.script.as_ref().map(|script| Rc::clone(&script.says));
        move |at| match &says {
            Some(says) => says[(from + at) as usize],
            None => byte(stream, from + at),
        }
    }

    /// Bytes that the peer would send by now.
    fn has_to_say(&self) -> u64 {
        self.script.as_ref().map_or(self.peer.total, |script| script.up_to(self.read))
    }

    /// The events that poll(2) reports.
    pub(super) fn events(&self) -> u32 {
        let mut events = 0;
        if self.found() != Found::Nothing {
            events |= libc::POLLIN;
        }
        if self.fin || self.shut_read || self.gone {
            events |= libc::POLLRDHUP;
        }
        if self.is_writable() {
            events |= libc::POLLOUT;
        }
        if self.error.is_some() {
            events |= libc::POLLERR;
        }
        if self.gone || self.fin && self.shut_write {
            events |= libc::POLLHUP;
        }
        events as u32
    }

    /// It is reset: by the peer, or because nothing reaches the peer, which `errno` tells us; or by us, where
    /// there is none.
    pub(super) fn reset(&mut self, errno: Option<i32>) {
        if self.gone {
            return;
        }
        self.gone = true;
        self.was_reset = true;
        match errno {
            Some(libc::ECONNRESET) if self.fin => self.error = Some(libc::EPIPE),
            Some(errno) => self.error = Some(errno),
            None => self.arrived = self.taken,
        }
    }

    /// What the peer can do at this time.
    pub(super) fn acts(&self, now: u64) -> Vec<Act> {
        let mut acts = Vec::new();
        if self.gone || self.stalled_until > now {
            return acts;
        }
        let has_sent = self.arrived == self.peer.total;
        let more = self.arrived < self.has_to_say();
        if more && !self.fin && self.arrived - self.taken < RECEIVE_BUFFER {
            acts.push(Act::Sends);
        }
        if self.read < self.sent {
            acts.push(Act::Takes);
        }
        let told_of_end = (self.shut_write || self.closed) && self.read == self.sent;
        let impatient = self.peer.patience <= now;
        match self.peer.ending {
            Ending::Fin if has_sent && !self.fin => acts.push(Act::Ends),
            Ending::FinAfter(bytes)
                if has_sent && !self.fin && (self.read >= bytes || told_of_end || impatient) =>
            {
                acts.push(Act::Ends);
            }
            Ending::ResetAtIn(bytes) if self.arrived >= bytes.min(self.peer.total) => acts.push(Act::Resets),
            Ending::ResetAtOut(bytes) if self.read >= bytes || told_of_end || impatient => {
                acts.push(Act::Resets);
            }
            _ => {}
        }
        acts
    }

    /// When the peer will do something that it does not do now.
    pub(super) fn wakes_at(&self, now: u64) -> Option<u64> {
        let at = [self.stalled_until, self.peer.patience].into_iter().filter(|at| *at > now).min();
        at.filter(|_| !(self.gone || self.fin && self.read == self.sent))
    }

    /// Has the peer take the step.
    pub(super) fn act(&mut self, act: Act, random: &Random, now: u64) {
        match act {
            Act::Sends => {
                let most =
                    (self.has_to_say() - self.arrived).min(RECEIVE_BUFFER - (self.arrived - self.taken));
                let most = if random.once_in(3) { most } else { most.min(3000) };
                self.arrived += random.between(1, most);
            }
            Act::Takes => {
                let all = self.sent - self.read;
                self.read += if random.once_in(2) { all } else { random.between(1, all) };
            }
            Act::Ends => self.fin = true,
            Act::Resets => {
                self.reset(Some(if self.peer.vanishes { libc::ETIMEDOUT } else { libc::ECONNRESET }))
            }
        }
        if self.peer.stalls > 0 && random.once_in(self.peer.stalls) {
            self.stalled_until = now + random.between(1, 40) * 1_000_000;
        }
    }
}

/// A listening socket, and the clients that will come.
pub(super) struct Listening {
    pub(super) fd: RawFd,
    /// Clients that have not connected yet.
    pub(super) to_come: Vec<Peer>,
    /// Those that wait to be accepted.
    pub(super) backlog: Vec<Peer>,
}

/// A descriptor that stands for a connection, and its witness.
pub(super) fn stand_in() -> (OwnedFd, OwnedFd) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("a pair of sockets")
}

/// What a descriptor stands for; `None` where there is none of this number.
pub(super) fn inode(fd: RawFd) -> Option<u64> {
    // SAFETY: the number is only looked up, at once, and nothing is done with what it stands for.
    let fd = (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })?;
    rustix::fs::fstat(fd).ok().map(|stat| stat.st_ino)
}
