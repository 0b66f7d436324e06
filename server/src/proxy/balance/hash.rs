//! The same upstream for the same key, as far as its load allows: rendezvous hashing with bounded loads.
//!
//! Each upstream has a score for a key, and the highest wins (Thaler and Ravishankar, "A name-based mapping
//! scheme for rendezvous", 1996), with weights as -weight / ln(hash). When one goes, only its own keys move.
//! One that has a quarter more than its share is passed over for the next (Mirrokni, Thorup, Zadimoghaddam,
//! "Consistent hashing with bounded loads", 2016), so a heavy key does not overload it.

use super::candidate::Candidate;

/// What an upstream may have of its share before it is passed over, in percent.
const BOUND: u128 = 125;
/// What it may have in any case: where connections are few, one more is a large fraction.
const AT_LEAST: u128 = 10;

/// The place of the upstream for `key`.
pub(super) fn highest(candidates: &[Candidate], key: u64) -> Option<usize> {
    let weights: u128 = candidates.iter().map(|it| u128::from(it.weight)).sum();
    let loads: u128 = candidates.iter().map(|it| it.load as u128).sum::<u128>() + 1;
    let is_full = |it: &Candidate| {
        let bound = (loads * u128::from(it.weight) * BOUND).div_ceil(weights * 100).max(AT_LEAST);
        it.load as u128 + 1 > bound
    };
    let scored = |may: &dyn Fn(&Candidate) -> bool| {
        let best =
            |(place, it): (usize, &Candidate)| (it.weight > 0 && may(it)).then(|| (place, score(it, key)));
        candidates.iter().enumerate().filter_map(best).max_by(|a, b| a.1.total_cmp(&b.1)).map(|it| it.0)
    };
    scored(&|it| !is_full(it)).or_else(|| scored(&|_| true))
}

/// The score of an upstream for a key.
fn score(candidate: &Candidate, key: u64) -> f64 {
    let hash = mix(candidate.id ^ mix(key));
    // In (0, 1): ln(0) is infinite, and ln(1) is a divisor of 0.
    let unit = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(candidate.weight) / unit.ln()
}

/// Spreads the bits of a number (splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators").
pub(crate) fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}
