//! Other ways to send on a stream (several buffers at once, a block without a copy), and receiving into an
//! owned buffer.

use std::io;
use std::rc::Rc;

use super::connection::Connection;
use super::family::{Family, Reads, Writes};
use super::socket::Socket;
use super::sys;
use super::writing::sent;
use crate::buf::{Block, BufError, IoBuf, IoBufMut, IoBufs};
use crate::core::Core;
use crate::core::ask::{Finished, OpFuture, ask};
use crate::net::op::send::Send;
use crate::net::op::send_vectored::SendVectored;
use crate::net::op::send_zc::{SendZc, SharedBlock};
use crate::op::check;
use crate::op::poll::Ready;
use crate::{Error, Result};

/// Bytes below which copying costs less than keeping pages for the network.
const ZC_LEAST: usize = 16 << 10;

impl<F: Family, S: Writes> Connection<F, S> {
    /// Sends all of several buffers, one after the other, and gives them back. A head and a body leave in one
    /// segment where they fit, by one system call (`sendmsg(2)`).
    ///
    /// # Errors
    /// As for [`send_all`](Self::send_all); the buffers come back with the error.
    ///
    /// # Cancellation
    /// As for [`send_all`](Self::send_all).
    pub async fn send_all_vectored<V: IoBufs>(&self, mut bufs: V) -> Result<V, BufError<V>> {
        let permit = match self.socket().write_permit().await {
            Ok(permit) => permit,
            Err(error) => return Err(BufError { error, buf: bufs }),
        };
        let (total, mut from, mut vectors) = (bufs.total(), 0, Vec::new());
        while from < total {
            let send = SendVectored::new(Rc::clone(self.socket()), bufs, from, vectors);
            let result;
            (result, bufs, vectors) = ask(send).await;
            match sent(self.socket(), result) {
                Ok(n) => from += n,
                Err(e) => {
                    // A part has been sent, so the next sender would continue in the middle of this one. That
                    // poisons the stream.
                    if from == 0 {
                        permit.done();
                    }
                    return Err(BufError::io("send failed", e, bufs));
                }
            }
        }
        permit.done();
        Ok(bufs)
    }

    /// Sends all of a block, without copying it where that pays (Linux 6.0, `io_uring_prep_send_zc(3)`).
    ///
    /// It completes when the kernel has taken the bytes. The block goes back to its pool when the network has
    /// released its pages, which for a peer that does not read may be long after. The number of blocks bounds
    /// how much memory that can be. Below 16 KiB, and to an address for which the kernel copied four times in
    /// a row after all (loopback, and network cards that cannot gather), it is an ordinary send; each core
    /// remembers the last 64 such addresses and tries one again after 256 connections. Where the kernel does
    /// not report that (early 6.1), it goes on trying.
    ///
    /// Dropping the stream does not end its sends, but blocks are not lent for ever: when the peer then takes
    /// less than 16 KiB in [`Builder::zero_copy_patience`](crate::Builder::zero_copy_patience), the
    /// connection is reset and the blocks come back. A core that ends waits one second at most. Neither
    /// resets a connection that was [handed over](Self::hand_over) or [given up](Self::into_owned_fd) and is
    /// another's since.
    ///
    /// # Errors
    /// As for [`send_all`](Self::send_all), but the block may still be the kernel's, so it does not come
    /// back.
    ///
    /// # Cancellation
    /// As for [`send_all`](Self::send_all).
    pub async fn send_zc(&self, block: Block) -> Result<()> {
        let permit = self.socket().write_permit().await?;
        let block = SharedBlock(Rc::new(block));
        let (mut from, mut may_skip_copy) = (0, true);
        while from < block.bytes().len() {
            let skip_copy =
                may_skip_copy && block.bytes().len() - from >= ZC_LEAST && worth_skipping_copy(self.socket());
            let result = if skip_copy {
                send_zc_once(self.socket(), &block, from).await
            } else {
                let send = Send { socket: Rc::clone(self.socket()), buf: block.clone(), from, flags: 0 };
                ask(send).await.0
            };
            match sent(self.socket(), result) {
                Ok(n) => from += n,
                // RLIMIT_MEMLOCK is used up by pages that were not registered, or the socket does not support
                // it.
                Err(e) if skip_copy && matches!(e.raw_os_error(), Some(libc::ENOMEM | libc::EOPNOTSUPP)) => {
                    may_skip_copy = false;
                    if e.raw_os_error() == Some(libc::EOPNOTSUPP) {
                        self.socket().never_skip_copy();
                    }
                }
                Err(e) => {
                    if from == 0 {
                        permit.done();
                    }
                    return Err(Error::io("send failed", e));
                }
            }
        }
        permit.done();
        Ok(())
    }
}

fn worth_skipping_copy(socket: &Rc<Socket>) -> bool {
    Core::with(|core| {
        let may = socket.may_skip_copy(core);
        if !may {
            core.shared.counters.zc_avoided.add(1);
        }
        may
    })
}

impl<F: Family, S: Reads> Connection<F, S> {
    /// Receives into a buffer of the caller's and gives it back, with the number of bytes that came: 0 at the
    /// end of the stream, or when the buffer has no free part. It is an alternative to [`recv`](Self::recv)
    /// for bytes that must lie in a certain place. It costs a copy of bytes that had come before, and a poll
    /// and a call of `recv(2)` for bytes that come later.
    ///
    /// It [quiesces](Self::quiesce) the stream first. If several tasks wait, one gets the bytes, and the
    /// others wait on.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io), for good: later receives of either kind return the same. The
    /// buffer comes back with it.
    ///
    /// # Cancellation
    /// Safe: the buffer is not lent to the kernel while this waits, so no byte can land in it unseen. The
    /// buffer is dropped.
    pub async fn recv_into<B: IoBufMut>(&self, mut buf: B) -> Result<(usize, B), BufError<B>> {
        if buf.spare_capacity().is_empty() {
            return Ok((0, buf));
        }
        self.socket().quiet().await;
        if let Some(mut chunk) = Core::with(|core| self.socket().take_chunk(core)) {
            let spare = buf.spare_capacity();
            let n = chunk.len().min(spare.len());
            for (to, from) in spare.iter_mut().zip(&chunk[..n]) {
                to.write(*from);
            }
            // SAFETY: `n` bytes of the spare capacity were written just now.
            unsafe { buf.filled(n) };
            chunk.advance(n);
            self.socket().put_back(chunk);
            return Ok((n, buf));
        }
        if let Some(end) = self.socket().over() {
            return match end {
                None => Ok((0, buf)),
                Some(errno) => Err(BufError::io("receive failed", io::Error::from_raw_os_error(errno), buf)),
            };
        }
        loop {
            // This comes before the bytes are taken, because after that there must be no await in which they
            // could be dropped.
            crate::task::consume_budget().await;
            match sys::recv_now(self.socket().fd(), buf.spare_capacity()) {
                Ok(0) => {
                    // It may be what is left of a reset that a send was told, whose completion waits in the
                    // ring: it is handled before that of a poll which is asked for now.
                    let looked = self.socket().ready(Ready::Read).await;
                    self.socket().failure();
                    let ended = self.socket().has_ended().map(io::Error::from_raw_os_error);
                    return match looked.err().or(ended) {
                        Some(e) => Err(BufError::io("receive failed", e, buf)),
                        None => Ok((0, buf)),
                    };
                }
                Ok(n) => {
                    // SAFETY: recv(2) has written them.
                    unsafe { buf.filled(n) };
                    Core::with(|core| core.shared.counters.recv_bytes.add(n as u64));
                    return Ok((n, buf));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(e) = self.socket().ready(Ready::Read).await {
                        return Err(BufError::io("receive failed", e, buf));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.socket().has_failed(&e);
                    return Err(BufError::io("receive failed", e, buf));
                }
            }
        }
    }
}

async fn send_zc_once(socket: &Rc<Socket>, block: &SharedBlock, from: usize) -> io::Result<usize> {
    let report = Core::with(|core| core.ring.features().zc_report);
    let send = SendZc::new(Rc::clone(socket), block.clone(), from, report);
    let result = match OpFuture::new(send).await {
        Finished::Whole(result) => result,
        // The notification is not there yet. The operation keeps its share of the block until then.
        Finished::Early(outcome) => check(outcome).map(|n| n as usize),
    };
    if result.is_ok() {
        Core::with(|core| core.shared.counters.zc_sends.add(1));
    }
    result
}
