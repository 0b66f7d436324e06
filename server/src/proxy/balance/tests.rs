use proptest::prelude::*;

use super::*;

fn candidates(weights: &[u32]) -> Vec<Candidate> {
    let of = |(id, &weight): (usize, &u32)| Candidate { id: mix(id as u64), weight, load: 0 };
    weights.iter().enumerate().map(of).collect()
}

/// How many of `n` connections each gets. With `keep` they stay.
fn spread(how: Balance, mut of: Vec<Candidate>, n: u64, keep: bool) -> Vec<usize> {
    let mut balancer = Balancer::new(how, 7);
    let mut got = vec![0; of.len()];
    for key in 0..n {
        let place = balancer.choose(&of, mix(key)).expect("one of them");
        got[place] += 1;
        of[place].load += usize::from(keep);
    }
    got
}

#[test]
fn turns_are_smooth() {
    let mut balancer = Balancer::new(Balance::Roundrobin, 1);
    let of = candidates(&[5, 1, 1]);
    let turns: Vec<usize> = (0..7).map(|_| balancer.choose(&of, 0).unwrap()).collect();
    assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn least_connections_fill_by_weight_and_take_turns() {
    assert_eq!(spread(Balance::Leastconn, candidates(&[2, 1, 1]), 400, true), [200, 100, 100]);
    // With no load all have their turn.
    assert_eq!(spread(Balance::Leastconn, candidates(&[1, 1]), 10, false), [5, 5]);
    let mut of = candidates(&[1, 1]);
    of[0].load = 3;
    assert_eq!(spread(Balance::Leastconn, of, 3, true), [0, 3]);
}

#[test]
fn the_first_is_the_first_that_can_be_had() {
    assert_eq!(spread(Balance::First, candidates(&[0, 1, 9]), 10, true), [0, 10, 0]);
}

/// Two choices keep the fullest near the average, where one choice does not.
#[test]
fn two_draws_keep_loads_near_each_other() {
    let got = spread(Balance::Random2, candidates(&[1; 50]), 5000, true);
    let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
    assert!(*most <= 106 && *least >= 90, "{least} to {most} for 100 each");
}

/// Seen to fail: with `key ^ id` in place of a mixed hash one upstream in three gets none.
#[test]
fn keys_spread_by_weight() {
    for weights in [&[1, 1, 1][..], &[3, 1], &[1; 20]] {
        let total: u32 = weights.iter().sum();
        let got = spread(Balance::Hash, candidates(weights), 20_000, false);
        for (got, weight) in got.iter().zip(weights) {
            let due = 20_000.0 * f64::from(*weight) / f64::from(total);
            assert!((*got as f64) > due * 0.85 && (*got as f64) < due * 1.15, "{got} for {due}");
        }
    }
}

/// Only the keys of the one that goes find another; all others stay where they are.
#[test]
fn one_that_goes_takes_only_its_own_keys() {
    let before = candidates(&[1; 10]);
    let mut after = before.clone();
    after[3].weight = 0;
    let mut balancer = Balancer::new(Balance::Hash, 1);
    let mut moved = 0;
    for key in 0..5000 {
        let [was, is] = [&before, &after].map(|of| balancer.choose(of, mix(key)).unwrap());
        assert!(was == is || was == 3, "key {key} went from {was} to {is}");
        moved += usize::from(was == 3);
    }
    assert!((350..650).contains(&moved), "{moved} of 5000 keys of one in ten");
}

/// Seen to fail: without the bound one upstream gets all.
#[test]
fn one_heavy_key_does_not_drown_its_upstream() {
    let mut of = candidates(&[1; 4]);
    let mut balancer = Balancer::new(Balance::Hash, 1);
    for _ in 0..400 {
        let place = balancer.choose(&of, 42).unwrap();
        of[place].load += 1;
    }
    assert!(of.iter().all(|it| it.load <= 126), "{of:?}");
}

proptest! {
    /// Whatever the loads and weights, one with a weight is chosen if there is any, and none without.
    #[test]
    fn one_is_chosen_whenever_one_can_be(
        of in prop::collection::vec((0..4_u32, 0..100_usize), 0..8), keys in prop::collection::vec(any::<u64>(), 1..20)
    ) {
        let of: Vec<Candidate> = of.into_iter().enumerate()
            .map(|(id, (weight, load))| Candidate { id: id as u64, weight, load }).collect();
        for how in Balance::value_variants() {
            let mut balancer = Balancer::new(*how, 3);
            for key in &keys {
                match balancer.choose(&of, *key) {
                    Some(place) => prop_assert!(of[place].weight > 0, "{how:?}"),
                    None => prop_assert!(of.iter().all(|it| it.weight == 0), "{how:?}"),
                }
            }
        }
    }

    /// In any run of turns each gets its share, give or take one for each upstream.
    #[test]
    fn round_robin_gives_shares(weights in prop::collection::vec(1..6_u32, 1..6), n in 0..200_u64) {
        let total: u32 = weights.iter().sum();
        let got = spread(Balance::Roundrobin, candidates(&weights), n, false);
        for (got, weight) in got.iter().zip(&weights) {
            let due = n as f64 * f64::from(*weight) / f64::from(total);
            prop_assert!((*got as f64 - due).abs() <= weights.len() as f64, "{got} for {due}");
        }
    }
}
