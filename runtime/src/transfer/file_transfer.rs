//! A range of a file on its way to a socket, step by step.

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use super::cold::Cold;
use super::pipe::Pipe;
use super::road::Road;
use crate::core::Core;
use crate::core::ask::ask;
use crate::core::pipe_pool::is_lack;
use crate::error::os;
use crate::fs::{File, cached};
use crate::net::SocketFd;
use crate::net::op::send::Send;
use crate::net::socket::Socket;
use crate::net::writing::{WritePermit, send_now};
use crate::op::poll::Ready;
use crate::op::read::Read;
use crate::{Error, task};

/// A step of sendfile(2) on the core: 15 pages. A segment holds 64 KiB less its headers, so 16 pages leave as
/// one full segment and one of 53 bytes, each at the cost of a segment. BENCHMARKS.md, "Sixty-four is one
/// page too many", has the figures.
const INLINE_STEP: u64 = 60 << 10;
/// The last bytes go in one step when they fit a pipe of the usual size: 64 KiB in two steps cost 1.25 times
/// as much as in one.
const LAST_STEP: u64 = 64 << 10;
/// The stretch that the page cache is asked about at once.
const WINDOW: u64 = 1 << 20;
/// What the ring reads from the disk at once. The core sends it in one call, in some 80 us over loopback,
/// and then has other work: what it does at once others wait for.
const COLD_STEP: u64 = 256 << 10;

/// The transfer stopped, after the socket had taken this many bytes.
#[derive(Debug)]
#[non_exhaustive]
pub struct SendFileError {
    /// Bytes of the file that the socket took. The peer got no more than these.
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

/// What is known of the page cache before bytes of a file are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residency {
    /// Nothing: the kernel is asked (`cachestat(2)`, Linux 6.5, and `preadv2(2)`).
    Unknown,
    /// It had all of the range a moment ago. What it has dropped since is read while the core waits.
    Seen,
}

/// A transfer that has the permit to write.
pub(super) struct FileTransfer<'a> {
    socket: &'a Rc<Socket>,
    file: &'a File,
    permit: WritePermit,
    /// What bytes pass through that the ring reads. Those in the page cache need none.
    pipe: Option<Rc<Pipe>>,
    /// The offset of the next byte to leave the file.
    next: u64,
    end: u64,
    /// The page cache is known to have the file up to this offset.
    warm: u64,
    /// Where the file is read from the disk.
    region: &'a mut Cold,
    /// So many bytes of the pipe were not in the page cache.
    cold: usize,
    sent: u64,
}

/// An open file that an operation keeps open.
struct FileFd(Rc<OwnedFd>);

impl AsFd for FileFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<'a> FileTransfer<'a> {
    /// Waits for the permit to write.
    pub(super) async fn new(
        socket: &'a Rc<Socket>,
        file: &'a File,
        range: Range<u64>,
        region: &'a mut Cold,
    ) -> Result<Self, SendFileError> {
        let permit = socket.write_permit().await.map_err(|error| SendFileError { sent: 0, error })?;
        let Range { start, end } = range;
        Ok(Self { socket, file, permit, pipe: None, next: start, end, warm: start, region, cold: 0, sent: 0 })
    }

    /// Sends the head and behind it the range, and ends.
    pub(super) async fn send(mut self, head: &[u8], road: Road) -> Result<u64, SendFileError> {
        let mut result = self.head(head).await;
        if result.is_ok() {
            result = match road {
                Road::Inline => self.inline().await,
                Road::Ring => self.ring().await,
            };
        }
        self.end(result)
    }

    /// Ends it, because it is known how much was sent.
    pub(super) fn end(self, result: io::Result<()>) -> Result<u64, SendFileError> {
        self.permit.done();
        match result {
            Ok(()) => Ok(self.sent),
            Err(e) => {
                self.socket.has_failed(&e);
                Err(SendFileError { sent: self.sent, error: Error::io("sending a file failed", e) })
            }
        }
    }

    /// Whether all of it is in the page cache.
    pub(super) fn is_cached(&mut self, residency: Residency) -> bool {
        let len = self.end.saturating_sub(self.next);
        self.warm = match residency {
            Residency::Seen => self.end,
            Residency::Unknown => self.next + cached(self.file.as_fd(), self.next, len, len),
        };
        self.warm == self.end || len == 0
    }

    /// Sends the head, held back by MSG_MORE so that it leaves with the first bytes of the file.
    async fn head(&mut self, head: &[u8]) -> io::Result<()> {
        let flags = if self.next < self.end { libc::MSG_MORE } else { 0 };
        let mut from = 0;
        while from < head.len() {
            match send_now(self.socket, &head[from..], flags)? {
                0 => self.socket.ready(Ready::Write).await?,
                n => from += n,
            }
        }
        Ok(())
    }

    async fn inline(&mut self) -> io::Result<()> {
        loop {
            if self.held() > 0 {
                self.empty_now().await?;
            } else if self.next >= self.end {
                return Ok(());
            } else if self.is_warm() {
                self.send_now().await?;
            } else {
                let step = COLD_STEP.min(self.end - self.next);
                match self.fill_by_ring(step as usize).await? {
                    Some(n) => self.cold = n,
                    None => self.copy(step).await?,
                }
            }
        }
    }

    /// Whether the core sends the next byte. If not, the ring reads it.
    fn is_warm(&mut self) -> bool {
        if self.next < self.warm {
            return true;
        }
        if self.region.has(self.file, self.next) {
            return false;
        }
        let is_warm = self.find_warm();
        if !is_warm {
            self.region.begin(self.next);
        }
        is_warm
    }

    /// Finds how far the page cache has the file. False: it does not have the next byte.
    fn find_warm(&mut self) -> bool {
        let window = WINDOW.min(self.end - self.next);
        let known = cached(self.file.as_fd(), self.next, window, INLINE_STEP);
        self.warm = self.next + known;
        known > 0
    }

    /// Has the kernel send from the page cache. Waits, by the ring, while the socket takes nothing.
    async fn send_now(&mut self) -> io::Result<()> {
        let known = self.warm - self.next;
        let is_last = known <= LAST_STEP && self.warm == self.end;
        let step = if is_last { known } else { INLINE_STEP.min(known) };
        match send_file_now(self.socket.fd(), self.file.as_fd(), self.next, step as usize) {
            Ok(n) => {
                self.came(n)?;
                self.sent += n as u64;
                Core::with(|core| core.shared.counters.file_bytes_inline.add(n as u64));
                task::consume_budget_for(n).await;
                Ok(())
            }
            Err(e) => self.wait_or_fail(e).await,
        }
    }

    /// Has the kernel send what the pipe holds.
    async fn empty_now(&mut self) -> io::Result<()> {
        let Some(pipe) = &self.pipe else { return Ok(()) };
        match pipe.empty_now(self.socket.fd(), self.next < self.end) {
            Ok(n) => {
                self.sent += n as u64;
                let was_cold = n.min(self.cold);
                self.cold -= was_cold;
                Core::with(|core| {
                    let counters = &core.shared.counters;
                    counters.file_bytes_cold.add(was_cold as u64);
                    counters.file_bytes_inline.add((n - was_cold) as u64);
                });
                task::consume_budget_for(n).await;
                Ok(())
            }
            Err(e) => self.wait_or_fail(e).await,
        }
    }

    /// Waits until the socket takes bytes again if that is what a call on the core failed by.
    async fn wait_or_fail(&self, e: io::Error) -> io::Result<()> {
        match e.kind() {
            io::ErrorKind::WouldBlock => self.socket.ready(Ready::Write).await,
            io::ErrorKind::Interrupted => Ok(()),
            _ => Err(e),
        }
    }

    async fn ring(&mut self) -> io::Result<()> {
        while self.next < self.end || self.held() > 0 {
            if self.held() == 0 {
                let len = self.end - self.next;
                if self.fill_by_ring(len as usize).await?.is_none() {
                    self.copy(len).await?;
                    continue;
                }
            }
            let Some(pipe) = &self.pipe else { continue };
            match pipe.empty(SocketFd(Rc::clone(self.socket)), self.next < self.end).await {
                Ok(n) => {
                    self.sent += n as u64;
                    Core::with(|core| core.shared.counters.file_bytes_ring.add(n as u64));
                }
                // The socket was writable and is not any more, or a worker was interrupted. It polls again.
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// How many bytes are in the pipe.
    fn held(&self) -> usize {
        self.pipe.as_ref().map_or(0, |pipe| pipe.held())
    }

    /// Has the ring read into the pipe, which is taken for it. `None` if no pipe can be had.
    async fn fill_by_ring(&mut self, len: usize) -> io::Result<Option<usize>> {
        let pipe = match self.pipe.take().map_or_else(Pipe::take, Ok) {
            Ok(pipe) => pipe,
            Err(e) if is_lack(&e) => return Ok(None),
            Err(e) => return Err(e),
        };
        let pipe = self.pipe.insert(pipe);
        let len = len.min(pipe.size());
        loop {
            match pipe.fill(FileFd(Rc::clone(self.file.shared_fd())), Some(self.next), len).await {
                Ok(n) => return self.came(n).map(Some),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Counts `n` bytes that left the file.
    fn came(&mut self, n: usize) -> io::Result<usize> {
        if n == 0 {
            return Err(short());
        }
        self.next += n as u64;
        Ok(n)
    }

    /// Reads and sends the next `len` bytes, where no pipe can be had. It is slower, and needs no descriptor.
    async fn copy(&mut self, len: u64) -> io::Result<()> {
        let end = self.next + len;
        let mut buf = Vec::new();
        while self.next < end {
            buf.clear();
            let left = end - self.next;
            buf.reserve_exact(left.min(INLINE_STEP) as usize);
            let (read, back) =
                ask(Read { file: Rc::clone(self.file.shared_fd()), buf, offset: self.next }).await;
            buf = back;
            let read = match read {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            self.came(read)?;
            buf.truncate(left as usize);
            self.next = self.next.min(end);
            buf = self.send_copied(buf).await?;
        }
        Ok(())
    }

    async fn send_copied(&mut self, mut buf: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut from = 0;
        while from < buf.len() {
            let (result, back) = ask(Send { socket: Rc::clone(self.socket), buf, from, flags: 0 }).await;
            buf = back;
            let n = match result {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            from += n;
            self.sent += n as u64;
            Core::with(|core| core.shared.counters.file_bytes_copied.add(n as u64));
        }
        Ok(buf)
    }
}

fn short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was")
}

/// `sendfile(2)` into a socket, which is O_NONBLOCK: that is what the call looks at.
fn send_file_now(into: BorrowedFd<'_>, file: BorrowedFd<'_>, at: u64, len: usize) -> io::Result<usize> {
    #[cfg(all(any(test, feature = "played"), not(loom)))]
    if let Some(answer) = crate::net::played::ask(|played| {
        played.send_file(std::os::fd::AsRawFd::as_raw_fd(&into), file, at, len)
    }) {
        return answer;
    }
    let mut offset = at;
    rustix::fs::sendfile(into, file, Some(&mut offset), len).map_err(os)
}
