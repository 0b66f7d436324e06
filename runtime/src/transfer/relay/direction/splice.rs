//! Bulk is spliced through a pipe, by calls on the core or by the ring.

use std::io;
use std::rc::Rc;
use std::task::Context;

use super::{Direction, Failure, Joint, Mode, Waits, Watch};
use crate::core::Core;
use crate::core::pipe_pool::is_lack;
use crate::net::SocketFd;
use crate::op::poll::Ready;
use crate::transfer::Road;
use crate::transfer::pipe::Pipe;
use crate::transfer::relay::calls::wait;
use crate::transfer::relay::state::State;

impl Direction {
    /// Takes bytes by splicing. The pipe is taken only when there are bytes.
    pub(super) fn fill(
        &mut self,
        io: Joint<'_>,
        state: &mut State,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let source = |e| Failure::Source(Some(e));
        let pipe = match &self.pipe {
            Some(pipe) => pipe,
            None => {
                // The kernel reports an error once. If the receive that was armed got it, splicing would find
                // an orderly end.
                match io.from.over() {
                    Some(Some(errno)) => return Err(source(io::Error::from_raw_os_error(errno))),
                    Some(None) => return Err(Failure::Source(None)),
                    None => {}
                }
                if !self.is_readable {
                    self.waits = Waits::Readable(wait(io.from, Ready::Read, cx));
                    return Ok(());
                }
                if io.road == Road::Inline && !self.bursts.is_bulk() {
                    return self.begin(io, state);
                }
                match Pipe::take() {
                    Ok(pipe) => self.pipe.insert(pipe),
                    Err(e) if is_lack(&e) => {
                        self.is_readable = false;
                        // It was less than bulk, because the pipe took no more.
                        let found = self.copy_some(io, state).map_err(Failure::Source)?;
                        if found && self.bursts.over() {
                            self.mode = Mode::Copy;
                        }
                        return Ok(());
                    }
                    Err(e) => return Err(source(e)),
                }
            }
        };
        match io.road {
            Road::Inline => {
                let filled = pipe.fill_now(io.from.fd(), None, pipe.size());
                self.filled(io, state, filled)
            }
            Road::Ring => {
                self.waits = Waits::Fill(Core::with(|core| {
                    pipe.ask_to_fill(core, SocketFd(Rc::clone(io.from)), cx.waker())
                }));
                Ok(())
            }
        }
    }

    /// Takes the result of a splice into the pipe.
    pub(super) fn filled(
        &mut self,
        io: Joint<'_>,
        state: &mut State,
        filled: io::Result<usize>,
    ) -> Result<(), Failure> {
        let was_readable = std::mem::replace(&mut self.is_readable, false);
        match filled {
            Ok(n) if n > 0 => {
                state.took(io.d, n as u64);
                self.bursts.add(n);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => self.is_readable = was_readable,
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(Failure::Source(Some(e))),
            // The end, or what looks like it, or nothing although a poll reported something: see `copy_some`.
            end => {
                self.pipe = None;
                if end.is_ok() || was_readable || io.road == Road::Ring {
                    self.copy_some(io, state).map_err(Failure::Source)?;
                }
                self.burst_is_over();
            }
        }
        Ok(())
    }

    /// Gives bytes by splicing.
    pub(super) fn empty(&mut self, io: Joint<'_>, state: &mut State, cx: &mut Context<'_>) -> io::Result<()> {
        let pipe = self.pipe.as_ref().expect("something is in it");
        match io.road {
            Road::Inline => {
                let emptied = pipe.empty_now(io.into.fd(), false);
                if emptied.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock) {
                    self.waits = Waits::Writable(wait(io.into, Ready::Write, cx));
                }
                Core::with(|core| core.budget.spend());
                self.emptied(io, state, emptied)
            }
            Road::Ring => {
                self.waits = Waits::Empty(Core::with(|core| {
                    pipe.ask_to_empty(core, SocketFd(Rc::clone(io.into)), cx.waker())
                }));
                Ok(())
            }
        }
    }

    /// Takes the result of a splice out of the pipe.
    pub(super) fn emptied(
        &mut self,
        io: Joint<'_>,
        state: &mut State,
        emptied: io::Result<usize>,
    ) -> io::Result<()> {
        let n = match emptied {
            Ok(n) => n as u64,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        state.gave(io.d, n);
        Core::with(|core| match io.road {
            Road::Inline => core.shared.counters.relay_bytes_inline.add(n),
            Road::Ring => core.shared.counters.relay_bytes_ring.add(n),
        });
        // By the ring each burst has a pipe of its own: the next bytes are waited for, and a relay that waits
        // holds no pipe.
        if io.road == Road::Ring && state.held(io.d) == 0 {
            self.pipe = None;
            self.burst_is_over();
        }
        Ok(())
    }

    pub(super) fn burst_is_over(&mut self) {
        if self.bursts.over() {
            self.mode = Mode::Copy;
            // A message nearly always fits, so an idle relay has no operation that waits for space.
            if let Watch::Armed(_) = self.watch {
                self.watch = Watch::Off;
            }
        }
    }
}
