//! A direction whose target has gone, or takes nothing at the moment.

use std::io;
use std::task::{Context, Poll, ready};

use super::{Direction, Failure, Joint, Mode, Waits, Watch};
use crate::core::Core;
use crate::net::sys::delivery;
use crate::op::poll::Ready;
use crate::transfer::relay::calls::{poll_asked, receive, wait};
use crate::transfer::relay::state::{Side, State};

/// The most receives that are discarded before the direction waits for readiness again.
const DISCARDS: u32 = 16;

impl Direction {
    /// Takes what comes and discards it, until the end comes.
    pub(super) fn discard(&mut self, io: Joint<'_>, cx: &mut Context<'_>) -> Poll<Failure> {
        if self.mode != Mode::Splice {
            ready!(self.poll_receive_stopped(io, cx));
            while Core::with(|core| io.from.take_chunk(core)).is_some() {}
            self.mode = Mode::Splice;
        }
        if let Some(end) = io.from.over() {
            return Poll::Ready(Failure::Source(end.map(io::Error::from_raw_os_error)));
        }
        loop {
            if let Waits::Readable(polled) = &mut self.waits {
                let polled = ready!(poll_asked(polled, cx));
                self.waits = Waits::Nothing;
                if let Err(e) = polled {
                    return Poll::Ready(Failure::Source(Some(e)));
                }
            }
            for _ in 0..DISCARDS {
                match receive(io.from, &mut [0; 4096]) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(end) => return Poll::Ready(Failure::Source(end)),
                }
            }
            self.waits = Waits::Readable(wait(io.from, Ready::Read, cx));
        }
    }

    /// Watches for a failure of the source while the target takes nothing. Bytes that were received before
    /// the failure still have to be taken. The ring's poll also reports a source's end, and after that
    /// nothing more.
    pub(super) fn watch(
        &mut self,
        io: Joint<'_>,
        state: &mut State,
        cx: &mut Context<'_>,
    ) -> Option<(Side, io::Error)> {
        let is_held_up = self.is_held_up();
        match &mut self.watch {
            Watch::Off if is_held_up => {
                self.watch = Watch::Armed(wait(io.from, Ready::Gone, cx));
            }
            Watch::Off | Watch::Done => return None,
            Watch::Armed(_) => {}
        }
        let Watch::Armed(polled) = &mut self.watch else { return None };
        if poll_asked(polled, cx).is_pending() {
            return None;
        }
        self.watch = Watch::Done;
        if delivery(io.from.fd()).is_some_and(|delivery| delivery.is_closed) && state.may_be_given(io.d) {
            // The kernel reports an error once, and an operation that is dropped now may have received it.
            let e = io::Error::from_raw_os_error(libc::ECONNRESET);
            io.from.has_failed(&e);
            state.refused(io.d);
            return Some((io.d, e));
        }
        None
    }
}
