//! The state of a relay's two directions, and what each does next: a pure state machine.
//!
//! A relay joins two sides, 0 and 1. Direction `d` takes bytes from side `d`, its source, and gives them to
//! the other side, its target. The code that does the I/O asks [`State::next`] what a direction is to do,
//! does it, and reports what happened. The rules:
//!
//! ```text
//! what happened                    this direction                     the other direction
//! source sent its end (FIN)        gives what it holds, then Shut     goes on
//! source is cut (reset, time-out)  gives what it holds, then Rest     its target has gone: Discard or Rest
//! target refuses bytes             drops what it holds: Discard       goes on to its own end
//! ```
//!
//! A side whose bytes were lost, or whose peer was cut, is told by a reset and never by an end. It is told
//! when it has acknowledged what it was given before. Until then what it sends is taken and discarded, so
//! that a peer that reads only after it has written gets to read. When nothing is left to do,
//! [`State::is_done`] is true.

/// One side of a relay: 0 or 1. As a direction it is the one that takes from this side.
pub(super) type Side = usize;

/// What a side sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    /// It has sent its end.
    Ended,
    /// The connection has failed.
    Cut,
}

/// What a side takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Open,
    /// The relay has sent it the end.
    Shut,
    /// It takes nothing more: a send failed, or the connection has gone.
    Refused,
}

/// What a direction does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Gives what it holds to its target, and takes more if it [may](State::may_take).
    Carry,
    /// Sends its target the end.
    Shut,
    /// Waits for the result of the bytes that the kernel was [asked to give](State::asked): the target has
    /// gone meanwhile, and may have taken some of them.
    Settle,
    /// Takes what comes from its source and discards it.
    Discard,
    /// Nothing.
    Rest,
}

/// The state of a relay. The module has the rules.
#[derive(Debug, Clone)]
pub(super) struct State {
    input: [Input; 2],
    output: [Output; 2],
    /// Whether each side has acknowledged all that it was given.
    acknowledged: [bool; 2],
    taken: [u64; 2],
    given: [u64; 2],
    /// Bytes of both directions that were copied through user memory.
    copied: u64,
    /// Whether the kernel was asked to give bytes of each direction, and the result has not come.
    is_asked: [bool; 2],
    /// Each kind of change comes once or twice for each side and then never again, so there are few.
    changes: u32,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            input: [Input::Open; 2],
            output: [Output::Open; 2],
            acknowledged: [false; 2],
            taken: [0; 2],
            given: [0; 2],
            copied: 0,
            is_asked: [false; 2],
            changes: 0,
        }
    }

    /// What direction `d` does next.
    pub(super) fn next(&self, d: Side) -> Step {
        let target = 1 - d;
        match (self.output[target], self.input[d]) {
            (Output::Open, Input::Open) => Step::Carry,
            (Output::Open, _) if self.held(d) > 0 => Step::Carry,
            (Output::Open, Input::Ended) => Step::Shut,
            (Output::Open, Input::Cut) | (Output::Shut, _) => Step::Rest,
            (Output::Refused, _) if self.is_asked[d] => Step::Settle,
            (Output::Refused, Input::Open) if self.output[d] != Output::Refused && !self.was_told(d) => {
                Step::Discard
            }
            (Output::Refused, _) => Step::Rest,
        }
    }

    /// Whether direction `d` may take more.
    pub(super) fn may_take(&self, d: Side) -> bool {
        self.input[d] == Input::Open
    }

    /// How many bytes of direction `d` were taken and not given.
    pub(super) fn held(&self, d: Side) -> u64 {
        self.taken[d] - self.given[d]
    }

    /// How many bytes direction `d` has given.
    pub(super) fn given(&self, d: Side) -> u64 {
        self.given[d]
    }

    /// Bytes of both directions that were copied through user memory.
    pub(super) fn copied(&self) -> u64 {
        self.copied
    }

    /// Of what was given, this many bytes were copied.
    pub(super) fn count_copied(&mut self, n: u64) {
        self.copied += n;
    }

    /// A count of the changes that may change what [`next`](Self::next) says of the other direction.
    pub(super) fn changes(&self) -> u32 {
        self.changes
    }

    /// Reports that direction `d` has taken bytes.
    pub(super) fn took(&mut self, d: Side, n: u64) {
        debug_assert!(self.may_take(d), "taken after the end");
        self.taken[d] += n;
    }

    /// Reports that direction `d` has given bytes.
    pub(super) fn gave(&mut self, d: Side, n: u64) {
        debug_assert!(n <= self.held(d) && self.output[1 - d] != Output::Shut, "given what there is not");
        self.given[d] += n;
    }

    /// Reports whether the kernel was asked to give bytes of direction `d` and the result has not come. Until
    /// it comes nobody knows how many bytes the target has, so it is awaited even if the target has gone.
    pub(super) fn asked(&mut self, d: Side, is_asked: bool) {
        if self.is_asked[d] != is_asked {
            self.is_asked[d] = is_asked;
            // Otherwise the other direction does not depend on it.
            self.changes += u32::from(self.output[1 - d] == Output::Refused);
        }
    }

    /// Reports that `side` has sent its end.
    pub(super) fn ended(&mut self, side: Side) {
        if self.input[side] == Input::Open {
            self.input[side] = Input::Ended;
            self.changes += 1;
        }
    }

    /// Reports that the connection of `side` has failed: it sends and takes nothing more.
    pub(super) fn cut(&mut self, side: Side) {
        self.input[side] = Input::Cut;
        self.refused(side);
    }

    /// Reports that `side` takes nothing more. Bytes that it has sent before may still be there.
    pub(super) fn refused(&mut self, side: Side) {
        self.output[side] = Output::Refused;
        self.changes += 1;
    }

    /// Reports that the end was sent to `side`.
    pub(super) fn shut(&mut self, side: Side) {
        debug_assert!(self.output[side] == Output::Open && self.held(1 - side) == 0, "bytes before the end");
        self.output[side] = Output::Shut;
        self.changes += 1;
    }

    /// Reports that `side` has acknowledged all that it was given, or has had its time to.
    pub(super) fn has_acknowledged(&mut self, side: Side) {
        self.acknowledged[side] = true;
        self.changes += 1;
    }

    /// Whether what looks like the end of `side` may be a failure. The kernel reports one once, and may have
    /// reported it to bytes that it was asked to give to `side`.
    pub(super) fn may_have_failed(&self, side: Side) -> bool {
        self.is_asked[1 - side]
    }

    /// Whether `side` must be reset, to tell it how the other side has ended.
    pub(super) fn is_to_be_reset(&self, side: Side) -> bool {
        self.output[1 - side] == Output::Refused
    }

    /// Whether everything is done but the reset of `side`, which waits until `side` has acknowledged what it
    /// was given.
    pub(super) fn awaits_acknowledgement(&self, side: Side) -> bool {
        self.is_to_be_reset(side)
            && self.has_finished(1 - side)
            && self.output[side] != Output::Refused
            && !self.acknowledged[side]
    }

    /// Whether nothing is left to do: the connections may be closed, or [reset](Self::is_to_be_reset).
    pub(super) fn is_done(&self) -> bool {
        let has_ended = |side| self.has_finished(1 - side) && !self.awaits_acknowledgement(side);
        has_ended(0) && has_ended(1)
    }

    /// Whether one side has sent its end and was not sent one, or the other way round.
    pub(super) fn is_half_closed(&self) -> bool {
        self.input.contains(&Input::Ended)
    }

    /// Whether a side has gone, so that all that is left is to end the other one.
    pub(super) fn is_breaking_off(&self) -> bool {
        self.output.contains(&Output::Refused)
    }

    /// Whether a failure of `side` would go unnoticed, because nothing is taken from it: it has sent its end
    /// and is still given bytes.
    pub(super) fn is_send_only(&self, side: Side) -> bool {
        self.input[side] == Input::Ended && self.output[side] == Output::Open
    }

    /// Whether `side` was neither sent its end nor has gone. Otherwise it is expected that its connection is
    /// closed.
    pub(super) fn may_be_given(&self, side: Side) -> bool {
        self.output[side] == Output::Open
    }

    /// Whether direction `d` gives nothing more.
    fn has_finished(&self, d: Side) -> bool {
        match self.output[1 - d] {
            Output::Shut => true,
            Output::Refused => !self.is_asked[d],
            Output::Open => self.input[d] == Input::Cut && self.held(d) == 0,
        }
    }

    /// Whether nothing is left to do for `side`, which may then be told of its loss.
    fn was_told(&self, side: Side) -> bool {
        self.has_finished(1 - side) && self.acknowledged[side]
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
