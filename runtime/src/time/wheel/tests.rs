use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Key, NIL, Wheel};

#[test]
fn fires_at_the_deadline_and_not_before() {
    let mut wheel = Wheel::new(1_000);
    for deadline in [1_001, 1_063, 1_064, 5_000, 1 << 20, 1 << 45, u64::MAX] {
        wheel.insert(deadline, deadline);
        assert_eq!(wheel.next_expiry(), Some(deadline));
        assert_eq!(wheel.expire(deadline - 1), None);
        assert_eq!(wheel.next_expiry(), Some(deadline));
        assert_eq!(wheel.expire(deadline), Some(deadline));
        assert_eq!(wheel.expire(deadline), None);
        assert_eq!(wheel.next_expiry(), None);
    }
}

#[test]
fn a_deadline_in_the_past_is_due_at_once() {
    let mut wheel = Wheel::new(100);
    wheel.insert(100, 'a');
    wheel.insert(0, 'b');
    wheel.insert(101, 'c');
    assert_eq!(wheel.next_expiry(), Some(100));
    assert_eq!(wheel.expire(100), Some('a'));
    assert_eq!(wheel.expire(100), Some('b'));
    assert_eq!(wheel.expire(100), None);
    assert_eq!(wheel.next_expiry(), Some(101));
}

#[test]
fn the_last_one_within_reach_is_known() {
    let mut wheel = Wheel::new(1_000);
    assert_eq!(wheel.last_expiry(u64::MAX), None);
    for deadline in [1_010, 1_040, 1_070, 1_600, 90_000] {
        wheel.insert(deadline, deadline);
    }
    for (limit, last) in
        [(1_000, 1_010), (1_039, 1_010), (1_040, 1_040), (1_069, 1_040), (1_599, 1_070), (1_600, 1_600)]
    {
        assert_eq!(wheel.last_expiry(limit), Some(last), "up to {limit}");
    }
    assert_eq!(wheel.last_expiry(u64::MAX), Some(90_000));
    wheel.insert(999, 999);
    assert_eq!(wheel.last_expiry(1_000), Some(1_000), "due already");
    assert_eq!(wheel.last_expiry(1_050), Some(1_040));
}

#[test]
fn equal_deadlines_fire_in_the_order_of_insertion_whenever_they_were_inserted() {
    const DEADLINE: u64 = (3 << 18) + (5 << 6) + 7;
    let mut wheel = Wheel::new(0);
    let mut inserted = 0;
    // The later times share their upper digits with the deadline.
    for now in [0, 1 << 18, 3 << 18, (3 << 18) + (5 << 6), DEADLINE - 1] {
        assert_eq!(wheel.expire(now), None);
        for _ in 0..3 {
            wheel.insert(DEADLINE, inserted);
            inserted += 1;
        }
    }
    let fired: Vec<_> = std::iter::from_fn(|| wheel.expire(u64::MAX)).collect();
    assert_eq!(fired, (0..inserted).collect::<Vec<_>>());
}

#[test]
fn a_stale_key_does_nothing() {
    let mut wheel = Wheel::new(0);
    let a = wheel.insert(10, 'a');
    assert_eq!(wheel.get_mut(a), Some(&mut 'a'));
    assert_eq!(wheel.cancel(a), Some('a'));
    assert_eq!(wheel.cancel(a), None);
    let b = wheel.insert(20, 'b');
    assert_eq!(a.index, b.index, "the entry is used again");
    assert_eq!(wheel.get_mut(a), None);
    assert_eq!(wheel.cancel(a), None);
    assert_eq!(wheel.expire(20), Some('b'));
    assert_eq!(wheel.cancel(b), None);
    assert_eq!(wheel.cancel(Key { index: 77, generation: 0 }), None);
    assert!(wheel.is_empty());
}

#[test]
fn an_entry_out_of_generations_is_not_used_again() {
    let mut wheel = Wheel::new(0);
    let first = wheel.insert(1, 'a');
    wheel.entries[0].generation = u32::MAX;
    let last = Key { generation: u32::MAX, ..first };
    assert_eq!(wheel.cancel(last), Some('a'));
    assert_eq!(wheel.free, NIL);
    assert_eq!(wheel.get_mut(last), None);
    let next = wheel.insert(1, 'b');
    assert_ne!(next.index, last.index);
    assert_eq!(wheel.cancel(last), None);
}

#[test]
fn a_million_timers_come_and_go_without_growth() {
    const COUNT: u64 = 1_000_000;
    let mut wheel = Wheel::new(0);
    let mut keys: Vec<_> = (0..COUNT).map(|n| wheel.insert(n * 977 + 1, n)).collect();
    let capacity = wheel.entries.capacity();
    for (n, key) in keys.iter_mut().enumerate() {
        let n = n as u64;
        assert_eq!(wheel.cancel(*key), Some(n));
        *key = wheel.insert(n * 31 + 5, n);
    }
    assert_eq!(wheel.len() as u64, COUNT);
    assert_eq!(wheel.entries.len() as u64, COUNT);
    let mut fired = 0;
    while let Some(n) = wheel.expire(COUNT * 31) {
        assert_eq!(n, fired, "in the order of the deadlines");
        fired += 1;
    }
    assert_eq!(fired, COUNT);
    assert_eq!(wheel.entries.capacity(), capacity);
}

#[test]
fn time_does_not_go_back() {
    let mut wheel = Wheel::new(0);
    assert_eq!(wheel.expire(1_000), None);
    assert_eq!(wheel.expire(10), None);
    wheel.insert(500, 'a');
    assert_eq!(wheel.next_expiry(), Some(1_000));
    assert_eq!(wheel.expire(10), Some('a'));
}

#[derive(Clone, Debug)]
enum Step {
    /// A deadline this many ticks after the present.
    Insert(u64),
    /// A deadline this many ticks before it.
    InsertPast(u64),
    /// Any deadline.
    InsertAt(u64),
    /// The same deadline as the pending timer of this rank.
    InsertEqual(usize),
    /// Cancels the timer of this rank among all that ever were.
    Cancel(usize),
    /// Moves on by this many ticks.
    Advance(u64),
    /// Sleeps until the wheel says so.
    Sleep,
}

/// Spans of every size: as many of a few ticks as of centuries.
fn span() -> impl Strategy<Value = u64> {
    (0..64_u32, any::<u64>()).prop_map(|(bits, noise)| noise >> bits)
}

fn short() -> impl Strategy<Value = u64> {
    (40..64_u32, any::<u64>()).prop_map(|(bits, noise)| noise >> bits)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => short().prop_map(Step::Insert),
        2 => span().prop_map(Step::Insert),
        1 => span().prop_map(Step::InsertPast),
        1 => any::<u64>().prop_map(Step::InsertAt),
        2 => any::<usize>().prop_map(Step::InsertEqual),
        4 => any::<usize>().prop_map(Step::Cancel),
        3 => short().prop_map(Step::Advance),
        1 => (20..64_u32, any::<u64>()).prop_map(|(bits, noise)| Step::Advance(noise >> bits)),
        4 => Just(Step::Sleep),
    ]
}

/// What the wheel should be: pending timers by due time, then by insertion.
#[derive(Default)]
struct Model {
    now: u64,
    pending: BTreeMap<(u64, usize), ()>,
    /// The key and the due time of every timer that ever was.
    timers: Vec<(Key, u64)>,
    cancelled: bool,
}

impl Model {
    fn insert(&mut self, wheel: &mut Wheel<usize>, deadline: u64) {
        let number = self.timers.len();
        let due = deadline.max(self.now);
        self.timers.push((wheel.insert(deadline, number), due));
        self.pending.insert((due, number), ());
    }

    fn advance(&mut self, wheel: &mut Wheel<usize>, now: u64) {
        self.now = now;
        while let Some(number) = wheel.expire(now) {
            let ((due, expected), ()) = self.pending.pop_first().expect("more fired than were pending");
            assert!(due <= now, "early");
            assert_eq!(number, expected, "out of order");
        }
        assert!(self.pending.keys().next().is_none_or(|(due, _)| *due > now), "late");
    }

    fn check(&self, wheel: &Wheel<usize>) {
        assert_eq!(wheel.len(), self.pending.len());
        let first = self.pending.keys().next().map(|(due, _)| *due);
        let Some(next) = wheel.next_expiry() else {
            assert_eq!(first, None);
            return;
        };
        let first = first.expect("a time to wake without a timer");
        assert!(next <= first, "sleeping until then would be late");
        assert!(next > self.now || first == self.now, "waking for nothing without time going on");
        if !self.cancelled {
            assert_eq!(next, first, "exact as long as nothing was cancelled");
        }
        for slack in [0, 50, 5_000, u64::MAX] {
            let limit = next.saturating_add(slack);
            let last = wheel.last_expiry(limit).expect("some are pending");
            assert!((next..=limit).contains(&last), "{last} is not from {next} to {limit}");
            let due = |time| self.pending.range((time, 0)..=(time, usize::MAX)).next().is_some();
            assert!(last == next || due(last), "nothing is due at {last}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_sorted_map(start in span(), steps in prop::collection::vec(step(), 1..120)) {
        let mut wheel = Wheel::new(start);
        let mut model = Model { now: start, ..Model::default() };
        for step in steps {
            match step {
                Step::Insert(after) => {
                    let deadline = model.now.saturating_add(after);
                    model.insert(&mut wheel, deadline);
                }
                Step::InsertPast(before) => {
                    let deadline = model.now.saturating_sub(before);
                    model.insert(&mut wheel, deadline);
                }
                Step::InsertAt(deadline) => model.insert(&mut wheel, deadline),
                Step::InsertEqual(rank) => {
                    let count = model.pending.len().max(1);
                    if let Some((due, _)) = model.pending.keys().nth(rank % count).copied() {
                        model.insert(&mut wheel, due);
                    }
                }
                Step::Cancel(rank) => {
                    let number = rank % model.timers.len().max(1);
                    if let Some((key, due)) = model.timers.get(number).copied() {
                        let pending = model.pending.remove(&(due, number)).is_some();
                        assert_eq!(wheel.get_mut(key).copied(), pending.then_some(number));
                        assert_eq!(wheel.cancel(key), pending.then_some(number));
                        model.cancelled |= pending;
                    }
                }
                Step::Advance(by) => {
                    let now = model.now.saturating_add(by);
                    model.advance(&mut wheel, now);
                }
                Step::Sleep => {
                    if let Some(next) = wheel.next_expiry() {
                        model.advance(&mut wheel, next);
                    }
                }
            }
            model.check(&wheel);
        }
        // The caller sleeps on, and every timer left fires on its tick. Each costs at most one wake for each
        // level and one to fire.
        let mut wakes = 0;
        let most = model.pending.len() * 11;
        while let Some(next) = wheel.next_expiry() {
            let first = model.pending.keys().next().map(|(due, _)| *due);
            model.advance(&mut wheel, next);
            if Some(next) == first {
                continue;
            }
            wakes += 1;
            assert!(wakes <= most, "waking for nothing again and again");
        }
        assert!(model.pending.is_empty());
    }

    /// A caller that stops expiring in the middle, and inserts or cancels there, loses nothing.
    #[test]
    fn expiring_may_be_interrupted(
        deadlines in prop::collection::vec(short(), 1..60),
        more in prop::collection::vec((short(), any::<usize>()), 60),
        until in short(),
    ) {
        let mut wheel = Wheel::new(0);
        let mut keys = Vec::new();
        let mut open = BTreeMap::new();
        for deadline in deadlines {
            open.insert(keys.len(), deadline);
            keys.push(wheel.insert(deadline, keys.len()));
        }
        let mut more = more.into_iter();
        while let Some(number) = wheel.expire(until) {
            let deadline = open.remove(&number).expect("fired once");
            assert!(deadline <= until);
            if let Some((deadline, rank)) = more.next() {
                let cancelled = rank % keys.len();
                assert_eq!(wheel.cancel(keys[cancelled]).is_some(), open.remove(&cancelled).is_some());
                open.insert(keys.len(), deadline);
                keys.push(wheel.insert(deadline, keys.len()));
            }
        }
        assert!(open.values().all(|deadline| *deadline > until));
        assert_eq!(wheel.len(), open.len());
    }
}
