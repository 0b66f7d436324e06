//! Random interleavings of an owner, a kernel that keeps its rules, and a stranger that does not, against a
//! model. The model knows who may still touch each operation's memory and whom the operation wakes.
//!
//! Seen to fail: with an answer that wakes nobody, with the waker of an owner that has gone left in its slot,
//! and with a slot that is made vacant while its value stays.

use proptest::prelude::*;

use super::model::{Step, check};
use super::{Key, Polled, Shots, Slots};

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => any::<bool>().prop_map(|multi| Step::Submit { multi }),
        6 => (any::<usize>(), -5..100i32, any::<bool>()).prop_map(|(pick, result, more)| Step::Cqe { pick, result, more }),
        4 => any::<usize>().prop_map(|pick| Step::Polled { pick }),
        2 => any::<usize>().prop_map(|pick| Step::Drop { pick }),
        1 => (any::<usize>(), any::<bool>(), any::<bool>()).prop_map(|(pick, more, notif)| Step::Stray { pick, more, notif }),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_is_freed_once_and_only_when_the_kernel_is_done(steps in steps()) {
        check(steps);
    }
}

/// Seen to fail: with the slot removed and its waker dropped there.
#[test]
fn what_is_withdrawn_gives_its_waker_back() {
    let mut slots: Slots<u64, ()> = Slots::with_capacity(1);
    let [kept, withdrawn] = [1, 2].map(|waker| slots.submit(Shots::Single, Some(waker), |_, _| ()).unwrap());
    let index = |index, ()| index;
    assert_eq!(slots.withdraw(withdrawn, index), Some((withdrawn.index(), Some(2))));
    assert_eq!((slots.withdraw(withdrawn, index), slots.len(), slots.in_kernel()), (None, 1, 1));
    assert_eq!(slots.wake_by(withdrawn, 3), Some(3), "nobody waits for it");
    assert_eq!(slots.poll(kept, |waker| assert_eq!(waker, Some(&1)), index), Polled::Pending);
}

#[test]
fn a_key_keeps_its_bits_and_no_more_than_56() {
    let mut slots: Slots<(), ()> = Slots::with_capacity(1);
    slots.next_generation = u32::MAX;
    let last = slots.submit(Shots::Multi, None, |_, _| ()).unwrap();
    let first = slots.submit(Shots::Multi, None, |_, _| ()).unwrap();
    assert_eq!(Key::from_bits(last.to_bits()), last);
    assert_ne!(last.generation, first.generation);
    assert!(last.to_bits() >> 56 == 0);
}
