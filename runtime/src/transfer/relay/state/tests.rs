//! The state machine against a model of two connections: any interleaving of reads, writes, closes and errors
//! on the four halves.

use proptest::prelude::*;

use super::*;

/// How the bytes of a side end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    Fin,
    Reset,
    /// They never end.
    Never,
}

/// A peer: how many bytes it sends, how they end, and how many it takes before it refuses more.
#[derive(Debug, Clone, Copy)]
struct Peer {
    sends: u64,
    tail: Tail,
    takes: u64,
}

/// A step of the model for one direction: it takes or gives up to this many bytes.
#[derive(Debug, Clone, Copy)]
struct Turn {
    d: Side,
    at_most: u64,
}

/// What a peer has seen of the relay.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    bytes: u64,
    end: bool,
    reset: bool,
}

struct Model {
    peers: [Peer; 2],
    sent: [u64; 2],
    discarded: [u64; 2],
    seen: [Seen; 2],
    /// The result of what the kernel was asked to give, before it is reported; `None` in it means refused.
    answers: [Option<Option<u64>>; 2],
    /// Whether the kernel has reported the reset of a side, to bytes that it was asked to give to it.
    told: [bool; 2],
    state: State,
}

impl Model {
    fn new(peers: [Peer; 2]) -> Self {
        let state = State::new();
        let seen = [Seen::default(); 2];
        Self { peers, sent: [0; 2], discarded: [0; 2], seen, answers: [None; 2], told: [false; 2], state }
    }

    /// Whether the peer's connection was reset, so that it takes nothing more. A relay learns that when it
    /// reads or writes.
    fn is_dead(&self, side: Side) -> bool {
        self.peers[side].tail == Tail::Reset && self.sent[side] == self.peers[side].sends
    }

    fn turn(&mut self, Turn { d, at_most }: Turn) {
        let target = 1 - d;
        match self.state.next(d) {
            Step::Carry if self.answers[d].is_some() => self.answer(d),
            Step::Settle => self.answer(d),
            // The source's end may be known before all that it has sent is given.
            Step::Carry
                if at_most % 3 == 0 && self.state.may_take(d) && self.sent[d] == self.peers[d].sends =>
            {
                self.tail(d);
            }
            Step::Carry if self.state.held(d) > 0 => {
                let n = at_most.min(self.state.held(d));
                let is_refused =
                    self.is_dead(target) || self.seen[target].bytes + n > self.peers[target].takes;
                self.told[target] |= self.is_dead(target);
                let n = (!is_refused).then_some(n);
                self.seen[target].bytes += n.unwrap_or(0);
                self.answers[d] = Some(n);
                self.state.asked(d, true);
                // A call on the core has its result at once.
                if at_most % 2 == 0 {
                    self.answer(d);
                }
            }
            Step::Carry => {
                assert!(self.state.may_take(d), "it would spin");
                let n = at_most.min(self.peers[d].sends - self.sent[d]);
                self.sent[d] += n;
                if n > 0 {
                    self.state.took(d, n);
                } else {
                    self.tail(d);
                }
            }
            Step::Shut => {
                assert!(!self.seen[target].end, "told twice");
                if self.is_dead(target) {
                    self.state.refused(target);
                } else {
                    self.seen[target].end = true;
                    self.state.shut(target);
                }
            }
            Step::Discard => {
                let n = at_most.min(self.peers[d].sends - self.sent[d]);
                self.sent[d] += n;
                self.discarded[d] += n;
                if n == 0 {
                    self.tail(d);
                }
            }
            Step::Rest => {}
        }
        for side in [0, 1] {
            if self.state.awaits_acknowledgement(side) {
                self.state.has_acknowledged(side);
            }
        }
    }

    fn answer(&mut self, d: Side) {
        match self.answers[d].take().expect("it was asked") {
            Some(n) => self.state.gave(d, n),
            None => self.state.refused(1 - d),
        }
        self.state.asked(d, false);
    }

    /// The relay finds the end of a peer. That of a reset that was reported already looks orderly, unless the
    /// relay looks closely.
    fn tail(&mut self, d: Side) {
        match self.peers[d].tail {
            Tail::Fin => self.state.ended(d),
            Tail::Reset
                if self.told[d] && self.answers[1 - d].is_some() && !self.state.may_have_failed(d) =>
            {
                self.state.ended(d);
            }
            Tail::Reset => self.state.cut(d),
            Tail::Never => {}
        }
    }

    fn end(&mut self) {
        for side in [0, 1] {
            self.seen[side].reset = self.state.is_to_be_reset(side);
        }
    }
}

fn peer() -> impl Strategy<Value = Peer> {
    let tail = prop_oneof![3 => Just(Tail::Fin), 2 => Just(Tail::Reset), 1 => Just(Tail::Never)];
    let takes = prop_oneof![2 => Just(u64::MAX), 1 => 0..40_u64];
    (0..40_u64, tail, takes).prop_map(|(sends, tail, takes)| Peer { sends, tail, takes })
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    prop::collection::vec((0..2_usize, 1..20_u64).prop_map(|(d, at_most)| Turn { d, at_most }), 0..60)
}

proptest! {
    /// Seen to fail: with a reset in place of the wait for held bytes; with `Discard` only until the target
    /// refuses; with the result of what was asked not waited for; with an end that is believed while what was
    /// asked has no result.
    #[test]
    fn every_byte_and_every_kind_of_end_is_accounted_for(peers in [peer(), peer()], turns in turns()) {
        let mut model = Model::new(peers);
        for turn in turns {
            model.turn(turn);
        }
        // Afterwards both directions are stepped until nothing is left to do.
        for i in 0..400 {
            model.turn(Turn { d: i % 2, at_most: 7 });
        }
        model.end();
        let state = &model.state;
        for (x, y) in [(0, 1), (1, 0)] {
            let (source, target, seen) = (peers[x], peers[y], model.seen[y]);
            prop_assert!(seen.bytes <= source.sends);
            let is_refused = state.output[y] == Output::Refused;
            // Only bytes that the target refuses are lost, whatever happens to the other direction.
            if !is_refused && source.tail != Tail::Never {
                prop_assert!(seen.bytes == source.sends, "{x} sent {} and {y} got {}", source.sends, seen.bytes);
            }
            // An orderly end is told as one, after the last byte, and never in place of a reset.
            prop_assert!(!seen.end || source.tail == Tail::Fin && seen.bytes == source.sends);
            if source.tail == Tail::Reset && !is_refused {
                prop_assert!(seen.reset && !seen.end, "the reset of {x} is not passed on");
            }
            // A side that lost bytes is told.
            if target.takes < source.sends && source.tail != Tail::Never && state.input[y] != Input::Cut {
                prop_assert!(model.seen[x].reset, "{x} does not learn that {y} refused its bytes");
            }
            // If both are orderly, neither is reset.
            if [source, target].iter().all(|p| p.tail == Tail::Fin && p.takes == u64::MAX) {
                prop_assert!(seen.end && !seen.reset);
            }
        }
        // It ends, unless a peer sends for ever: a deadline ends that.
        if peers.iter().all(|p| p.tail != Tail::Never) {
            prop_assert!(state.is_done(), "{state:?}");
        }
        if state.is_done() {
            prop_assert!((0..2).all(|d| state.held(d) == 0 || state.output[1 - d] == Output::Refused));
            // Bytes that the kernel has given are counted, whatever has happened to the target meanwhile.
            prop_assert!((0..2).all(|d| state.given(d) == model.seen[1 - d].bytes));
        }
    }
}

#[test]
fn an_answer_is_not_lost_to_a_refused_upload() {
    // The upstream (1) answers with ten bytes and refuses the upload; the client (0) goes on sending.
    let client = Peer { sends: 1000, tail: Tail::Never, takes: u64::MAX };
    let upstream = Peer { sends: 10, tail: Tail::Fin, takes: 5 };
    let mut model = Model::new([client, upstream]);
    for i in 0..100 {
        model.turn(Turn { d: i % 2, at_most: 6 });
    }
    model.end();
    assert_eq!(model.seen[0].bytes, 10);
    assert!(model.seen[0].end && model.seen[0].reset, "the whole answer, and then the loss");
    assert!(model.state.is_done() && model.discarded[0] > 0);
}
