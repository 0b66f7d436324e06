//! What the two peers of a connection are to do, drawn at random and told in the connection's first bytes.

use std::time::Duration;

/// How a peer ends its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// By an end, and it reads to the other's.
    Fin,
    /// By a reset, when what it has sent is acknowledged.
    Reset,
    /// By an end, and it reads nothing more: whatever still comes is refused.
    Close,
    /// By a reset, before it has sent anything. Clients only.
    Vanish,
}

/// What one peer is to do.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    /// Bytes that it sends, the first ones that tell the plan not among them.
    pub sends: u64,
    /// How it ends.
    pub tail: Tail,
    /// It rests for so long between two writes at most.
    pub pause: Duration,
}

/// What both are to do: the client, and the upstream.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Its number, and what the two streams are made of.
    pub seed: u64,
    /// Of each.
    pub scripts: [Script; 2],
}

/// Bytes that tell a plan.
pub(super) const TOLD: usize = 8 + 2 * 8;

const TAILS: [Tail; 4] = [Tail::Fin, Tail::Reset, Tail::Close, Tail::Vanish];

impl Plan {
    /// Any plan.
    pub fn draw(random: &mut Random) -> Plan {
        let mut script = |tails: u64| {
            let tail = match random.below(tails) {
                0..=5 => Tail::Fin,
                6 | 7 => Tail::Reset,
                8 | 9 => Tail::Close,
                _ => Tail::Vanish,
            };
            // A byte at least: that the other side has come is known by it.
            let sends = 1 + match random.below(10) {
                0 | 1 => 0,
                2..=6 => random.below(3000),
                7 | 8 => random.below(100_000),
                _ => random.below(2_000_000),
            };
            let pause = Duration::from_millis(if random.below(2) == 0 { 0 } else { random.below(60) });
            Script { sends, tail, pause }
        };
        let scripts = [script(11), script(10)];
        Plan { seed: random.next(), scripts }
    }

    /// It in bytes.
    pub fn tell(&self) -> [u8; TOLD] {
        let mut told = [0; TOLD];
        told[..8].copy_from_slice(&self.seed.to_le_bytes());
        for (script, into) in self.scripts.iter().zip(told[8..].chunks_exact_mut(8)) {
            let tail = TAILS.iter().position(|tail| *tail == script.tail).expect("one of them") as u64;
            let word = script.sends | tail << 32 | (script.pause.as_millis() as u64) << 40;
            into.copy_from_slice(&word.to_le_bytes());
        }
        told
    }

    /// What was told.
    pub fn hear(told: &[u8; TOLD]) -> Plan {
        let word = |at: usize| u64::from_le_bytes(told[at..at + 8].try_into().expect("eight bytes"));
        let script = |word: u64| Script {
            sends: word & 0xffff_ffff,
            tail: TAILS[(word >> 32 & 0xff) as usize],
            pause: Duration::from_millis(word >> 40),
        };
        Plan { seed: word(0), scripts: [script(word(8)), script(word(16))] }
    }

    /// The byte at `at` of the stream of peer `side`.
    pub fn byte(&self, side: usize, at: u64) -> u8 {
        let word = (at / 8 + self.seed + side as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (word ^ word >> 29).to_le_bytes()[(at % 8) as usize]
    }
}

/// Numbers that look random, the same ones for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From this seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it has no end")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number, below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
