//! Reading, and sending without a copy by the ring (SEND_ZC, Linux 6.0), on a ring of its own: the runtime's
//! `send_zc` gives it up for an address where the kernel copies all the same, as it does over loopback.

use std::fs::File;
use std::io::{Error, ErrorKind};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use io_uring::{IoUring, cqueue, opcode, types};

use super::figures::{Clock, Figures};
use super::plain::COPIED;
use super::receiver::{Receiver, finish};

/// How many blocks take turns. The network keeps each until the peer has acknowledged its bytes.
const BLOCKS: usize = 32;

/// `IORING_SEND_ZC_REPORT_USAGE` of linux/io_uring.h (Linux 6.2): the notification says whether the kernel
/// copied.
const REPORT_USAGE: u16 = 1 << 3;
/// `IORING_NOTIF_USAGE_ZC_COPIED`: it did.
const USAGE_COPIED: u32 = 1 << 31;

/// Sends the first `size` bytes of `file` so many times over one connection.
///
/// # Errors
/// A ring cannot be had or has no SEND_ZC, or the connection failed.
pub(super) fn measure(file: &File, receiver: Receiver, size: u64, times: u64) -> std::io::Result<Figures> {
    let mut sender = ZeroCopy::new()?;
    let stream = TcpStream::connect(receiver.address)?;
    stream.set_nodelay(true)?;
    let clock = Clock::start();
    for _ in 0..times {
        sender.send(file, &stream, size)?;
    }
    finish(&stream)?;
    sender.settle()?;
    let figures = clock.stop(size * times, receiver.used());
    let copied = (sender.reported > 0).then(|| sender.copied as f64 / sender.reported as f64);
    Ok(Figures { copied, ..figures })
}

/// Sends without a copy.
struct ZeroCopy {
    ring: IoUring,
    blocks: Vec<Block>,
    zc_flags: u16,
    /// Sends that the kernel has reported on, and how many of them it copied.
    reported: u64,
    copied: u64,
}

/// Memory that the network may still read.
struct Block {
    bytes: Vec<u8>,
    /// Sends whose notification is awaited.
    lent: u32,
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.lent > 0 {
            // The network may still read it, so nothing else may ever lie there.
            std::mem::forget(std::mem::take(&mut self.bytes));
        }
    }
}

impl ZeroCopy {
    /// A ring and its blocks.
    ///
    /// # Errors
    /// io_uring is refused, or has no SEND_ZC.
    fn new() -> std::io::Result<Self> {
        let ring = IoUring::new(8)?;
        let mut probe = io_uring::Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::SendZc::CODE) {
            return Err(Error::new(ErrorKind::Unsupported, "this kernel has no SEND_ZC (Linux 6.0)"));
        }
        let block = || Block { bytes: vec![0; COPIED], lent: 0 };
        let blocks = std::iter::repeat_with(block).take(BLOCKS).collect();
        Ok(Self { ring, blocks, zc_flags: REPORT_USAGE, reported: 0, copied: 0 })
    }

    /// Reads and sends the first `size` bytes of `file`.
    fn send(&mut self, file: &File, stream: &TcpStream, size: u64) -> std::io::Result<()> {
        let mut at = 0;
        while at < size {
            let block = self.free_block()?;
            let len = (size - at).min(COPIED as u64) as usize;
            file.read_exact_at(&mut self.blocks[block].bytes[..len], at)?;
            let mut from = 0;
            while from < len {
                from += self.send_once(stream, block, from, len)?;
            }
            at += len as u64;
        }
        Ok(())
    }

    /// Waits until the network has let go of all blocks.
    fn settle(&mut self) -> std::io::Result<()> {
        while self.blocks.iter().any(|block| block.lent > 0) {
            self.await_notification()?;
        }
        Ok(())
    }

    /// A block that the network does not have.
    fn free_block(&mut self) -> std::io::Result<usize> {
        loop {
            if let Some(free) = self.blocks.iter().position(|block| block.lent == 0) {
                return Ok(free);
            }
            self.await_notification()?;
        }
    }

    fn await_notification(&mut self) -> std::io::Result<()> {
        self.ring.submit_and_wait(1)?;
        self.take_completions().map(drop)
    }

    /// Sends what of the block is left, and waits for the result. Returns how many bytes the socket took.
    fn send_once(
        &mut self,
        stream: &TcpStream,
        block: usize,
        from: usize,
        len: usize,
    ) -> std::io::Result<usize> {
        loop {
            let bytes = &self.blocks[block].bytes[from..len];
            let send = opcode::SendZc::new(types::Fd(stream.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32)
                .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
                .zc_flags(self.zc_flags)
                .build()
                .user_data(block as u64);
            // SAFETY: the entry names bytes of a block. This type neither moves nor frees nor writes to them
            // while `lent` is not 0, which it is from now on until the notification; `Block` sees to it when
            // it is dropped. The caller has the socket open until the result is there.
            unsafe { self.ring.submission().push(&send) }.map_err(|full| Error::other(full.to_string()))?;
            self.blocks[block].lent += 1;
            let result = loop {
                self.ring.submit_and_wait(1)?;
                if let Some(result) = self.take_completions()? {
                    break result;
                }
            };
            match result {
                // The kernel is older than the report.
                result if result == -libc::EINVAL && self.zc_flags != 0 => self.zc_flags = 0,
                result if result == -libc::EINTR || result == -libc::EAGAIN => {}
                result if result < 0 => return Err(Error::from_raw_os_error(-result)),
                result => return Ok(result as usize),
            }
        }
    }

    /// Takes what has completed. Returns the result of the send that is under way, if it is among it.
    fn take_completions(&mut self) -> std::io::Result<Option<i32>> {
        let mut result = None;
        for completion in self.ring.completion() {
            let block = usize::try_from(completion.user_data()).ok();
            let block = block.and_then(|block| self.blocks.get_mut(block));
            let block = block.ok_or_else(|| Error::from(ErrorKind::InvalidData))?;
            if cqueue::notif(completion.flags()) {
                block.lent -= 1;
                if self.zc_flags != 0 {
                    self.reported += 1;
                    self.copied += u64::from(completion.result() as u32 & USAGE_COPIED != 0);
                }
            } else {
                // No notification follows a send that failed before it began.
                if !cqueue::more(completion.flags()) {
                    block.lent -= 1;
                }
                result = Some(completion.result());
            }
        }
        Ok(result)
    }
}
