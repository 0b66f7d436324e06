//! Small messages are received into the core's buffers and sent on from there.

use std::io;
use std::task::{Context, Poll, ready};

use super::{Direction, Failure, Joint, Mode, count_copied};
use crate::core::Core;
use crate::net::writing::send_now;
use crate::transfer::relay::bursts::BULK;
use crate::transfer::relay::calls::receive;
use crate::transfer::relay::state::State;

impl Direction {
    /// Takes a message and sends it on at once. The relay holds no lease, because a side that does not read
    /// must not hold the core's buffers: bytes that the side does not take wait on the heap. Where the core
    /// has no buffer left the relay does not wait for one: splicing needs none, and the holders of the
    /// buffers may wait for the bytes of this relay.
    pub(super) fn copy(
        &mut self,
        io: Joint<'_>,
        state: &mut State,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        let polled = Core::with(|core| {
            let polled = io.from.poll_recv(core, cx, &mut self.reading);
            if polled.is_pending() && io.from.is_starved() {
                if core.fairness.is_starving(&core.bufs) {
                    return None;
                }
                // It may get a buffer when this tick of the core ends, or others take them all, so it polls
                // again.
                cx.waker().wake_by_ref();
            }
            Some(polled)
        });
        let Some(polled) = polled else {
            self.mode = Mode::StopReceiving;
            return Poll::Ready(Ok(()));
        };
        let polled = ready!(polled);
        io.from.wait_is_over(&mut self.reading);
        let chunk = match polled {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Poll::Ready(Err(Failure::Source(None))),
            Err(e) => return Poll::Ready(Err(Failure::Source(Some(e)))),
        };
        state.took(io.d, chunk.len() as u64);
        let sent = send_now(io.into, &chunk, 0).map_err(Failure::Target)?;
        state.gave(io.d, sent as u64);
        count_copied(state, sent);
        if sent < chunk.len() || chunk.len() >= BULK {
            self.rest = chunk[sent..].to_vec();
            self.mode = Mode::StopReceiving;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends receiving into buffers, and takes the bytes that had come that way.
    pub(super) fn stop_receiving(
        &mut self,
        io: Joint<'_>,
        state: &mut State,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        ready!(self.poll_receive_stopped(io, cx));
        while let Some(chunk) = Core::with(|core| io.from.take_chunk(core)) {
            state.took(io.d, chunk.len() as u64);
            let sent = if self.rest.is_empty() {
                send_now(io.into, &chunk, 0).map_err(Failure::Target)?
            } else {
                0
            };
            state.gave(io.d, sent as u64);
            count_copied(state, sent);
            self.rest.extend_from_slice(&chunk[sent..]);
        }
        // Not before: if the target has gone, what is left is discarded, and gives its buffers back.
        self.mode = Mode::Splice;
        Poll::Ready(Ok(()))
    }

    /// Takes the beginning of a burst of which it is not known whether it is bulk, and sends it on at once.
    /// That is two calls, where a message that is spliced costs three and a pipe. What does not fill the
    /// buffer was all.
    pub(super) fn begin(&mut self, io: Joint<'_>, state: &mut State) -> Result<(), Failure> {
        let mut found = [0; BULK];
        let n = receive(io.from, &mut found).map_err(Failure::Source)?;
        if n > 0 {
            state.took(io.d, n as u64);
            self.bursts.add(n);
            let sent = send_now(io.into, &found[..n], 0).map_err(Failure::Target)?;
            state.gave(io.d, sent as u64);
            count_copied(state, sent);
            self.rest.extend_from_slice(&found[sent..n]);
        }
        if n < BULK {
            self.is_readable = false;
            self.burst_is_over();
        }
        Ok(())
    }

    /// Receives by copying, once: where no pipe can be had, and where splicing is not possible. Returns
    /// whether there was anything; the end of the source is an error.
    ///
    /// Splicing from a TCP socket stops before an urgent byte (`send(2)`, MSG_OOB): it returns `EAGAIN` for
    /// ever while a poll reports bytes, and after the peer's end it returns 0 with bytes still queued. A
    /// plain receive passes the mark (the urgent byte itself is not part of the stream, `tcp(7)`), so it is
    /// tried before either result is taken as true. Seen on 6.18: without this a client that sent one urgent
    /// byte made the relay spin, and what it sent afterwards was lost.
    pub(super) fn copy_some(&mut self, io: Joint<'_>, state: &mut State) -> Result<bool, Option<io::Error>> {
        let mut found = [0; 4096];
        let n = receive(io.from, &mut found)?;
        state.took(io.d, n as u64);
        self.rest.extend_from_slice(&found[..n]);
        Ok(n > 0)
    }

    /// Ready when no receive is armed.
    pub(super) fn poll_receive_stopped(&mut self, io: Joint<'_>, cx: &mut Context<'_>) -> Poll<()> {
        ready!(Core::with(|core| io.from.poll_quiet(core, cx, &mut self.reading)));
        io.from.wait_is_over(&mut self.reading);
        Poll::Ready(())
    }
}
