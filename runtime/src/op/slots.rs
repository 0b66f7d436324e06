//! The life of an operation, as a pure state machine: no kernel, no memory of the operation, and nothing of
//! what a waker does.
//!
//! Three parties speak of an operation: its **owner** (a future, or a socket for a multishot operation), the
//! **kernel**, and the **key** in the SQE's `user_data`. At each event the machine answers one question: who
//! still holds the operation's memory?
//!
//! | life | kernel may still speak | owner still waits | result |
//! |---|---|---|---|
//! | `InFlight` | yes | yes | not yet |
//! | `Answered` | yes (a notification is due) | yes | kept |
//! | `Ready` | no | yes | kept |
//! | `Lingering` | yes (a notification is due) | no | taken or given up |
//! | `Abandoned` | yes | no | not yet; a cancel was asked for |
//!
//! The sixth life is *vacant*: nobody holds anything. Only then is the memory given back and the index used
//! again, under a new generation. So a late CQE, or a cancel that crosses its completion, has a key that
//! matches nothing.
//!
//! The user of the machine keeps a value for each operation. A slot becomes vacant in one place only
//! (`Slots::vacate`), which first has the value taken out. The event that reports it carries the value. So no
//! code can run between the two and be given the same index.
//!
//! # Dropping
//!
//! | owner drops in | what happens |
//! |---|---|
//! | `InFlight` | `Abandoned`; the caller must send a cancel; memory stays until the final CQE |
//! | `Answered` | `Lingering`; the result is handed to whoever cleans up late results; memory stays until the notification |
//! | `Ready` | vacant at once; the result is handed to whoever cleans up late results |

// The path is given because fuzz/ includes this file from another place.
#[path = "slots/answers.rs"]
mod answers;
pub(crate) use answers::{Abandon, Event, Polled, Usual};

/// Bits of a key's index. The rest of its 56 bits are the generation.
const INDEX_BITS: u32 = 24;
/// Operations that can be in flight on one core at once.
pub(crate) const MAX_OPERATIONS: usize = 1 << INDEX_BITS;

/// Names one operation, while it lives and never again: 24 bits of index, 32 of generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// The index of the operation's memory.
    pub(crate) fn index(self) -> usize {
        self.index as usize
    }

    /// As the low 56 bits of a `user_data`.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.generation) << INDEX_BITS | u64::from(self.index)
    }

    /// From the low 56 bits of a `user_data`.
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32 & ((1 << INDEX_BITS) - 1), generation: (bits >> INDEX_BITS) as u32 }
    }
}

/// What the kernel answered: the CQE's `res` and `flags`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

/// How often an operation answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shots {
    /// One result, and for zero-copy sends one notification after it.
    Single,
    /// Any number of results, each handed to the owner's sink as it comes.
    Multi,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    InFlight,
    Answered(Outcome),
    Ready(Outcome),
    Lingering,
    Abandoned,
    /// With the slot that had become vacant before it, or [`NONE`].
    Vacant(u32),
}

/// No slot.
const NONE: u32 = u32::MAX;

struct Slot<W, X> {
    generation: u32,
    shots: Shots,
    life: Life,
    waker: Option<W>,
    extra: X,
}

/// All operations of a core. `W` is a waker. `X` is what the user keeps of each operation (its function
/// table, and where it lies).
///
/// A slot is changed where it lies: a slab of a crate takes it by value, which cost an operation 60
/// instructions.
pub(crate) struct Slots<W, X> {
    slots: Vec<Slot<W, X>>,
    /// The slot that became vacant last: the first of those that a list leads through.
    vacant: u32,
    /// Slots that are not vacant.
    len: usize,
    /// It wraps after 2^32 operations. That does no harm: only a cancel on its way still carries the key of
    /// an earlier operation. The ring takes cancels in the order in which they were pushed, so it comes
    /// thousands of operations later at most.
    next_generation: u32,
    /// Operations that the kernel may still post a CQE for.
    in_kernel: usize,
}

impl<W, X: Copy> Slots<W, X> {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let slots = Vec::with_capacity(capacity);
        Self { slots, vacant: NONE, len: 0, next_generation: 0, in_kernel: 0 }
    }

    /// Operations that are not vacant.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Operations that the kernel may still post a CQE for. Results that wait for their owners do not count.
    pub(crate) fn in_kernel(&self) -> usize {
        self.in_kernel
    }

    /// A new operation, `InFlight`, that `waker` waits for. `None` when there are [`MAX_OPERATIONS`]. `extra`
    /// is given its index, and what was kept of the last operation with the same one.
    #[inline(always)]
    pub(crate) fn submit(
        &mut self,
        shots: Shots,
        waker: Option<W>,
        extra: impl FnOnce(usize, Option<X>) -> X,
    ) -> Option<Key> {
        if self.len >= MAX_OPERATIONS {
            return None;
        }
        let (index, generation, life) = (self.vacant, self.next_generation, Life::InFlight);
        let key = match self.slots.get_mut(index as usize) {
            Some(slot) => {
                if let Life::Vacant(next) = slot.life {
                    self.vacant = next;
                }
                let extra = extra(index as usize, Some(slot.extra));
                *slot = Slot { generation, shots, life, waker, extra };
                Key { index, generation }
            }
            None => {
                let index = self.slots.len();
                self.slots.push(Slot { generation, shots, life, waker, extra: extra(index, None) });
                Key { index: index as u32, generation }
            }
        };
        self.next_generation = generation.wrapping_add(1);
        self.len += 1;
        self.in_kernel += 1;
        Some(key)
    }

    #[inline(always)]
    fn slot(&mut self, key: Key) -> Option<&mut Slot<W, X>> {
        self.slots.get_mut(key.index()).filter(|slot| slot.is(key))
    }

    /// Makes a slot vacant. Nothing else does. `take` takes the operation's value out of its place, before
    /// the index can be given out again.
    #[inline(always)]
    fn vacate<V>(&mut self, key: Key, take: impl FnOnce(usize, X) -> V) -> (V, Option<W>) {
        let slot = &mut self.slots[key.index()];
        let value = take(key.index(), slot.extra);
        slot.life = Life::Vacant(self.vacant);
        self.vacant = key.index;
        self.len -= 1;
        (value, slot.waker.take())
    }

    /// The two usual CQEs: the result of an operation whose owner waits, and one of many results after which
    /// more may come. Of all others it knows nothing, and changes nothing: they are for
    /// [`complete`](Self::complete).
    #[inline(always)]
    pub(crate) fn usual(
        &mut self,
        key: Key,
        outcome: Outcome,
        more: bool,
        notif: bool,
    ) -> Option<Usual<W, X>> {
        let slot = self.slots.get_mut(key.index()).filter(|slot| slot.is(key))?;
        match slot.shots {
            Shots::Multi if more => {
                Some(Usual::Item { extra: slot.extra, owned: slot.life == Life::InFlight })
            }
            Shots::Single if slot.life == Life::InFlight && !more && !notif => {
                slot.life = Life::Ready(outcome);
                let waker = slot.waker.take();
                self.in_kernel -= 1;
                Some(Usual::Wake(waker))
            }
            _ => None,
        }
    }

    /// A CQE came, with `more` (`F_MORE`) and `notif` (`F_NOTIF`) as its flags have them. `take` takes the
    /// operation's value out of its place, if this is its last CQE.
    pub(crate) fn complete<V>(
        &mut self,
        key: Key,
        outcome: Outcome,
        more: bool,
        notif: bool,
        take: impl FnOnce(usize, X) -> V,
    ) -> Event<W, X, V> {
        match self.usual(key, outcome, more, notif) {
            Some(Usual::Wake(waker)) => return Event::Wake(waker),
            Some(Usual::Item { extra, owned }) => return Event::Item { extra, owned },
            None => {}
        }
        let Some(slot) = self.slots.get_mut(key.index()).filter(|slot| slot.is(key)) else {
            return Event::Stale;
        };
        let extra = slot.extra;
        // `Ready` has had its last CQE already, so this one has the key of another.
        if !more && !matches!(slot.life, Life::Ready(_)) {
            self.in_kernel -= 1;
        }
        if slot.shots == Shots::Multi {
            let owned = slot.life == Life::InFlight;
            return Event::Last { value: self.vacate(key, take).0, owned };
        }
        match (slot.life, notif) {
            (Life::InFlight, false) => {
                slot.life = Life::Answered(outcome);
                Event::Wake(slot.waker.take())
            }
            (Life::Abandoned, false) => {
                let value = if more {
                    slot.life = Life::Lingering;
                    None
                } else {
                    Some(self.vacate(key, take).0)
                };
                Event::Late { extra, outcome, value }
            }
            (Life::Answered(kept), true) => {
                // The owner has not polled yet; its next poll gives it the memory.
                slot.life = Life::Ready(kept);
                Event::Notified { extra, waker: slot.waker.take() }
            }
            (Life::Lingering, true) => Event::Released { value: self.vacate(key, take).0 },
            // The kernel sends one result and at most one notification, in that order. Anything else is not
            // from this operation.
            (Life::InFlight | Life::Abandoned, true)
            | (Life::Answered(_) | Life::Lingering | Life::Ready(_) | Life::Vacant(_), _) => Event::Stale,
        }
    }

    /// The owner polls. When it has to wait, `waits` is shown the stored waker, and may want
    /// [another](Self::wake_by). `take` as for [`complete`](Self::complete).
    #[inline(always)]
    pub(crate) fn poll<V>(
        &mut self,
        key: Key,
        waits: impl FnOnce(Option<&W>),
        take: impl FnOnce(usize, X) -> V,
    ) -> Polled<V> {
        let Some(slot) = self.slot(key) else {
            unreachable!("an owner holds its operation: only it makes the slot vacant");
        };
        match slot.life {
            Life::Ready(outcome) => Polled::Done(outcome, self.vacate(key, take).0),
            Life::Answered(outcome) => {
                slot.life = Life::Lingering;
                Polled::Early(outcome)
            }
            Life::InFlight => {
                waits(slot.waker.as_ref());
                Polled::Pending
            }
            Life::Lingering | Life::Abandoned | Life::Vacant(_) => unreachable!("the owner left earlier"),
        }
    }

    /// The owner waits with another waker. The one before is returned, for the caller to drop when the
    /// machine is no longer borrowed: cloning or dropping a waker may run foreign code.
    pub(crate) fn wake_by(&mut self, key: Key, waker: W) -> Option<W> {
        match self.slot(key) {
            Some(slot) if slot.life == Life::InFlight => slot.waker.replace(waker),
            // Its owner has just been told to wait. If an answer has come meanwhile, nobody is to be woken,
            // and a slot that becomes vacant has no waker.
            _ => Some(waker),
        }
    }

    /// The owner gives up. `None` when the operation is over already (a multishot that had ended). Its waker
    /// is returned in `waker`: see [`wake_by`](Self::wake_by). `take` as for [`complete`](Self::complete).
    pub(crate) fn abandon<V>(
        &mut self,
        key: Key,
        waker: &mut Option<W>,
        take: impl FnOnce(usize, X) -> V,
    ) -> Option<Abandon<X, V>> {
        let slot = self.slot(key)?;
        let extra = slot.extra;
        *waker = slot.waker.take();
        match slot.life {
            Life::InFlight => {
                slot.life = Life::Abandoned;
                Some(Abandon::Cancel)
            }
            Life::Answered(outcome) => {
                slot.life = Life::Lingering;
                Some(Abandon::Late { extra, outcome, value: None })
            }
            Life::Ready(outcome) => {
                Some(Abandon::Late { extra, outcome, value: Some(self.vacate(key, take).0) })
            }
            Life::Lingering | Life::Abandoned | Life::Vacant(_) => None,
        }
    }

    /// Takes back an operation that never reached the kernel. Returns its value and its waker. `take` as for
    /// [`complete`](Self::complete).
    pub(crate) fn withdraw<V>(
        &mut self,
        key: Key,
        take: impl FnOnce(usize, X) -> V,
    ) -> Option<(V, Option<W>)> {
        self.slot(key)?;
        self.in_kernel -= 1;
        Some(self.vacate(key, take))
    }

    /// What the user keeps of each operation that is not vacant.
    pub(crate) fn all(&self) -> impl Iterator<Item = X> {
        self.slots.iter().filter(|slot| !slot.is_vacant()).map(|slot| slot.extra)
    }

    /// Any operation that is not vacant.
    pub(crate) fn any(&self) -> Option<Key> {
        let index = self.slots.iter().position(|slot| !slot.is_vacant())?;
        Some(Key { index: index as u32, generation: self.slots[index].generation })
    }

    /// What the user keeps of this operation, while it is not vacant.
    pub(crate) fn extra(&self, key: Key) -> Option<X> {
        self.slots.get(key.index()).filter(|slot| slot.is(key)).map(|slot| slot.extra)
    }
}

impl<W, X> Slot<W, X> {
    #[inline(always)]
    fn is_vacant(&self) -> bool {
        matches!(self.life, Life::Vacant(_))
    }

    /// Whether it is that of this operation.
    #[inline(always)]
    fn is(&self, key: Key) -> bool {
        self.generation == key.generation && !self.is_vacant()
    }
}

#[cfg(any(test, fuzzing))]
#[path = "slots/model.rs"]
pub(crate) mod model;
#[cfg(test)]
mod tests;
