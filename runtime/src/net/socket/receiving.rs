//! The receiving side of a socket, as a pure state machine: no kernel, no buffer, no waker.
//!
//! | state | the kernel has a receive | a reader that finds no chunk |
//! |---|---|---|
//! | `Idle` | no | asks for one, or, where others wait for buffers, waits for its turn |
//! | `Armed` | yes | waits |
//! | `Ending` | yes, and was asked to end it | waits |
//! | `Starved` | no: there was no buffer | waits for its turn |
//! | `Over` | no | is told the end |
//!
//! What happens, and what becomes of it:
//!
//! | | `Idle` | `Armed` | `Ending` | `Starved` | `Over` |
//! |---|---|---|---|---|---|
//! | a reader wants bytes | `Armed` or `Starved`; waits while another waits for quiet | | | | told; `Idle` if the end passes |
//! | bytes came, and more will | | | | | |
//! | bytes came, the last | | `Idle` | `Idle` | | |
//! | the end, or an error | | `Over` | `Over` | | |
//! | there was no buffer | | `Starved` if a reader waits, or `Idle` | `Idle` | | |
//! | cancelled, or to be asked again | | `Idle` | `Idle` | | |
//! | it is to stop | | `Ending`: cancel | | | |
//! | it is to be quiet | quiet | `Ending`: cancel | | `Idle`: quiet | quiet |
//! | its turn for a buffer | | | | `Armed` | |
//! | its reader is dropped | | `Idle`: abandon | `Idle`: abandon | `Idle` | `Idle` |
//! | other means have found the end | `Over` | | | | |
//!
//! A stream that is starved stands in the core's queue of those that wait for a buffer, and once only: one
//! that has left the state stays in the queue until its turn comes, and is found not to want it.
//!
//! The kernel tells an error of a connection once, to whoever asks first, and lets others find a clean end.
//! So what a send was told is kept ([`told`](Receiving::told)), and an end that is found after it is that
//! error.

use std::cell::Cell;

/// How receiving has ended: by an error (its errno), or by the end of the stream.
pub(super) type End = Option<i32>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State<K> {
    Idle,
    Armed(K),
    Ending(K),
    Starved,
    Over(End),
}

/// The receiving side. `K` names a receive that the kernel has.
pub(super) struct Receiving<K> {
    state: Cell<State<K>>,
    /// Stands in the queue of those that wait for a buffer.
    is_queued: Cell<bool>,
    /// Nobody reads any more.
    is_released: Cell<bool>,
    /// How many wait until no receive is under way; more than fit count as the most.
    hushed: Cell<u16>,
    /// What a send was told of the connection's end.
    cut_off: Cell<End>,
}

/// What a reader that finds no chunk has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// It is told the end.
    Told(End),
    /// A receive is to be asked for, and then [`armed`](Receiving::armed).
    Arm,
    /// The stream is to be put into the queue for buffers.
    Queue,
    /// Nothing: what comes wakes it.
    Wait,
}

/// Whether no receive is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quiet {
    Yes,
    /// It is from now on, and whoever waited for a buffer has to ask again.
    GaveUpTurn,
    NotYet,
}

impl<K: Copy> Receiving<K> {
    pub(super) fn new() -> Self {
        Self {
            state: Cell::new(State::Idle),
            is_queued: Cell::new(false),
            is_released: Cell::new(false),
            hushed: Cell::new(0),
            cut_off: Cell::new(None),
        }
    }

    /// As it was on the core that the socket came from.
    pub(super) fn arrived(&self, end: Option<End>, cut_off: End) {
        if let Some(end) = end {
            self.state.set(State::Over(end));
        }
        self.cut_off.set(cut_off);
    }

    /// A reader has found no chunk. `others_wait`: for buffers, and one that has just been served must not
    /// push in before them. `passes`: an end is told once, and receiving goes on.
    #[inline(always)]
    pub(super) fn want(&self, others_wait: impl FnOnce() -> bool, passes: bool) -> Wanted {
        match self.state.get() {
            State::Over(end) => {
                if passes {
                    self.state.set(State::Idle);
                }
                Wanted::Told(end)
            }
            // It would be ended at once, and whoever waits for quiet would wait on.
            State::Idle if self.is_hushed() => Wanted::Wait,
            State::Idle if others_wait() => self.starve(),
            State::Idle => Wanted::Arm,
            State::Armed(_) | State::Ending(_) | State::Starved => Wanted::Wait,
        }
    }

    fn starve(&self) -> Wanted {
        self.state.set(State::Starved);
        if self.is_queued.replace(true) { Wanted::Wait } else { Wanted::Queue }
    }

    /// A receive was asked for.
    #[inline(always)]
    pub(super) fn armed(&self, key: K) {
        self.state.set(State::Armed(key));
    }

    /// The receive has answered; with `last` it is over. Whether its end had been asked for.
    #[inline(always)]
    pub(super) fn answered(&self, last: bool) -> bool {
        let was_ending = matches!(self.state.get(), State::Ending(_));
        if last {
            self.state.set(State::Idle);
        }
        was_ending
    }

    /// The receive has found the end.
    pub(super) fn ended(&self) {
        self.state.set(State::Over(self.cut_off.get()));
    }

    /// The receive has failed, for good.
    pub(super) fn failed(&self, errno: i32) {
        self.state.set(State::Over(Some(errno)));
    }

    /// The receive has found no buffer. Only a stream whose reader waits needs one; another arms again when
    /// it is read.
    pub(super) fn lacked(&self, is_waited_for: bool, was_ending: bool) -> Wanted {
        if is_waited_for && !was_ending { self.starve() } else { Wanted::Wait }
    }

    /// It was taken out of the queue for buffers.
    pub(super) fn left_queue(&self) {
        self.is_queued.set(false);
    }

    /// Whether it waits for a buffer.
    pub(super) fn is_starved(&self) -> bool {
        matches!(self.state.get(), State::Starved) && !self.is_released.get()
    }

    /// Whether the kernel has a receive.
    pub(super) fn is_receiving(&self) -> bool {
        matches!(self.state.get(), State::Armed(_) | State::Ending(_))
    }

    /// Whether something will come without being asked for.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_receiving() || matches!(self.state.get(), State::Starved)
    }

    /// Somebody begins to wait until it is [quiet](Self::quiet).
    pub(super) fn hush(&self) {
        self.hushed.set(self.hushed.get().saturating_add(1));
    }

    /// Somebody has ceased to wait until it is quiet. Whether readers may ask for a receive again: they have
    /// to be woken for it.
    #[must_use = "readers wait"]
    pub(super) fn unhush(&self) -> bool {
        self.hushed.set(self.hushed.get().saturating_sub(1));
        !self.is_hushed()
    }

    /// Whether somebody waits until it is quiet.
    pub(super) fn is_hushed(&self) -> bool {
        self.hushed.get() > 0
    }

    /// It is to stop: which receive is to be cancelled.
    #[must_use = "the kernel does not know yet"]
    pub(super) fn stop(&self) -> Option<K> {
        let State::Armed(key) = self.state.get() else { return None };
        self.state.set(State::Ending(key));
        Some(key)
    }

    /// Whether it is quiet, after [`stop`](Self::stop).
    pub(super) fn quiet(&self) -> Quiet {
        match self.state.get() {
            State::Idle | State::Over(_) => Quiet::Yes,
            State::Starved => {
                self.state.set(State::Idle);
                Quiet::GaveUpTurn
            }
            State::Armed(_) | State::Ending(_) => Quiet::NotYet,
        }
    }

    /// Nobody reads any more: which receive is to be abandoned.
    #[must_use = "the kernel does not know yet"]
    pub(super) fn release(&self) -> Option<K> {
        self.is_released.set(true);
        match self.state.replace(State::Idle) {
            State::Armed(key) | State::Ending(key) => Some(key),
            _ => None,
        }
    }

    /// Whether nobody reads any more.
    pub(super) fn is_released(&self) -> bool {
        self.is_released.get()
    }

    /// How it has ended, if it has.
    pub(super) fn over(&self) -> Option<End> {
        match self.state.get() {
            State::Over(end) => Some(end),
            _ => None,
        }
    }

    /// A send, or receiving by other means, was told of the connection's end by this errno.
    pub(super) fn told(&self, errno: i32) {
        self.cut_off.set(Some(errno));
    }

    /// What was told of the connection's end by other means, if it was.
    pub(super) fn cut_off(&self) -> End {
        self.cut_off.get()
    }

    /// Receiving by other means has found the end; what it is in truth. A receive that is armed meanwhile, by
    /// a second reader, is told by the kernel.
    pub(super) fn found_end(&self) -> End {
        if let State::Idle = self.state.get() {
            self.ended();
        }
        self.cut_off.get()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
