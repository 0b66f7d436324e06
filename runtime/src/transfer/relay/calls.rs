//! What a relay asks of its sockets: receives on the core, and operations of the ring that are polled by
//! hand.

use std::io;
#[cfg(all(any(test, feature = "played"), not(loom)))]
use std::os::fd::AsRawFd as _;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::core::Core;
use crate::core::ask::{Finished, InFlight};
use crate::error::os;
use crate::net::SocketFd;
use crate::net::socket::Socket;
use crate::op::Operation;
use crate::op::poll::{PollOnce, Ready};

/// Receives what is available: 0 where nothing is. The end, or a failure of the connection, is an error.
pub(super) fn receive(from: &Socket, into: &mut [u8]) -> Result<usize, Option<io::Error>> {
    match receive_now(from, into) {
        Ok(0) => Err(from.has_ended().map(io::Error::from_raw_os_error)),
        Ok(n) => Ok(n),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
        Err(e) => Err(Some(e)),
    }
}

fn receive_now(from: &Socket, into: &mut [u8]) -> io::Result<usize> {
    #[cfg(all(any(test, feature = "played"), not(loom)))]
    if let Some(answer) = crate::net::played::ask(|p| p.recv(from.fd().as_raw_fd(), into.len())) {
        let came = answer?;
        into[..came.len()].copy_from_slice(&came);
        return Ok(came.len());
    }
    rustix::net::recv(from.fd(), into, rustix::net::RecvFlags::DONTWAIT).map(|(n, _)| n).map_err(os)
}

pub(super) fn asked<T: Operation>(operation: T, cx: &Context<'_>) -> InFlight<T> {
    Core::with(|core| InFlight::new(core, operation, cx.waker()))
}

pub(super) fn wait(socket: &Rc<Socket>, ready: Ready, cx: &Context<'_>) -> InFlight<PollOnce<SocketFd>> {
    asked(PollOnce { fd: SocketFd(Rc::clone(socket)), ready }, cx)
}

pub(super) fn poll_asked<T: Operation>(asked: &mut InFlight<T>, cx: &Context<'_>) -> Poll<T::Output> {
    Core::with(|core| asked.poll(core, cx.waker())).map(|finished| match finished {
        Finished::Whole(output) => output,
        Finished::Early(_) => unreachable!("{} has no notification", T::NAME),
    })
}
