//! In turn, by weight, and smoothly: of weights 3 and 1, A A B A and not A A A B.

use super::candidate::Candidate;

/// The credit of each upstream. Its weight is added at each choice, and the sum of all weights is taken from
/// the chosen one, as nginx does it (ngx_http_upstream_round_robin.c: "smooth weighted round-robin").
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    credits: Vec<(u64, i64)>,
}

impl RoundRobin {
    /// The next of those that `may` be chosen.
    pub(super) fn next(
        &mut self,
        candidates: &[Candidate],
        may: impl Fn(&Candidate) -> bool,
    ) -> Option<usize> {
        let mut best: Option<(usize, usize)> = None;
        let mut total = 0;
        for (place, candidate) in candidates.iter().enumerate() {
            if candidate.weight == 0 || !may(candidate) {
                continue;
            }
            let own = self.credit_of(candidate.id);
            self.credits[own].1 += i64::from(candidate.weight);
            total += i64::from(candidate.weight);
            if best.is_none_or(|(_, best)| self.credits[own].1 > self.credits[best].1) {
                best = Some((place, own));
            }
        }
        let (place, own) = best?;
        self.credits[own].1 -= total;
        Some(place)
    }

    fn credit_of(&mut self, id: u64) -> usize {
        self.credits.iter().position(|(known, _)| *known == id).unwrap_or_else(|| {
            self.credits.push((id, 0));
            self.credits.len() - 1
        })
    }
}
