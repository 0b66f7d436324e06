//! The table of a core's operations: runs the [state machine](super::slots), keeps the memory in the
//! [arena](super::arena), and talks to the ring.
//!
//! All unsafe of operations is here: a cell holds a value of the type whose function table stands in its slot, from
//! [`OpTable::submit`] until the machine says that the slot is vacant.

use std::cell::RefCell;
use std::ptr::NonNull;
use std::task::Waker;

use io_uring::{opcode, squeue};

use super::arena::Arena;
use super::slots::{Abandon, Event, Key, Look, Outcome, Shots, Slots};
use super::{Multishot, Operation, Sqes};
use crate::contained::contained;
use crate::core::Core;
use crate::ring::user_data::Tag;
use crate::ring::{Cqe, Ring};

/// What to do with the untyped value in a cell.
struct Vtable {
    name: &'static str,
    /// Consumes the value with a result that nobody waits for. Single operations only.
    late: unsafe fn(NonNull<u8>, Outcome),
    /// Shows the value one of many results, and consumes it with the last. Multishot operations only.
    item: unsafe fn(NonNull<u8>, &Core, Outcome, bool, bool),
    /// Shows the value its notification. Single operations only.
    notified: unsafe fn(NonNull<u8>, &Core, Outcome),
    /// Shows the value its notification and consumes it. Single operations only.
    release: unsafe fn(NonNull<u8>, &Core, Outcome),
    /// Asks the value to make the kernel let go.
    hurry: unsafe fn(NonNull<u8>),
    /// A poll goes before it, and a cancel must find either.
    linked: bool,
}

struct Single<T>(T);

impl<T: Operation> Single<T> {
    const VTABLE: Vtable = Vtable {
        name: T::NAME,
        // A buffer of the application's own type may panic when it is dropped: whatever else the core does goes on.
        late: |cell, outcome| {
            // SAFETY: the caller passes a cell that holds a `T` and treats it as empty afterwards.
            let operation = unsafe { cell.cast::<T>().read() };
            contained(format_args!("what was left of an operation ({})", T::NAME), || {
                operation.late(outcome)
            });
        },
        item: |_, _, _, _, _| unreachable!("a single operation has no items"),
        // SAFETY: the caller passes a cell that holds a `T`; only shared references to it exist meanwhile.
        notified: |cell, core, outcome| unsafe { cell.cast::<T>().as_ref() }.notified(core, outcome),
        release: |cell, core, outcome| {
            // SAFETY: as for `late`.
            let operation = unsafe { cell.cast::<T>().read() };
            contained(format_args!("what was left of an operation ({})", T::NAME), || {
                operation.notified(core, outcome);
                drop(operation);
            });
        },
        // SAFETY: the caller passes a cell that holds a `T`; only shared references to it exist meanwhile.
        hurry: |cell| unsafe { cell.cast::<T>().as_ref() }.hurry(),
        linked: T::LINKED,
    };
}

struct Many<T>(T);

impl<T: Multishot> Many<T> {
    const VTABLE: Vtable = Vtable {
        name: T::NAME,
        late: |_, _| unreachable!("a multishot operation has items, not a late result"),
        item: |cell, core, outcome, owned, last| {
            if last {
                // SAFETY: the caller passes a cell that holds a `T` and treats it as empty afterwards.
                unsafe { cell.cast::<T>().read() }.item(core, outcome, owned, true);
            } else {
                // SAFETY: the caller passes a cell that holds a `T`; only shared references to it exist meanwhile.
                unsafe { cell.cast::<T>().as_ref() }.item(core, outcome, owned, false);
            }
        },
        notified: |_, _, _| unreachable!("a multishot operation has no notification"),
        release: |_, _, _| unreachable!("a multishot operation ends with its last item"),
        hurry: |_| {},
        linked: false,
    };
}

/// The operations of one core.
pub(crate) struct OpTable {
    slots: RefCell<Slots<Waker, &'static Vtable>>,
    /// The cells; what lies in one is described by the function table of the slot with the same index.
    arena: RefCell<Arena>,
}

/// Out of line, as all events of `tracing` are that a completion passes by.
#[cold]
fn stale(cqe: Cqe) {
    tracing::debug!("CQE for an operation that is over: {cqe:?}");
}

impl OpTable {
    /// An empty table with room for `capacity` operations before its states have to move.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { slots: RefCell::new(Slots::with_capacity(capacity)), arena: RefCell::new(Arena::new()) }
    }

    /// Where the first cells lie, for the report: what the kernel sees of operations.
    pub(crate) fn memory(&self) -> std::ops::Range<usize> {
        let first = self.arena.borrow_mut().cell(0).addr().get();
        first..first + super::arena::CHUNK_SIZE
    }

    /// Operations that are not vacant: also those whose result waits for its owner.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Operations of which the kernel may still speak.
    pub(crate) fn in_kernel(&self) -> usize {
        self.slots.borrow().in_kernel()
    }

    /// Submits a single operation on behalf of the task behind `waker`.
    pub(crate) fn submit<T: Operation>(&self, ring: &Ring, operation: T, waker: &Waker) -> Key {
        const { Arena::fits::<T>() }
        let (key, cell) = self.occupy(Shots::Single, Some(waker.clone()), &Single::<T>::VTABLE);
        let mut cell = cell.cast::<T>();
        // SAFETY: the cell is as large and aligned as a `T` (`fits`) and vacant: the slot is new.
        unsafe { cell.write(operation) };
        // A buffer of the application's own type may panic when it is asked for its bytes: nothing was submitted then.
        let withdraw = Withdraw { table: self, key, cell };
        // SAFETY: it was written just now, and `withdraw` looks at it only when this reference is gone.
        let operation = unsafe { cell.as_mut() };
        let sqes = operation.sqes();
        if operation.runs_on_iowq() {
            ring.counters().iowq_punts.add(1);
        }
        // A push panics only when the ring itself is broken (`Ring::push_all`). What the kernel knows is unknown then: the
        // operation stays in its cell.
        std::mem::forget(withdraw);
        // SAFETY: the operation promises that its entries point only to what it keeps, and it stays in its cell until
        // the machine makes the slot vacant, which it does only after the final CQE.
        unsafe { push(ring, key, sqes) };
        key
    }

    /// Submits a multishot operation.
    pub(crate) fn submit_multi<T: Multishot>(&self, ring: &Ring, operation: T) -> Key {
        const { Arena::fits::<T>() }
        let (key, cell) = self.occupy(Shots::Multi, None, &Many::<T>::VTABLE);
        // SAFETY: as in `submit`.
        let sqes = unsafe {
            cell.cast::<T>().write(operation);
            cell.cast::<T>().as_mut()
        }
        .sqes();
        // SAFETY: as in `submit`.
        unsafe { push(ring, key, sqes) };
        key
    }

    fn occupy(&self, shots: Shots, waker: Option<Waker>, vtable: &'static Vtable) -> (Key, NonNull<u8>) {
        let key = self.slots.borrow_mut().submit(shots, waker, vtable);
        // 16.7 million operations in flight on one core would need 4 GiB of cells: memory ends first.
        let key = key.expect("fewer than MAX_OPERATIONS in flight on one core");
        (key, self.arena.borrow_mut().cell(key.index()))
    }

    /// The owner's look at its operation.
    pub(crate) fn look(&self, key: Key, waker: &Waker) -> Look {
        let mut moved = false;
        let look = self.slots.borrow_mut().look(key, |kept| {
            moved = !kept.is_some_and(|kept| kept.will_wake(waker));
        });
        if moved {
            // Cloned before the table is borrowed, and the old one dropped after: either may run code that uses the table.
            let waker = waker.clone();
            let old = self.slots.borrow_mut().wake_by(key, waker);
            drop(old);
        }
        look
    }

    /// Takes a finished operation out of its cell.
    ///
    /// # Safety
    /// `key` was submitted as a `T`, and [`look`](Self::look) has just said [`Look::Done`] for it.
    pub(crate) unsafe fn take<T: Operation>(&self, key: Key) -> T {
        let cell = self.arena.borrow_mut().cell(key.index());
        // SAFETY: the caller's promise; the slot is vacant, so nobody else will look into this cell before it is
        // written anew, and that can only happen through `submit` on this thread.
        unsafe { cell.cast::<T>().read() }
    }

    /// The owner of `key` goes without waiting: cancels, and cleans up what had already come.
    pub(crate) fn abandon(&self, ring: &Ring, key: Key) {
        let mut waker = None;
        let abandoned = self.slots.borrow_mut().abandon(key, &mut waker);
        drop(waker);
        match abandoned {
            None => {}
            Some(Abandon::Cancel) => self.cancel(ring, key),
            Some(Abandon::Late { extra, outcome, last }) => self.late(key, extra, outcome, last),
        }
    }

    /// Asks the kernel to give up on an operation whose owner stays: a multishot that is to end.
    pub(crate) fn cancel(&self, ring: &Ring, key: Key) {
        // Interrupting a running operation is not an error, nor is missing one that has just completed: what became
        // of it is told by its own CQE. A full submission queue is flushed by the push: no cancel is lost.
        let cancel = |target| {
            let entry = opcode::AsyncCancel::new(target)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(Tag::Cancel.with(key.to_bits()));
            // SAFETY: a cancel points to nothing.
            unsafe { ring.push(&entry) };
        };
        let linked = self.slots.borrow().extra(key).is_some_and(|vtable| vtable.linked);
        if linked {
            cancel(Tag::LinkHead.with(key.to_bits()));
        }
        cancel(Tag::Op.with(key.to_bits()));
    }

    /// The kernel's word on an operation of this table.
    pub(crate) fn complete(&self, core: &Core, bits: u64, cqe: Cqe) {
        let key = Key::from_bits(bits);
        let outcome = Outcome { result: cqe.result, flags: cqe.flags };
        let event = self.slots.borrow_mut().complete(key, outcome, cqe.more(), cqe.notif());
        match event {
            Event::Wake(Some(waker)) => waker.wake(),
            Event::Wake(None) => {}
            Event::Stale => stale(cqe),
            Event::Item { extra, owned, last } => {
                let cell = self.arena.borrow_mut().cell(key.index());
                // SAFETY: the cell holds the value that belongs to this function table. With the last item the machine
                // has made the slot vacant, and the function takes the value out before it runs anything that could
                // submit anew and be given the same cell.
                unsafe { (extra.item)(cell, core, outcome, owned, last) };
            }
            Event::Late { extra, outcome, last } => self.late(key, extra, outcome, last),
            Event::Notified { extra, waker } => {
                let cell = self.arena.borrow_mut().cell(key.index());
                // SAFETY: the cell holds the value that belongs to this function table until its owner takes it.
                unsafe { (extra.notified)(cell, core, outcome) };
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Event::Released { extra } => {
                let cell = self.arena.borrow_mut().cell(key.index());
                // SAFETY: the machine has just made the slot vacant, and the function takes the value out first.
                unsafe { (extra.release)(cell, core, outcome) };
            }
        }
    }

    #[cold]
    fn late(&self, key: Key, vtable: &'static Vtable, outcome: Outcome, last: bool) {
        tracing::trace!(operation = vtable.name, result = outcome.result, "result after its owner had gone");
        if last {
            let cell = self.arena.borrow_mut().cell(key.index());
            // SAFETY: the machine has just made the slot vacant, and the function takes the value out first.
            unsafe { (vtable.late)(cell, outcome) };
        }
        // Otherwise a notification is still due and the memory stays; a byte count brings nothing to clean up.
    }

    /// Asks every operation to make the kernel let go of it. For the end of the core: futures are gone, nothing submits.
    pub(crate) fn hurry(&self) {
        let all: Vec<_> = self.slots.borrow().all().collect();
        for (index, vtable) in all {
            let cell = self.arena.borrow_mut().cell(index);
            // SAFETY: the slot is not vacant, so its cell holds the value that belongs to this function table, and what is
            // called submits nothing and reaps nothing.
            unsafe { (vtable.hurry)(cell) };
        }
    }

    /// Gives up the memory of all operations that the kernel has not given back, for ever.
    pub(crate) fn leak(&self) {
        self.arena.borrow_mut().leak();
        let mut slots = self.slots.borrow_mut();
        std::mem::forget(std::mem::replace(&mut *slots, Slots::with_capacity(0)));
    }
}

/// Takes an operation back if its SQE could not be made: the kernel has not heard of it.
struct Withdraw<'a, T: Operation> {
    table: &'a OpTable,
    key: Key,
    /// Holds the operation.
    cell: NonNull<T>,
}

impl<T: Operation> Drop for Withdraw<'_, T> {
    #[cold]
    fn drop(&mut self) {
        // SAFETY: the cell holds a `T` (`submit`), and nobody looks into it before the slot, which is made vacant now, is
        // given out again.
        let operation = unsafe { self.cell.read() };
        let waker = self.table.slots.borrow_mut().withdraw(self.key);
        // This thread is panicking: a second panic that left here would end the process.
        contained(format_args!("what was left of an operation ({})", T::NAME), || drop(operation));
        contained(format_args!("the waker of an operation ({})", T::NAME), || drop(waker));
    }
}

/// Pushes an operation's SQEs under its key.
///
/// # Safety
/// What the entries point to stays in place until the operation's final CQE.
unsafe fn push(ring: &Ring, key: Key, sqes: Sqes) {
    let main = sqes.main.user_data(Tag::Op.with(key.to_bits()));
    match sqes.after {
        // SAFETY: the caller's promise.
        None => unsafe { ring.push(&main) },
        Some(head) => {
            let head = head
                .flags(squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS)
                .user_data(Tag::LinkHead.with(key.to_bits()));
            // SAFETY: the caller's promise.
            unsafe { ring.push_all(&[head, main]) }
        }
    }
}
