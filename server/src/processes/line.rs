//! The line between the first process and a member: frames both ways, and sockets downwards.
//!
//! A frame is its kind (one byte), the number of sockets that come with it (two bytes), the length of what
//! follows (four bytes, both little-endian), and so many bytes. Sockets go beside its first bytes
//! (`SCM_RIGHTS`, `unix(7)`), as many as the kernel takes at a time. Neither end waits for the other: bytes
//! that the socket does not take are kept here, up to a bound.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Sockets that go beside one byte, at most; the kernel takes 253 (SCM_MAX_FD).
const SOCKETS_AT_ONCE: usize = 128;
/// Bytes of a frame's head.
const HEAD: usize = 7;
/// What a frame may hold: a file of configuration, the figures of a process.
const LONGEST: usize = 64 << 20;
/// The most bytes that are kept for an end that takes none, beside the frame that is being sent.
const WAITING: usize = 256 << 10;

/// One message.
#[derive(Debug)]
pub(crate) struct Frame {
    /// What it is.
    pub(crate) kind: u8,
    /// What it says.
    pub(crate) payload: Vec<u8>,
    /// What comes with it.
    pub(crate) sockets: Vec<OwnedFd>,
}

/// One end of a line.
#[derive(Debug)]
pub(crate) struct Line {
    socket: UnixStream,
    /// Bytes that are no whole frame yet, and sockets that came beside them.
    came: Vec<u8>,
    came_sockets: VecDeque<OwnedFd>,
    /// What the socket has not taken yet: bytes, and the sockets that go beside the first of them.
    leaving: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    waiting: usize,
}

/// What came.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A whole frame.
    Frame(Frame),
    /// Nothing more just now.
    Nothing,
    /// The other end has gone.
    Gone,
}

impl Line {
    /// Over a stream that does not block.
    pub(crate) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Line {
            socket,
            came: Vec::new(),
            came_sockets: VecDeque::new(),
            leaving: VecDeque::new(),
            waiting: 0,
        })
    }

    /// Sends a frame, or as much of it as the socket takes: [`flush`](Self::flush) sends the rest.
    ///
    /// # Errors
    /// `WouldBlock` when the other end has taken nothing for long: the frame is not sent. Else what
    /// `sendmsg(2)` says: it has gone.
    pub(crate) fn send(&mut self, kind: u8, payload: &[u8], mut sockets: Vec<OwnedFd>) -> io::Result<()> {
        if self.waiting > WAITING {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let too_long = || io::Error::from(io::ErrorKind::InvalidInput);
        let count = u16::try_from(sockets.len()).map_err(|_| too_long())?;
        let len =
            u32::try_from(payload.len()).ok().filter(|_| payload.len() <= LONGEST).ok_or_else(too_long)?;
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(payload);
        self.waiting += bytes.len();
        // A byte for each lot of sockets, and the rest with the last.
        while sockets.len() > SOCKETS_AT_ONCE {
            let later = sockets.split_off(SOCKETS_AT_ONCE);
            let rest = bytes.split_off(1);
            self.leaving
                .push_back((std::mem::replace(&mut bytes, rest), std::mem::replace(&mut sockets, later)));
        }
        self.leaving.push_back((bytes, sockets));
        self.flush()
    }

    /// Sends what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// What `sendmsg(2)` says: the other end has gone.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while let Some((bytes, sockets)) = self.leaving.front_mut() {
            let borrowed: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_AT_ONCE))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !borrowed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            match sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    self.waiting -= sent;
                    sockets.clear();
                    bytes.drain(..sent);
                    if bytes.is_empty() {
                        self.leaving.pop_front();
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Whether something waits for the socket to take it.
    pub(crate) fn waits(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// The next frame. Does not block.
    ///
    /// # Errors
    /// What `recvmsg(2)` says; a frame that nobody of this program sends.
    pub(crate) fn hear(&mut self) -> io::Result<Heard> {
        loop {
            if let Some(frame) = self.whole()? {
                return Ok(Heard::Frame(frame));
            }
            let mut bytes = [0; 16 << 10];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_AT_ONCE))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received =
                match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
                    Ok(received) => received.bytes,
                    Err(rustix::io::Errno::AGAIN) => return Ok(Heard::Nothing),
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(rustix::io::Errno::CONNRESET) => 0,
                    Err(errno) => return Err(errno.into()),
                };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(sockets) = message {
                    self.came_sockets.extend(sockets);
                }
            }
            if received == 0 {
                return Ok(Heard::Gone);
            }
            self.came.extend_from_slice(&bytes[..received]);
        }
    }

    /// Takes a frame that is there whole.
    fn whole(&mut self) -> io::Result<Option<Frame>> {
        let Some(&[kind, c0, c1, l0, l1, l2, l3]) = self.came.first_chunk::<HEAD>() else { return Ok(None) };
        let sockets = usize::from(u16::from_le_bytes([c0, c1]));
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if len > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame that is too long"));
        }
        if self.came.len() < HEAD + len || self.came_sockets.len() < sockets {
            return Ok(None);
        }
        let payload = self.came[HEAD..HEAD + len].to_vec();
        self.came.drain(..HEAD + len);
        Ok(Some(Frame { kind, payload, sockets: self.came_sockets.drain(..sockets).collect() }))
    }

    /// The stream beneath it.
    pub(super) fn socket(&self) -> &UnixStream {
        &self.socket
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::event::{PollFd, PollFlags};

    use super::*;

    fn pair() -> (Line, Line) {
        let (a, b) = UnixStream::pair().unwrap();
        (Line::new(a).unwrap(), Line::new(b).unwrap())
    }

    fn frame(line: &mut Line) -> Option<Frame> {
        match line.hear().unwrap() {
            Heard::Frame(frame) => Some(frame),
            Heard::Nothing | Heard::Gone => None,
        }
    }

    #[test]
    fn frames_arrive_whole_in_order_with_their_sockets() {
        let (mut a, mut b) = pair();
        let sockets = |count| (0..count).map(|_| File::open("/dev/null").unwrap().into()).collect();
        let sent: [(u8, Vec<u8>, usize); 5] = [
            (1, vec![], 0),
            (2, vec![7; 100_000], 3),
            (3, vec![8], 0),
            (4, vec![9; 3], 300),
            (5, vec![1; 300_000], 1),
        ];
        for (kind, payload, count) in &sent {
            a.send(*kind, payload, sockets(*count)).unwrap();
        }
        for (kind, payload, count) in &sent {
            let frame = loop {
                a.flush().unwrap();
                if let Some(frame) = frame(&mut b) {
                    break frame;
                }
            };
            assert_eq!((frame.kind, &frame.payload, frame.sockets.len()), (*kind, payload, *count));
        }
        assert!(!a.waits());
        b.send(9, b"up", Vec::new()).unwrap();
        assert_eq!(frame(&mut a).unwrap().payload, b"up");
        drop(b);
        // A process that another test starts just now may hold the other end until its execve(2).
        while !matches!(a.hear().unwrap(), Heard::Gone) {
            rustix::event::poll(&mut [PollFd::new(&a, PollFlags::IN)], None).unwrap();
        }
        assert!(a.send(1, &[0; 10], Vec::new()).is_err());
    }

    #[test]
    fn an_end_that_takes_nothing_holds_nobody_up() {
        let (mut a, _b) = pair();
        let refused = (0..100).find_map(|_| a.send(1, &[0; 64 << 10], Vec::new()).err());
        assert_eq!(refused.expect("a bound").kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let (a, mut b) = pair();
        io::Write::write_all(&mut a.socket(), &[1, 0, 0, 255, 255, 255, 255]).unwrap();
        assert_eq!(b.hear().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
