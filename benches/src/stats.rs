//! Medians, their spread, and intervals that hold without assuming how noise is distributed.

/// Middle value; the mean of the two middle ones for an even count. `None` for no values.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The value below which the share `q` (0 to 1) of the values lies, interpolated. `None` for no values.
pub fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = q.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(low + (high - low) * place.fract())
}

/// How two contestants compare, from paired rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Best guess.
    pub value: f64,
    /// The 95% interval, or `None` when there were too few rounds (below 6) for one to exist.
    pub interval: Option<(f64, f64)>,
}

/// How `ours` stands against `reference` when both ran in the same rounds: above 1 we are larger.
///
/// The interval is that of the Wilcoxon signed-rank test on the logarithms of the round-by-round ratios,
/// exact for the number of rounds: a shared machine throws outliers, and a t interval would let one of them
/// widen all. Source: Hollander, Wolfe, "Nonparametric Statistical Methods", section 3.3.
///
/// Returns `None` when there is no round, the counts differ, or a value is not above zero.
pub fn paired_ratio(ours: &[f64], reference: &[f64]) -> Option<Estimate> {
    if ours.len() != reference.len() || ours.iter().chain(reference).any(|v| v.is_nan() || *v <= 0.0) {
        return None;
    }
    let logs = ours.iter().zip(reference).map(|(a, b)| (a / b).ln());
    let found = hodges_lehmann(&logs.collect::<Vec<f64>>())?;
    let interval = found.interval.map(|(low, high)| (low.exp(), high.exp()));
    Some(Estimate { value: found.value.exp(), interval })
}

/// By how much ours is more than the reference when both ran in the same rounds; otherwise as
/// [`paired_ratio`].
///
/// Returns `None` when there is no round, the counts differ, or a value is no number.
pub fn paired_difference(ours: &[f64], reference: &[f64]) -> Option<Estimate> {
    if ours.len() != reference.len() || ours.iter().chain(reference).any(|v| v.is_nan()) {
        return None;
    }
    hodges_lehmann(&ours.iter().zip(reference).map(|(a, b)| a - b).collect::<Vec<f64>>())
}

/// The median of the means of all pairs (the Walsh averages), and the interval of the signed-rank test.
fn hodges_lehmann(values: &[f64]) -> Option<Estimate> {
    let mut walsh = Vec::new();
    for (i, a) in values.iter().enumerate() {
        walsh.extend(values[i..].iter().map(|b| (a + b) / 2.0));
    }
    walsh.sort_by(f64::total_cmp);
    let value = median(&walsh)?;
    let interval = trimmed_each_side(values.len()).map(|k| (walsh[k], walsh[walsh.len() - 1 - k]));
    Some(Estimate { value, interval })
}

/// How many of the sorted Walsh averages fall outside a 95% interval on each side, or `None` where even
/// leaving out none covers less.
fn trimmed_each_side(n: usize) -> Option<usize> {
    // ways[s]: in how many of the 2^n sign patterns the positive ranks sum to s.
    let mut ways = vec![0.0_f64; n * (n + 1) / 2 + 1];
    ways[0] = 1.0;
    for rank in 1..=n {
        for sum in (rank..ways.len()).rev() {
            ways[sum] += ways[sum - rank];
        }
    }
    let total = (n as f64).exp2();
    let mut below = 0.0;
    let mut trimmed = None;
    for (sum, count) in ways.iter().enumerate() {
        below += count / total;
        if below > 0.025 {
            break;
        }
        trimmed = Some(sum);
    }
    trimmed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_small_sets() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.25), Some(2.0));
        assert_eq!(quantile(&[1.0, 2.0], 1.0), Some(2.0));
    }

    /// The two-sided 5% critical values that the textbooks print: reject when the signed-rank sum is at or
    /// below them.
    #[test]
    fn critical_values_are_the_tabled_ones() {
        for (n, critical) in
            [(5, None), (6, Some(0)), (7, Some(2)), (8, Some(3)), (9, Some(5)), (10, Some(8)), (15, Some(25))]
        {
            assert_eq!(trimmed_each_side(n), critical, "n = {n}");
        }
    }

    /// The example of Hollander and Wolfe (section 3.1, Hamilton's scale before and after): there the
    /// estimate is 0.46 and the interval of 96.1% 0.010 to 0.786.
    #[allow(clippy::approx_constant, reason = "somebody's score, not pi")]
    #[test]
    fn the_textbooks_example_comes_out_as_in_the_textbook() {
        let before = [1.83_f64, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30].map(f64::exp);
        let after = [0.878_f64, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29].map(f64::exp);
        let ratio = paired_ratio(&before, &after).unwrap();
        let (low, high) = ratio.interval.unwrap();
        for (found, printed) in [(ratio.value, 0.46), (low, 0.010), (high, 0.786)] {
            assert!((found.ln() - printed).abs() < 5e-4, "{} is not {printed}", found.ln());
        }
    }

    /// Whatever a round does to both of its members is gone from the ratio; pairs mixed up would show all of
    /// it.
    #[test]
    fn what_befalls_a_whole_round_does_not_count() {
        let noise = |i: u64| 1.0 + (crate::pattern::mix(i) % 1000) as f64 / 100.0;
        let reference: Vec<f64> = (0..12).map(noise).collect();
        let ours: Vec<f64> =
            reference.iter().zip([1.0, 1.02].iter().cycle()).map(|(a, b)| a * 1.3 * b).collect();
        let (low, high) = paired_ratio(&ours, &reference).unwrap().interval.unwrap();
        assert!(1.29 < low && high < 1.34, "{low} {high}");
        let mut mixed = ours.clone();
        mixed.rotate_left(1);
        let (low, high) = paired_ratio(&mixed, &reference).unwrap().interval.unwrap();
        assert!(high / low > 1.5, "{low} {high}");
    }

    #[test]
    fn a_constant_ratio_is_found_whatever_the_rounds_were_like() {
        let reference = [1.0, 7.0, 2.0, 9.0, 3.0, 5.0];
        let ours: Vec<f64> = reference.iter().map(|v| v * 1.5).collect();
        let ratio = paired_ratio(&ours, &reference).unwrap();
        let (low, high) = ratio.interval.unwrap();
        for x in [ratio.value, low, high] {
            assert!((x - 1.5).abs() < 1e-9);
        }
    }

    #[test]
    fn a_constant_difference_is_found_and_may_be_below_zero() {
        let reference = [1.0, 7.0, 2.0, 9.0, 3.0, 5.0, 0.0];
        let ours: Vec<f64> = reference.iter().map(|v| v - 0.5).collect();
        let found = paired_difference(&ours, &reference).unwrap();
        let (low, high) = found.interval.unwrap();
        for x in [found.value, low, high] {
            assert!((x + 0.5).abs() < 1e-9);
        }
        assert_eq!(paired_difference(&[f64::NAN], &[1.0]), None);
    }

    #[test]
    fn one_wild_round_of_ten_does_not_move_the_answer() {
        let reference = [1.0; 10];
        let mut ours = [1.1, 1.12, 1.09, 1.1, 1.11, 1.1, 1.08, 1.1, 1.13, 1.1];
        ours[4] = 50.0;
        let ratio = paired_ratio(&ours, &reference).unwrap();
        assert!((ratio.value - 1.1).abs() < 0.02, "{ratio:?}");
        assert!(ratio.interval.unwrap().0 > 1.05);
    }

    #[test]
    fn too_few_rounds_give_no_interval_and_bad_input_no_ratio() {
        assert_eq!(paired_ratio(&[2.0; 5], &[1.0; 5]).unwrap().interval, None);
        assert_eq!(paired_ratio(&[], &[]), None);
        assert_eq!(paired_ratio(&[1.0], &[1.0, 2.0]), None);
        assert_eq!(paired_ratio(&[1.0, 0.0], &[1.0, 2.0]), None);
    }

    /// Over made-up noise the interval must hold the true ratio about 95 times of 100.
    #[test]
    fn intervals_cover_the_truth() {
        let mut seed = 0;
        let mut noise = || {
            seed += 1;
            let unit = (crate::pattern::mix(seed) >> 11) as f64 / (1_u64 << 53) as f64;
            1.0 + 0.2 * (unit - 0.5)
        };
        let mut held = 0;
        for _ in 0..400 {
            let reference: Vec<f64> = (0..10).map(|_| noise()).collect();
            let ours: Vec<f64> = (0..10).map(|_| 1.25 * noise()).collect();
            let (low, high) = paired_ratio(&ours, &reference).unwrap().interval.unwrap();
            held += usize::from(low <= 1.25 && 1.25 <= high);
        }
        assert!((360..=400).contains(&held), "{held} of 400");
    }
}
