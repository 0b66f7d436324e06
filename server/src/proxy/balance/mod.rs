//! Which upstream a connection is carried to: pure choices among those that are available.

mod candidate;
mod hash;
mod round_robin;

use clap::ValueEnum;

pub(super) use candidate::Candidate;
use hash::highest;
pub(super) use hash::mix;
use round_robin::RoundRobin;

/// How upstreams are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Balance {
    /// In turn, by weight.
    #[default]
    Roundrobin,
    /// The one with the fewest connections for its weight.
    Leastconn,
    /// The better of two that were drawn by weight.
    Random2,
    /// The same one for the same client address, unless it has too many.
    Hash,
    /// The first available one in the order given.
    First,
}

impl Balance {
    /// Whether a choice depends on how many connections each has.
    pub(crate) fn looks_at_loads(self) -> bool {
        matches!(self, Balance::Leastconn | Balance::Random2 | Balance::Hash)
    }
}

/// Chooses for one core.
#[derive(Debug)]
pub(crate) struct Balancer {
    how: Balance,
    round_robin: RoundRobin,
    random: u64,
}

impl Balancer {
    /// `seed` makes one core's draws differ from another's.
    pub(crate) fn new(how: Balance, seed: u64) -> Self {
        Self { how, round_robin: RoundRobin::default(), random: seed | 1 }
    }

    /// The place of the one to take. `key` is the client's address, hashed. `None` where none has a weight.
    pub(crate) fn choose(&mut self, candidates: &[Candidate], key: u64) -> Option<usize> {
        match self.how {
            Balance::First => candidates.iter().position(|candidate| candidate.weight > 0),
            Balance::Roundrobin => self.round_robin.next(candidates, |_| true),
            Balance::Leastconn => {
                let least = candidates.iter().filter(|it| it.weight > 0).min_by(|a, b| by_load(a, b))?;
                // Those with equal loads are chosen in turn.
                self.round_robin.next(candidates, |it| by_load(it, least).is_eq())
            }
            Balance::Random2 => {
                let (one, other) = (self.draw(candidates)?, self.draw(candidates)?);
                let is_better = by_load(&candidates[other], &candidates[one]).is_lt();
                Some(if is_better { other } else { one })
            }
            Balance::Hash => highest(candidates, key),
        }
    }

    /// One at random, by weight.
    fn draw(&mut self, candidates: &[Candidate]) -> Option<usize> {
        let total: u64 = candidates.iter().map(|it| u64::from(it.weight)).sum();
        // xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled".
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let random = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d);
        let mut left = ((u128::from(random) * u128::from(total)) >> 64) as u64;
        candidates.iter().position(|it| {
            let is_it = left < u64::from(it.weight);
            left = left.saturating_sub(it.weight.into());
            is_it
        })
    }
}

/// Which of two has the lower load for its weight, counting the connection that is to come. Without that one,
/// all idle ones would be equal.
fn by_load(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    let share = |it: &Candidate, other: &Candidate| (it.load as u128 + 1) * u128::from(other.weight);
    share(a, b).cmp(&share(b, a))
}

#[cfg(test)]
mod tests;
