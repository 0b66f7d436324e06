//! Operations that the kernel has: when each is ready, and what it may answer.

use super::buffers::Brought;
use super::files::{is_of_files, ready_events};
use super::network::Found;
use super::sqe::{Sqe, code};
use super::state::State;
use crate::ring::user_data::COPIED;

/// `IORING_CQE_F_BUFFER`, `_F_MORE`, `_F_NOTIF`, `_F_BUF_MORE` and where the number of a buffer stands in a
/// CQE's flags.
const F_BUFFER: u32 = 1 << 0;
pub(super) const F_MORE: u32 = 1 << 1;
const F_NOTIF: u32 = 1 << 3;
const F_BUF_MORE: u32 = 1 << 4;
const BUFFER_AT: u32 = 16;
/// `IORING_RECVSEND_BUNDLE` in a receive's `ioprio`.
const BUNDLE: u16 = 1 << 4;
/// Buffers that a bundle has at most here. The kernel takes more; that changes nothing but the time.
const MOST_OF_BUNDLE: u64 = 8;
/// `IORING_SEND_ZC_REPORT_USAGE` in a send's `ioprio`.
const REPORT_USAGE: u16 = 1 << 3;
/// `IORING_ACCEPT_MULTISHOT` in an accept's `ioprio`.
const ACCEPT_MULTI: u16 = 1 << 0;

/// An operation that was submitted.
pub(super) struct Op {
    pub(super) sqe: Sqe,
    /// The operation that begins when this one has succeeded.
    pub(super) then: Option<Sqe>,
    /// The connection that it is on, by its place in the list.
    pub(super) conn: Option<usize>,
    /// The UDP socket that it is on.
    pub(super) udp: Option<usize>,
    /// The server that a connect is for.
    pub(super) server: Option<usize>,
    /// Where the bytes of a send lie.
    parts: Vec<(u64, u64)>,
    /// Bytes that have moved.
    done: u64,
    /// It was told to end.
    pub(super) cancelled: bool,
    /// It has looked for a buffer, or for bytes, once.
    tried: bool,
    /// The result of a zero-copy send was told, and with what offset of the connection its bytes end.
    lent_up_to: Option<u64>,
    /// What a worker's call has come to, which the ring is told later.
    pub(super) come_to: Option<i32>,
}

impl Op {
    pub(super) fn new(state: &State, sqe: Sqe, then: Option<Sqe>) -> Self {
        let parts = match sqe.opcode {
            code::SEND | code::SEND_ZC => vec![(sqe.addr, sqe.len.into())],
            code::SENDMSG => vectors(sqe.addr),
            _ => Vec::new(),
        };
        Self {
            sqe,
            then,
            conn: state.conn_of(sqe),
            udp: state.udp_at(sqe.fd),
            server: if sqe.opcode == code::CONNECT { state.server_of(sqe) } else { None },
            parts,
            done: 0,
            cancelled: false,
            tried: false,
            lent_up_to: None,
            come_to: None,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.parts.iter().map(|(_, len)| len).sum()
    }

    /// A receive that may bring several buffers at once.
    fn is_bundled(&self) -> bool {
        self.sqe.ioprio & BUNDLE != 0
    }

    /// After how many bytes a receive ends by itself.
    fn limit(&self) -> u64 {
        let limit = if self.is_bundled() { self.sqe.splice_from } else { 0 };
        if limit > 0 { limit as u64 } else { u64::MAX }
    }

    /// Whether a cancel ends it: not when all is over but the notification.
    pub(super) fn can_be_cancelled(&self) -> bool {
        self.lent_up_to.is_none()
    }

    /// Whether a worker does it, which a cancel may find in the midst of it.
    pub(super) fn is_a_workers(&self) -> bool {
        self.sqe.opcode == code::SPLICE || is_of_files(self.sqe.opcode)
    }

    /// The bytes of a send, `n` of them from `from` on.
    pub(super) fn bytes(&self, from: u64, n: u64) -> Vec<u8> {
        let (mut skip, mut bytes) = (from, Vec::new());
        for (at, len) in &self.parts {
            let gone = skip.min(*len);
            skip -= gone;
            let take = (len - gone).min(n - bytes.len() as u64);
            // SAFETY: whoever pushed the SQE keeps its bytes until the last CQE. If they do not, that is what
            // the play is to find: their destructors overwrite them, and the contents tell.
            let part = unsafe { std::slice::from_raw_parts((at + gone) as *const u8, take as usize) };
            bytes.extend_from_slice(part);
        }
        bytes
    }
}

/// The vectors of a `msghdr`.
fn vectors(message: u64) -> Vec<(u64, u64)> {
    // SAFETY: a sendmsg points to a message and that to its vectors, which stay until the last CQE.
    let vectors = unsafe {
        let message = &*(message as *const libc::msghdr);
        std::slice::from_raw_parts(message.msg_iov, message.msg_iovlen)
    };
    vectors.iter().map(|vector| (vector.iov_base as u64, vector.iov_len as u64)).collect()
}

/// Whether an operation goes on after a step of it.
#[derive(PartialEq, Eq)]
pub(super) enum Goes {
    On,
    Over,
}

impl State {
    /// Whether an operation can do something now.
    pub(super) fn is_ready(&self, op: &Op) -> bool {
        let conn = op.conn.map(|at| &self.conns[at]);
        if let Some(up_to) = op.lent_up_to {
            return conn.is_none_or(|conn| conn.gone || conn.read >= up_to);
        }
        if op.cancelled {
            return true;
        }
        match (op.sqe.opcode, conn) {
            (code::RECV, Some(conn)) => {
                conn.found() != Found::Nothing || !op.tried && self.buffers.len() == 0
            }
            (code::RECV, None) => true,
            (code::RECVMSG, _) => self.has_datagram(op) || !op.tried && self.buffers.len() == 0,
            (code::SEND | code::SENDMSG, None) => op.udp.is_some(),
            (code::SEND | code::SENDMSG | code::SEND_ZC, Some(conn)) => conn.is_writable(),
            (code::POLL_ADD, _) => self.polled(op) != 0,
            (code::CONNECT, _) => self.answers(op),
            (code::ACCEPT, None) => self.has_client(op),
            (code::CLOSE | code::NOP, _) => true,
            (code::SPLICE, _) => self.splice_is_ready(op.sqe),
            (opcode, _) => is_of_files(opcode),
        }
    }

    /// Whether a client waits to be accepted.
    fn has_client(&self, op: &Op) -> bool {
        self.listening.iter().any(|one| one.fd == op.sqe.fd && !one.backlog.is_empty())
    }

    /// The events that a poll waits for and that have come. The core's own poll of its doorbell finds
    /// nothing: nobody else runs.
    fn polled(&self, op: &Op) -> u32 {
        let mask = poll_mask(op.sqe);
        match (op.conn, op.udp) {
            (Some(at), _) => self.conns[at].events() & mask,
            (None, Some(at)) => self.udp[at].events() & mask,
            (None, None) if op.sqe.key().is_some() => ready_events(op.sqe.fd, mask),
            (None, None) => 0,
        }
    }

    /// Lets an operation that is ready go a step further.
    pub(super) fn go_on(&mut self, op: &mut Op) -> Goes {
        match op.sqe.opcode {
            code::RECV => self.receive(op),
            code::RECVMSG => self.receive_datagram(op),
            code::SEND | code::SENDMSG if op.udp.is_some() => self.send_datagram(op),
            code::SEND | code::SENDMSG | code::SEND_ZC => self.send(op),
            code::POLL_ADD => self.poll(op),
            code::CONNECT => self.connects(op),
            code::ACCEPT => self.accept(op),
            code::CLOSE => self.close(op),
            code::SPLICE => self.splice(op),
            opcode if is_of_files(opcode) => self.file(op),
            _ => self.end(op, 0, 0),
        }
    }

    /// Posts the last CQE of an operation.
    pub(super) fn end(&mut self, op: &Op, result: i32, flags: u32) -> Goes {
        if result >= 0 && op.sqe.skips_success() {
            return Goes::Over;
        }
        self.post(op.sqe.user_data, result, flags);
        Goes::Over
    }

    /// What a receive that was cancelled, or that finds no buffer, answers at once; and now and then any.
    pub(super) fn refuses(&mut self, op: &mut Op, there_is_some: bool) -> Option<i32> {
        let lacks = self.buffers.len() == 0;
        let races = op.cancelled && (there_is_some || lacks) && self.random.once_in(4);
        if op.cancelled && !races {
            return Some(libc::ECANCELED);
        }
        if self.random.once_in(120) {
            return Some(self.random.pick(&[libc::EINTR, libc::EAGAIN]));
        }
        op.tried = true;
        // The kernel looks for a buffer before it looks at the socket.
        lacks.then_some(libc::ENOBUFS)
    }

    fn receive(&mut self, op: &mut Op) -> Goes {
        // So a ring is asked what it knows.
        let Some(at) = op.conn else { return self.end(op, -libc::EBADF, 0) };
        let found = self.conns[at].found();
        if let Some(errno) = self.refuses(op, matches!(found, Found::Bytes(_))) {
            return self.end(op, -errno, 0);
        }
        match found {
            Found::Nothing => Goes::On,
            Found::Bytes(there) => self.bring(op, at, there),
            // Some kernels name a buffer at the end of a stream.
            Found::End if self.random.once_in(4) => {
                let named = if op.is_bundled() { self.buffers.name() } else { self.buffers.pick(0, |_| 0) };
                let named = named.expect("there are buffers");
                self.post_brought(op.sqe.user_data, named, 0);
                Goes::Over
            }
            Found::End => self.end(op, 0, 0),
            Found::Error => {
                let errno = self.conns[at].tell();
                self.end(op, -errno, 0)
            }
        }
    }

    /// A receive on a connection brings some of the bytes that are there.
    fn bring(&mut self, op: &mut Op, at: usize, there: u64) -> Goes {
        let most = if self.random.once_in(3) { self.random.between(1, there) } else { there };
        if op.is_bundled() && self.random.once_in(6) {
            self.buffers.look_in_vain(most);
            return Goes::On;
        }
        let most = most.min(op.limit() - op.done);
        let buffers = if op.is_bundled() { self.random.between(1, MOST_OF_BUNDLE) } else { 1 };
        let incoming = self.conns[at].incoming();
        let brought = self.buffers.bring(most, buffers as usize, incoming).expect("there are buffers");
        self.conns[at].taken += brought.bytes;
        op.done += brought.bytes;
        let is_last = op.done == op.limit() || self.random.once_in(24);
        self.post_brought(op.sqe.user_data, brought, if is_last { 0 } else { F_MORE });
        if is_last { Goes::Over } else { Goes::On }
    }

    /// Posts the CQE of a receive.
    pub(super) fn post_brought(&mut self, user_data: u64, brought: Brought, flags: u32) {
        let goes_on = if brought.goes_on { F_BUF_MORE } else { 0 };
        let flags = flags | F_BUFFER | goes_on | u32::from(brought.first) << BUFFER_AT;
        self.post_with(user_data, brought.bytes as i32, flags, brought.used_up);
    }

    fn send(&mut self, op: &mut Op) -> Goes {
        let at = op.conn.expect("a send is on a connection");
        if let Some(up_to) = op.lent_up_to {
            return self.notify(op, at, up_to);
        }
        let left = op.len() - op.done;
        let room = self.conns[at].room();
        if self.conns[at].refuses() && op.done == 0 && !op.cancelled {
            let errno = self.conns[at].refusal();
            return self.sent(op, at, -errno);
        }
        if op.sqe.opcode == code::SEND_ZC && op.done == 0 && !op.cancelled && self.random.once_in(40) {
            return self.refuse_to_lend(op, at);
        }
        let stops = op.cancelled || self.conns[at].refuses();
        if !stops || room > 0 && self.random.once_in(3) {
            if op.done == 0 && self.random.once_in(150) {
                return self.sent(op, at, -libc::EINTR);
            }
            let most = left.min(room);
            let n = if self.random.once_in(2) { most } else { self.random.between(1, most.max(1)).min(most) };
            let bytes = op.bytes(op.done, n);
            if let Err(wrong) = self.conns[at].send(&bytes) {
                self.fail(format!("{wrong} ({} of key {:?})", op.sqe.name(), op.sqe.key()));
            }
            op.done += n;
        }
        let done = op.done as i32;
        if op.done == op.len() || op.done > 0 && (stops || self.random.once_in(30)) {
            if op.done < op.len() && self.conns[at].refuses() {
                // It has asked for the error, and tells how much it had sent before.
                self.conns[at].refusal();
            }
            return self.sent(op, at, done);
        }
        if op.cancelled {
            return self.sent(op, at, -libc::ECANCELED);
        }
        Goes::On
    }

    /// No page can be locked for a send without a copy, or the socket's network knows of no such send: the
    /// latter is found when the notification has been made already.
    fn refuse_to_lend(&mut self, op: &mut Op, at: usize) -> Goes {
        if self.random.once_in(2) {
            return self.end(op, -libc::ENOMEM, 0);
        }
        self.sent(op, at, -libc::EOPNOTSUPP)
    }

    /// A send has its result; without a copy, the notification follows.
    fn sent(&mut self, op: &mut Op, at: usize, result: i32) -> Goes {
        if op.sqe.opcode != code::SEND_ZC {
            return self.end(op, result, 0);
        }
        self.post(op.sqe.user_data, result, F_MORE);
        op.lent_up_to = Some(self.conns[at].sent);
        Goes::On
    }

    /// The network lets go of what was sent without a copy, which must be there still.
    fn notify(&mut self, op: &Op, at: usize, up_to: u64) -> Goes {
        let bytes = op.bytes(0, op.done);
        if let Some(wrong) = self.conns[at].differs(up_to - op.done, &bytes) {
            let id = self.conns[at].id;
            self.fail(format!("what was lent on connection {id} changed at {wrong} before its notification"));
        }
        let copied = op.sqe.ioprio & REPORT_USAGE != 0 && self.copies;
        self.end(op, if copied { COPIED } else { 0 }, F_NOTIF)
    }

    fn poll(&mut self, op: &mut Op) -> Goes {
        let events = self.polled(op);
        if op.cancelled && (events == 0 || !self.random.once_in(4)) {
            return self.end(op, -libc::ECANCELED, 0);
        }
        let goes = self.end(op, events as i32, 0);
        if let Some(then) = op.then {
            let next = Op::new(self, then, None);
            self.running.push(next);
        }
        goes
    }

    fn accept(&mut self, op: &mut Op) -> Goes {
        if op.cancelled && !(self.has_client(op) && self.random.once_in(3)) {
            return self.end(op, -libc::ECANCELED, 0);
        }
        if self.random.once_in(40) {
            let errno = self.random.pick(&[libc::ECONNABORTED, libc::EMFILE, libc::EINTR]);
            return self.end(op, -errno, 0);
        }
        let listening = self.listening.iter_mut().find(|one| one.fd == op.sqe.fd);
        let peer = listening.and_then(|one| one.backlog.pop()).expect("an accept that is ready");
        let fd = std::os::fd::IntoRawFd::into_raw_fd(self.connect(peer));
        if op.sqe.ioprio & ACCEPT_MULTI != 0 && !self.random.once_in(10) {
            self.post(op.sqe.user_data, fd, F_MORE);
            return Goes::On;
        }
        self.end(op, fd, 0)
    }

    fn close(&mut self, op: &Op) -> Goes {
        // SAFETY: who asks for the close gave the descriptor up to it.
        drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(op.sqe.fd) });
        if let Some(at) = op.conn {
            self.conns[at].closed = !self.conns[at].is_open();
        }
        self.end(op, 0, 0)
    }
}

/// What a poll waits for; errors and hang-ups always come with it.
fn poll_mask(sqe: Sqe) -> u32 {
    sqe.op_flags | (libc::POLLERR | libc::POLLHUP) as u32
}
