//! The loop of a bare server: accept, receive, and the count of what the kernel still has in hand per
//! connection.

use super::args::Common;
use super::bufring::{Block, BufRing};
use super::ring::{Ring, named};
use super::socket::listen;
use io_uring::{opcode, squeue, types::Fd};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::Shutdown;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use slab::Slab;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

const ACCEPT: u8 = 0;
const SIGNAL: u8 = 1;
const RECV: u8 = 2;
/// The first operation number that a server may use for its own.
pub const FIRST_OP: u8 = 16;

/// A connection: its socket, what the kernel has in hand for it, and the server's own state.
pub struct Conn<S> {
    fd: OwnedFd,
    in_flight: u32,
    receiving: bool,
    starved: bool,
    closing: bool,
    /// The server's own.
    pub state: S,
}

impl<S> Conn<S> {
    /// The socket.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether [`Core::close`] was called.
    pub fn closing(&self) -> bool {
        self.closing
    }

    /// Whether the kernel has nothing in hand for it.
    pub fn idle(&self) -> bool {
        self.in_flight == 0
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A client connected.
    Accepted(OwnedFd),
    /// Bytes came, in a block that must be given back.
    Data(usize, Block, usize),
    /// The peer will send no more.
    Eof(usize),
    /// Receiving failed.
    Failed(usize),
    /// An operation of the server's own has completed.
    Done {
        /// The connection it was pushed for.
        conn: usize,
        /// Its number.
        op: u8,
        /// A word of the server's own that it was pushed with.
        word: u16,
        /// Its result, or the negated errno.
        res: i32,
        /// Another completion of the same operation will follow.
        more: bool,
        /// This one says that the memory of a zero-copy send is free again.
        notif: bool,
    },
    /// SIGTERM or SIGINT came.
    Stop,
}

/// A ring with its buffer ring, a listener and connections whose state is `S`.
pub struct Core<S> {
    ring: Ring,
    pub(super) bufs: BufRing,
    listener: OwnedFd,
    signals: OwnedFd,
    conns: Slab<Conn<S>>,
    starved: VecDeque<usize>,
}

fn key(op: u8, word: u16, conn: usize) -> u64 {
    u64::from(op) << 56 | u64::from(word) << 40 | conn as u64
}

impl<S> Core<S> {
    /// Pins the thread, makes the ring, blocks SIGTERM and SIGINT, listens, and returns the address in force.
    ///
    /// # Errors
    /// Each of these may be refused; the text says which.
    pub fn new(common: &Common) -> io::Result<(Core<S>, SocketAddr)> {
        crate::pin::pin_current_thread(common.cpu)?;
        let most = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
        let ring = Ring::new(4096, common.cpu, common.workers)?;
        if !common.buffers.is_power_of_two() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "--buffers must be a power of two"));
        }
        let bufs = BufRing::new(&ring, common.buffers, common.buffer_size as usize)?;
        let (listener, address) = listen(common.listen)?;
        let signals = stop_signals()?;
        let mut core = Core { ring, bufs, listener, signals, conns: Slab::new(), starved: VecDeque::new() };
        let poll = opcode::PollAdd::new(Fd(core.signals.as_raw_fd()), libc::POLLIN as u32).build();
        core.push_all(&[poll.user_data(key(SIGNAL, 0, 0))])?;
        core.accept()?;
        Ok((core, address))
    }

    /// The ring, for registrations.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The next event; without one, waits for it if `block`, else `None`.
    ///
    /// # Errors
    /// The ring failed, or accepting did for a reason that does not pass (no descriptor is left).
    pub fn next(&mut self, block: bool) -> io::Result<Option<Event>> {
        let mut entered = false;
        loop {
            let Some(cqe) = self.ring.pop() else {
                if entered && !block {
                    return Ok(None);
                }
                self.ring.turn(block)?;
                entered = true;
                continue;
            };
            let conn = (cqe.user_data & 0xff_ffff_ffff) as usize;
            match (cqe.user_data >> 56) as u8 {
                ACCEPT => {
                    if !cqe.more() {
                        self.accept()?;
                    }
                    match cqe.res {
                        fd if fd >= 0 => {
                            // SAFETY: the completion of an accept hands over a descriptor that nobody else
                            // owns.
                            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                            return Ok(Some(Event::Accepted(fd)));
                        }
                        // The client went away while it was queued.
                        e if e == -libc::ECONNABORTED || e == -libc::EPROTO => {}
                        e => return Err(named("accept", io::Error::from_raw_os_error(-e))),
                    }
                }
                SIGNAL => return Ok(Some(Event::Stop)),
                RECV => {
                    if let Some(event) = self.received(conn, cqe)? {
                        return Ok(Some(event));
                    }
                }
                op => {
                    let more = cqe.more();
                    if let Some(c) = self.conns.get_mut(conn)
                        && !more
                    {
                        c.in_flight -= 1;
                    }
                    let word = (cqe.user_data >> 40) as u16;
                    return Ok(Some(Event::Done { conn, op, word, res: cqe.res, more, notif: cqe.notif() }));
                }
            }
        }
    }

    fn received(&mut self, conn: usize, cqe: super::ring::Cqe) -> io::Result<Option<Event>> {
        let block = self.bufs.taken(cqe.flags);
        let c = &mut self.conns[conn];
        if !cqe.more() {
            c.in_flight -= 1;
            c.receiving = false;
        }
        let closing = c.closing;
        match (cqe.res, block) {
            (n, Some(block)) if n > 0 => {
                if !closing {
                    self.receive(conn)?;
                }
                Ok(Some(Event::Data(conn, block, n as usize)))
            }
            (e, None) if e == -libc::ENOBUFS && !closing => {
                if self.bufs.has_free() {
                    // The blocks came back between the kernel's check and ours.
                    self.receive(conn)?;
                } else {
                    self.conns[conn].starved = true;
                    self.starved.push_back(conn);
                }
                Ok(None)
            }
            (n, block) => {
                if let Some(block) = block {
                    self.give_back(block)?;
                }
                Ok(Some(if n == 0 { Event::Eof(conn) } else { Event::Failed(conn) }))
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let accept = opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd())).flags(flags).build();
        self.push_all(&[accept.user_data(key(ACCEPT, 0, 0))])
    }

    /// Adds a connection and returns its number. Numbers are used again only after it has been removed.
    pub fn insert(&mut self, fd: OwnedFd, state: S) -> usize {
        self.conns.insert(Conn { fd, in_flight: 0, receiving: false, starved: false, closing: false, state })
    }

    /// The connection `conn`.
    ///
    /// # Panics
    /// It was removed.
    pub fn conn(&mut self, conn: usize) -> &mut Conn<S> {
        &mut self.conns[conn]
    }

    /// Whether `conn` is there and not closing.
    pub fn open(&self, conn: usize) -> bool {
        self.conns.get(conn).is_some_and(|c| !c.closing)
    }

    /// Receives into blocks from now on, if it does not yet.
    ///
    /// # Errors
    /// The ring failed.
    pub fn receive(&mut self, conn: usize) -> io::Result<()> {
        let c = &mut self.conns[conn];
        if c.receiving {
            return Ok(());
        }
        c.receiving = true;
        c.starved = false;
        let entry = opcode::RecvMulti::new(Fd(c.fd.as_raw_fd()), BufRing::GROUP).build();
        c.in_flight += 1;
        self.push_all(&[entry.user_data(key(RECV, 0, conn))])
    }

    /// The bytes of a block.
    pub fn bytes<'a>(&'a self, block: &'a Block, len: usize) -> &'a [u8] {
        self.bufs.bytes(block, len)
    }

    /// Gives a block back and lets all connections that were refused one receive again.
    ///
    /// All of them: the kernel takes a block before it checks whether the socket has bytes, so ENOBUFS may
    /// have come to one that has none. Woken alone, it would wait without taking the block, and nobody would
    /// wake the others (seen: two blocks, 32 connections, stuck).
    ///
    /// # Errors
    /// The ring failed.
    pub fn give_back(&mut self, block: Block) -> io::Result<()> {
        self.bufs.give(block);
        while let Some(conn) = self.starved.pop_front() {
            if self.conns.get(conn).is_some_and(|c| c.starved && !c.closing) {
                self.receive(conn)?;
            }
        }
        Ok(())
    }

    /// Queues operations for `conn`, each with its number, so that one enter submits them all.
    ///
    /// # Safety
    /// All memory that the entries name must be valid as long as the process lives.
    pub(super) unsafe fn push_for<const N: usize>(
        &mut self,
        conn: usize,
        word: u16,
        entries: [(u8, squeue::Entry); N],
    ) -> io::Result<()> {
        self.conns[conn].in_flight += N as u32;
        self.push_all(&entries.map(|(op, entry)| entry.user_data(key(op, word, conn))))
    }

    fn push_all(&mut self, entries: &[squeue::Entry]) -> io::Result<()> {
        // SAFETY: receives name the buffer ring, which is never unmapped; the operations of `push_for` keep
        // its promise; all others name no memory.
        unsafe { self.ring.push(entries) }
    }

    /// Marks `conn` as closing and ends what the kernel has in hand for it. The socket is closed when it is
    /// removed.
    pub fn close(&mut self, conn: usize) {
        let c = &mut self.conns[conn];
        c.closing = true;
        if c.in_flight > 0 {
            self.shutdown(conn, Shutdown::Both);
        }
    }

    /// Ends one or both directions of a socket.
    pub fn shutdown(&mut self, conn: usize, how: Shutdown) {
        match rustix::net::shutdown(&self.conns[conn].fd, how) {
            // A socket that is not connected any more has ended its operations already.
            Ok(()) | Err(Errno::NOTCONN) => {}
            Err(e) => eprintln!("shutdown of connection {conn}: {e}"),
        }
    }

    /// Closes the socket and returns the state, if `conn` is closing and the kernel has nothing in hand for
    /// it.
    pub fn remove_if_done(&mut self, conn: usize) -> Option<S> {
        let c = self.conns.get(conn)?;
        (c.closing && c.in_flight == 0).then(|| self.conns.remove(conn).state)
    }
}

/// A descriptor that becomes readable when SIGTERM or SIGINT comes; both are blocked from here on.
fn stop_signals() -> io::Result<OwnedFd> {
    // SAFETY: sigset_t is plain bits, and sigemptyset puts it into its defined state before it is used.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is a live local; the process has one thread, so blocking here blocks for all.
    let fd = unsafe {
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::sigaddset(&mut set, libc::SIGINT);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if fd < 0 {
        return Err(named("signalfd", io::Error::last_os_error()));
    }
    // SAFETY: signalfd returned a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
