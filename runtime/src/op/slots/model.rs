//! A model of the machine. It knows who may still touch each operation's memory and whom the operation wakes.
//! Its parties are an owner, a kernel that keeps its rules, and a stranger that does not. Property tests and
//! the fuzzer run the machine beside it.

use std::collections::HashMap;

use super::{Abandon, Event, Key, Outcome, Polled, Shots, Slots};

/// The value of an operation, as it is taken out: its index, and the number of its operation.
fn value(index: usize, extra: u64) -> (usize, u64) {
    (index, extra)
}

/// For an operation that is over.
fn never(_: usize, _: u64) -> (usize, u64) {
    panic!("the value of an operation that is over was taken")
}

/// What the model knows of one operation.
#[derive(Debug, Clone)]
struct Model {
    shots: Shots,
    owner: bool,
    /// The kernel will still send a CQE.
    kernel: bool,
    /// The one result has been sent, and a notification is due.
    notif_due: bool,
    /// A result was sent, and neither taken by the owner nor cleaned up.
    result: Option<i32>,
    cancelled: bool,
    freed: bool,
    /// The waker that the machine keeps.
    waker: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Submit {
        multi: bool,
    },
    /// The kernel sends operation `pick`'s next CQE; `more` where it has a choice.
    Cqe {
        pick: usize,
        result: i32,
        more: bool,
    },
    Polled {
        pick: usize,
    },
    Drop {
        pick: usize,
    },
    /// A CQE under the key of an operation that is over.
    Stray {
        pick: usize,
        more: bool,
        notif: bool,
    },
}

/// Runs the machine beside the model.
#[derive(Default)]
struct World {
    keys: Vec<Key>,
    models: HashMap<Key, Model>,
    /// How many wakers were made. Each has its own number.
    wakers: u64,
}

impl World {
    fn pick(&self, pick: usize, wanted: impl Fn(&Model) -> bool) -> Option<Key> {
        let fit: Vec<_> = self.keys.iter().filter(|key| wanted(&self.models[key])).collect();
        (!fit.is_empty()).then(|| *fit[pick % fit.len()])
    }

    fn free(&mut self, key: Key) {
        let model = self.models.get_mut(&key).unwrap();
        assert!(!model.kernel, "{key:?} freed while the kernel may still speak of it");
        assert!(!model.freed, "{key:?} freed twice");
        model.freed = true;
    }

    fn apply(&mut self, slots: &mut Slots<u64, u64>, step: Step) {
        match step {
            Step::Submit { multi } => self.submit(slots, if multi { Shots::Multi } else { Shots::Single }),
            Step::Cqe { pick, result, more } => {
                let Some(key) = self.pick(pick, |m| m.kernel) else { return };
                self.cqe(slots, key, result, more);
            }
            Step::Polled { pick } => {
                let Some(key) = self.pick(pick, |m| m.owner && m.shots == Shots::Single) else { return };
                self.poll(slots, key);
            }
            Step::Drop { pick } => {
                let Some(key) = self.pick(pick, |m| m.owner) else { return };
                self.drop_owner(slots, key);
            }
            Step::Stray { pick, more, notif } => {
                let Some(key) = self.pick(pick, |m| m.freed) else { return };
                let stray = slots.complete(key, Outcome { result: 0, flags: 0 }, more, notif, never);
                assert_eq!(stray, Event::Stale);
                assert_eq!(slots.extra(key), None);
                assert_eq!(slots.abandon(key, &mut None, never), None);
            }
        }
        let alive = self.models.values().filter(|m| !m.freed).count();
        assert_eq!(slots.len(), alive, "an operation leaked or vanished");
        assert_eq!(slots.in_kernel(), self.models.values().filter(|m| m.kernel).count());
    }

    fn submit(&mut self, slots: &mut Slots<u64, u64>, shots: Shots) {
        let waker = (shots == Shots::Single).then(|| self.waker());
        let key = slots.submit(shots, waker, |_, _| self.keys.len() as u64).unwrap();
        assert_eq!(Key::from_bits(key.to_bits()), key);
        // No other living operation has the same memory.
        let mut alive = self.keys.iter().filter(|k| !self.models[k].freed);
        assert!(alive.all(|k| k.index() != key.index()), "memory of a living operation reused");
        let model = Model {
            shots,
            owner: true,
            kernel: true,
            notif_due: false,
            result: None,
            cancelled: false,
            freed: false,
            waker,
        };
        assert!(self.models.insert(key, model).is_none(), "{key:?} used twice");
        self.keys.push(key);
    }

    fn waker(&mut self) -> u64 {
        self.wakers += 1;
        self.wakers
    }

    fn poll(&mut self, slots: &mut Slots<u64, u64>, key: Key) {
        let mut kept = None;
        let polled = slots.poll(key, |waker| kept = waker.copied(), value);
        let model = self.models.get_mut(&key).unwrap();
        let Some(result) = model.result.take() else {
            assert_eq!((polled, kept), (Polled::Pending, model.waker));
            // Every other time the same task polls it.
            let other = self.waker();
            let model = self.models.get_mut(&key).unwrap();
            if other.is_multiple_of(2) {
                assert_eq!(slots.wake_by(key, other), model.waker.replace(other));
            }
            return;
        };
        let outcome = Outcome { result, flags: 0 };
        model.owner = false;
        if model.kernel {
            assert_eq!(polled, Polled::Early(outcome));
        } else {
            let name = self.keys.iter().position(|k| *k == key).unwrap() as u64;
            assert_eq!(polled, Polled::Done(outcome, (key.index(), name)));
            self.free(key);
        }
    }

    fn drop_owner(&mut self, slots: &mut Slots<u64, u64>, key: Key) {
        let mut waker = None;
        let abandoned = slots.abandon(key, &mut waker, value);
        let name = self.keys.iter().position(|k| *k == key).unwrap() as u64;
        let model = self.models.get_mut(&key).unwrap();
        assert_eq!(waker, model.waker.take(), "an owner goes and its waker stays");
        model.owner = false;
        match (model.result.take(), model.kernel) {
            (None, true) => {
                assert_eq!(abandoned, Some(Abandon::Cancel));
                model.cancelled = true;
            }
            (Some(result), kernel) => {
                let outcome = Outcome { result, flags: 0 };
                let value = (!kernel).then_some((key.index(), name));
                assert_eq!(abandoned, Some(Abandon::Late { extra: name, outcome, value }));
                if !kernel {
                    self.free(key);
                }
            }
            // A multishot that had ended: its slot is vacant.
            (None, false) => assert_eq!(abandoned, None),
        }
    }

    fn cqe(&mut self, slots: &mut Slots<u64, u64>, key: Key, result: i32, more: bool) {
        let name = self.keys.iter().position(|k| *k == key).unwrap() as u64;
        let model = self.models.get_mut(&key).unwrap();
        let (notif, owned) = (model.notif_due, model.owner);
        let more = more && !notif;
        let outcome = Outcome { result, flags: 0 };
        model.kernel = more;
        let event = slots.complete(key, outcome, more, notif, value);
        let last = (key.index(), name);
        if model.shots == Shots::Multi {
            if more {
                assert_eq!(event, Event::Item { extra: name, owned });
            } else {
                assert_eq!(event, Event::Last { value: last, owned });
                self.free(key);
            }
            return;
        }
        model.notif_due = more;
        match (notif, owned) {
            (false, true) => {
                assert_eq!(event, Event::Wake(model.waker.take()));
                model.result = Some(result);
            }
            (false, false) => {
                assert!(model.cancelled, "nobody cancelled it, but its owner is gone");
                assert_eq!(event, Event::Late { extra: name, outcome, value: (!more).then_some(last) });
                if !more {
                    self.free(key);
                }
            }
            (true, true) => assert_eq!(event, Event::Notified { extra: name, waker: model.waker.take() }),
            (true, false) => {
                assert_eq!(event, Event::Released { value: last });
                self.free(key);
            }
        }
    }
}

/// Runs the machine beside the model, step by step and then to the end of every operation.
///
/// # Panics
/// When the two differ.
pub(crate) fn check(steps: impl IntoIterator<Item = Step>) {
    let mut slots = Slots::with_capacity(4);
    let mut world = World::default();
    for step in steps {
        world.apply(&mut slots, step);
    }
    // What is left is brought to its end: owners give up, and the kernel posts its last CQE.
    for key in world.keys.clone() {
        if world.models[&key].owner {
            world.drop_owner(&mut slots, key);
        }
        while world.models[&key].kernel {
            world.cqe(&mut slots, key, -125, false);
        }
    }
    assert_eq!(slots.len(), 0, "operations leaked");
    assert!(world.models.values().all(|model| model.freed));
}
