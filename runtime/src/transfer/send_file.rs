//! Sending a range of a file to a socket.

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use super::Road;
use super::pipe::Pipe;
use crate::core::Core;
use crate::core::ask::ask;
use crate::core::pipe_pool::is_lack;
use crate::fs::{File, cached};
use crate::limits::{OFFSET, refuse_above};
use crate::net::op::send::Send;
use crate::net::socket::Socket;
use crate::net::{Connection, Family, SocketFd, Writes};
use crate::op::poll::Ready;
use crate::op::read::Read;
use crate::{Error, task};

/// A step of splice(2) on the core: 15 pages. A segment holds 64 KiB less its headers, so 16 pages leave as
/// one full segment and one of 53 bytes, each at the cost of a segment. BENCHMARKS.md, "Sixty-four is one
/// page too many", has the figures.
const INLINE_STEP: u64 = 60 << 10;
/// The last bytes go in one step when they fit a pipe of the usual size: 64 KiB in two steps cost 1.25 times
/// as much as in one.
const LAST_STEP: u64 = 64 << 10;
/// The stretch that the page cache is asked about at once.
const WINDOW: u64 = 1 << 20;

/// The transfer stopped, after the socket had taken this many bytes.
#[derive(Debug)]
#[non_exhaustive]
pub struct SendFileError {
    /// Bytes that the socket took. The peer got no more than these.
    pub sent: u64,
    /// The reason.
    pub error: Error,
}

impl fmt::Display for SendFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (after {} bytes)", self.error, self.sent)
    }
}

impl std::error::Error for SendFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

impl From<SendFileError> for Error {
    fn from(e: SendFileError) -> Self {
        e.error
    }
}

/// Sends bytes `range` of `file` to `stream` without copying them through user memory (`splice(2)`, Linux
/// 2.6.17; as SQEs 5.7). Returns how many bytes were sent, which is all of them.
///
/// The pages are the page cache's own: a change of the file before the peer has read may change what the peer
/// reads.
///
/// # Errors
/// [`SendFileError`] has the number of bytes that were sent, and the system's reason, or `UnexpectedEof` when
/// the file was shorter; [`ErrorKind::Input`](crate::ErrorKind::Input) for a range that goes beyond 2^63 - 1,
/// of which nothing was sent.
///
/// # Cancellation
/// An unknown part has been sent, so the stream refuses further sends
/// ([`ErrorKind::WritePoisoned`](crate::ErrorKind::WritePoisoned)), and a pipe that still holds bytes is
/// closed.
pub async fn send_file<F: Family, S: Writes>(
    stream: &Connection<F, S>,
    file: &File,
    range: Range<u64>,
    road: Road,
) -> Result<u64, SendFileError> {
    send(stream.socket(), file, range, road).await
}

/// Sends, for all families and sides of connections.
async fn send(socket: &Rc<Socket>, file: &File, range: Range<u64>, road: Road) -> Result<u64, SendFileError> {
    let failed = |sent| move |error| SendFileError { sent, error };
    let stopped = |e| {
        socket.has_failed(&e);
        Error::io("sending a file failed", e)
    };
    refuse_above(OFFSET, "a range of a file to an offset", range.start.max(range.end)).map_err(failed(0))?;
    let permit = socket.write_permit().await.map_err(failed(0))?;
    let pipe = match Pipe::take() {
        Ok(pipe) => pipe,
        Err(e) if is_lack(&e) => {
            let mut sent = 0;
            let result = copy(socket, file, range, &mut sent).await;
            permit.done();
            return result.map(|()| sent).map_err(|e| failed(sent)(stopped(e)));
        }
        Err(e) => {
            permit.done();
            return Err(failed(0)(Error::io("cannot make a pipe for the transfer", e)));
        }
    };
    let mut transfer = Transfer { socket, file, pipe, next: range.start, end: range.end, sent: 0 };
    let result = match road {
        Road::Inline => transfer.inline().await,
        Road::Ring => transfer.ring().await,
    };
    permit.done();
    result.map(|()| transfer.sent).map_err(|e| failed(transfer.sent)(stopped(e)))
}

/// Reads and sends, where no pipe can be had. It is slower, and needs no descriptor.
async fn copy(socket: &Rc<Socket>, file: &File, range: Range<u64>, sent: &mut u64) -> io::Result<()> {
    let mut at = range.start;
    let mut buf = Vec::new();
    while at < range.end {
        buf.clear();
        buf.reserve_exact((range.end - at).min(INLINE_STEP) as usize);
        let left = (range.end - at) as usize;
        let (read, back) = ask(Read { file: Rc::clone(file.shared_fd()), buf, offset: at }).await;
        buf = back;
        if read? == 0 {
            return Err(short());
        }
        buf.truncate(left);
        at += buf.len() as u64;
        let mut from = 0;
        while from < buf.len() {
            let (result, back) = ask(Send { socket: Rc::clone(socket), buf, from, flags: 0 }).await;
            buf = back;
            let n = match result {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            from += n;
            *sent += n as u64;
            Core::with(|core| core.shared.counters.file_bytes_copied.add(n as u64));
        }
    }
    Ok(())
}

fn short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was")
}

struct Transfer<'a> {
    socket: &'a Rc<Socket>,
    file: &'a File,
    pipe: Rc<Pipe>,
    /// The offset of the next byte to go into the pipe.
    next: u64,
    end: u64,
    sent: u64,
}

/// An open file that an operation keeps open.
struct FileFd(Rc<OwnedFd>);

impl AsFd for FileFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Transfer<'_> {
    async fn inline(&mut self) -> io::Result<()> {
        // Up to this offset the page cache is known to have the file.
        let mut warm = self.next;
        let mut cold = 0;
        while self.next < self.end || self.pipe.held() > 0 {
            if self.pipe.held() == 0 {
                if self.next >= warm {
                    let window = WINDOW.min(self.end - self.next);
                    let known = cached(self.file.as_fd(), self.next, window, INLINE_STEP);
                    if known == 0 {
                        cold += self.fill_by_ring(window as usize).await?;
                        continue;
                    }
                    warm = self.next + known;
                }
                let known = warm - self.next;
                let step =
                    if known <= LAST_STEP && warm == self.end { known } else { INLINE_STEP.min(known) };
                self.fill_now(step as usize)?;
            }
            match self.pipe.empty_now(self.socket.fd(), self.next < self.end) {
                Ok(n) => {
                    self.went(n);
                    Core::with(|core| {
                        let counters = &core.shared.counters;
                        let was_cold = n.min(cold);
                        cold -= was_cold;
                        counters.file_bytes_cold.add(was_cold as u64);
                        counters.file_bytes_inline.add((n - was_cold) as u64);
                    });
                    task::consume_budget().await;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.socket.ready(Ready::Write).await?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    async fn ring(&mut self) -> io::Result<()> {
        while self.next < self.end || self.pipe.held() > 0 {
            if self.pipe.held() == 0 {
                let len = (self.end - self.next).min(self.pipe.size() as u64) as usize;
                self.fill_by_ring(len).await?;
            }
            let more = self.next < self.end;
            match self.pipe.empty(SocketFd(Rc::clone(self.socket)), more).await {
                Ok(n) => {
                    self.went(n);
                    Core::with(|core| core.shared.counters.file_bytes_ring.add(n as u64));
                }
                // The socket was writable and is not any more, or a worker was interrupted. It polls again.
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    async fn fill_by_ring(&mut self, len: usize) -> io::Result<usize> {
        let len = len.min(self.pipe.size());
        loop {
            match self.pipe.fill(FileFd(Rc::clone(self.file.shared_fd())), Some(self.next), len).await {
                Ok(n) => return self.came(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn fill_now(&mut self, len: usize) -> io::Result<usize> {
        loop {
            let mut offset = self.next;
            match self.pipe.fill_now(self.file.as_fd(), Some(&mut offset), len.min(self.pipe.size())) {
                Ok(n) => return self.came(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Counts `n` bytes of the file that came into the pipe.
    fn came(&mut self, n: usize) -> io::Result<usize> {
        if n == 0 {
            return Err(short());
        }
        self.next += n as u64;
        Ok(n)
    }

    fn went(&mut self, n: usize) {
        self.sent += n as u64;
    }
}
