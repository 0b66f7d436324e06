//! The table of a core's operations: runs the [state machine](super::slots), keeps the memory in the
//! [arena](super::arena), and talks to the ring.
//!
//! All unsafe code of operations is here, and in [`untyped`](super::untyped), which it calls. From
//! [`OpTable::submit`] until the machine makes the slot vacant, a cell holds a value of the type whose
//! function table is in its slot. In the step that makes the slot vacant, the value is moved out. So no
//! foreign code (a waker, a destructor, a subscriber of `tracing`) can run between the two and be given the
//! cell.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::task::Waker;

use io_uring::{opcode, squeue};

use super::arena::Arena;
use super::slots::{Abandon, Event, Key, Outcome, Polled, Shots, Slots, Usual};
use super::untyped::{Left, Many, Single, ValueSpace, Vtable};
use super::waits_for::WaitsFor;
use super::{Multishot, Operation, Sqes};
use crate::contained::{contained, told};
use crate::ring::user_data::Tag;
use crate::ring::{Cqe, Ring};

/// The operations of one core. `C` is the context that answers of multishot operations are handled with: the
/// core, which this folder does not know.
pub(crate) struct OpTable<C: 'static> {
    slots: RefCell<Slots<Waker, Placed<C>>>,
    /// The cells. The function table of the slot with the same index describes what is in a cell.
    arena: RefCell<Arena>,
}

/// Where an operation lies, and how it is treated: what is in the cell is of the function table's type.
struct Placed<C: 'static> {
    vtable: &'static Vtable<C>,
    cell: NonNull<u8>,
}

impl<C> Clone for Placed<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Placed<C> {}

const ITS_WAKER: &str = "the destructor of an operation's waker";

/// Out of line, as are all `tracing` events on the path of a completion.
#[cold]
fn stale(cqe: Cqe) {
    tracing::debug!("CQE for an operation that is over: {cqe:?}");
}

impl<C> OpTable<C> {
    /// An empty table. Its states do not move before there are more than `capacity` operations.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { slots: RefCell::new(Slots::with_capacity(capacity)), arena: RefCell::new(Arena::new()) }
    }

    /// The memory of the first cells, which the kernel accesses, for the report.
    pub(crate) fn memory(&self) -> std::ops::Range<usize> {
        let first = self.arena.borrow_mut().cell(0, 0).addr().get();
        first..first + super::arena::CHUNK_SIZE
    }

    /// Operations that are not vacant, including those whose result waits for its owner.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn len(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Operations that the kernel may still post a CQE for.
    pub(crate) fn in_kernel(&self) -> usize {
        self.slots.borrow().in_kernel()
    }

    /// Submits a single operation on behalf of the task behind `waker`.
    pub(crate) fn submit<T: Operation>(&self, ring: &Ring, operation: T, waker: &Waker) -> Key {
        const { Arena::fits::<T>() }
        let waker = Some(waker.clone());
        let (key, cell) = self.occupy(Shots::Single, waker, &Single::<T, C>::VTABLE);
        let mut cell = cell.cast::<T>();
        // SAFETY: the cell is as large and aligned as a `T` (`fits`) and vacant: the slot is new.
        unsafe { cell.write(operation) };
        // A buffer of the application's own type may panic when it is asked for its bytes. Nothing was
        // submitted in that case.
        let withdraw = Withdraw { table: self, key, cell };
        // SAFETY: it was written just now, and `withdraw` accesses it only when this reference is gone.
        let operation = unsafe { cell.as_mut() };
        let sqes = operation.sqes();
        if operation.runs_on_iowq() {
            ring.counters().iowq_punts.add(1);
        }
        // A push panics only when the ring itself is broken (`Ring::push_all`). What the kernel knows is then
        // unknown, so the operation stays in its cell.
        std::mem::forget(withdraw);
        // SAFETY: the operation promises that its entries point only to what it keeps. It stays in its cell
        // until the machine makes the slot vacant, which happens only after the final CQE.
        unsafe { push(ring, key, sqes) };
        key
    }

    /// Submits a multishot operation.
    pub(crate) fn submit_multi<T: Multishot<C>>(&self, ring: &Ring, operation: T) -> Key {
        const { Arena::fits::<T>() }
        // What answers many times is under way for long, and many connections have one.
        const { Arena::is_small::<T>() }
        let (key, cell) = self.occupy(Shots::Multi, None, &Many::<T, C>::VTABLE);
        let mut cell = cell.cast::<T>();
        // SAFETY: as in `submit`.
        let sqes = unsafe {
            cell.write(operation);
            cell.as_mut()
        }
        .sqes();
        // SAFETY: as in `submit`.
        unsafe { push(ring, key, sqes) };
        key
    }

    /// A new slot, and its cell for an operation of the type of `vtable`.
    #[inline(always)]
    fn occupy(&self, shots: Shots, waker: Option<Waker>, vtable: &'static Vtable<C>) -> (Key, NonNull<u8>) {
        let mut cell = NonNull::dangling();
        let key = self.slots.borrow_mut().submit(shots, waker, |index, before| {
            // The same cell as for the last operation of this index, if that one was as small or as large.
            cell = match before {
                Some(before) if Arena::share_cells(before.vtable.size, vtable.size) => before.cell,
                _ => self.arena.borrow_mut().cell(index, vtable.size),
            };
            Placed { vtable, cell }
        });
        // 16.7 million operations in flight on one core would need a GiB of cells at least.
        (key.expect("fewer than MAX_OPERATIONS in flight on one core"), cell)
    }

    /// The function that the machine calls when it makes the slot of `index` vacant.
    fn left<'a>(space: &'a mut ValueSpace) -> impl FnOnce(usize, Placed<C>) -> Left<'a, C> {
        // SAFETY: the cell holds a value of this function table's type, and the machine makes its slot vacant
        // in this step.
        |_, placed| unsafe { Left::out_of(placed.cell, placed.vtable, space) }
    }

    /// The owner polls its operation. If it is over, the operation is returned.
    ///
    /// # Safety
    /// `key` was submitted as a `T`.
    #[inline(always)]
    pub(crate) unsafe fn poll<T: Operation>(&self, key: Key, waker: &Waker) -> Polled<T> {
        let mut moved = false;
        let waits = |kept: Option<&Waker>| moved = !kept.is_some_and(|kept| kept.will_wake(waker));
        // The operation does not pass through the machine, which would copy it once more.
        let mut operation = MaybeUninit::<T>::uninit();
        // SAFETY: the cell holds a `T`, by the caller's promise, and the machine makes its slot vacant in
        // this step.
        let take = |_, placed: Placed<C>| unsafe {
            operation.as_mut_ptr().copy_from_nonoverlapping(placed.cell.cast::<T>().as_ptr(), 1);
        };
        let polled = self.slots.borrow_mut().poll(key, waits, take);
        match polled {
            // SAFETY: `take` was called, because the slot is vacant.
            Polled::Done(outcome, ()) => Polled::Done(outcome, unsafe { operation.assume_init() }),
            Polled::Early(outcome) => Polled::Early(outcome),
            Polled::Pending => {
                if moved {
                    self.wake_by(key, waker);
                }
                Polled::Pending
            }
        }
    }

    /// The owner waits with another waker. It is cloned before the table is borrowed, and the old one is
    /// dropped after that: either may run code that uses the table.
    #[inline(never)]
    fn wake_by(&self, key: Key, waker: &Waker) {
        let waker = waker.clone();
        let old = self.slots.borrow_mut().wake_by(key, waker);
        drop(old);
    }

    /// The owner of `key` gives up: cancels the operation, and cleans up what has come already.
    pub(crate) fn abandon(&self, ring: &Ring, key: Key) {
        let (mut waker, mut space) = (None, ValueSpace::new());
        let abandoned = self.slots.borrow_mut().abandon(key, &mut waker, Self::left(&mut space));
        match abandoned {
            None => {}
            Some(Abandon::Cancel) => self.cancel(ring, key),
            // Destructors of futures come here, and their thread may be panicking.
            Some(Abandon::Late { extra, outcome, value }) => told(|| late(extra.vtable, outcome, value)),
        }
        // Last, because dropping it may run foreign code. This thread may be panicking: a second panic that
        // left this call would end the process.
        if let Some(waker) = waker {
            contained(ITS_WAKER, || drop(waker));
        }
    }

    /// Asks the kernel to end an operation whose owner stays: a multishot.
    pub(crate) fn cancel(&self, ring: &Ring, key: Key) {
        // Neither interrupting a running operation nor missing a completed one is an error: the operation's
        // own CQE has its outcome. A push flushes a full submission queue, so no cancel is lost.
        let cancel = |target| {
            let entry = opcode::AsyncCancel::new(target)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(Tag::Cancel.with(key.to_bits()));
            // SAFETY: a cancel points to nothing.
            unsafe { ring.push(&entry) };
        };
        let linked = self.slots.borrow().extra(key).is_some_and(|placed| placed.vtable.linked);
        if linked {
            cancel(Tag::LinkHead.with(key.to_bits()));
        }
        cancel(Tag::Op.with(key.to_bits()));
    }

    /// Handles a CQE of an operation of this table. In each case foreign code, which may panic, runs last.
    #[inline(always)]
    pub(crate) fn complete(&self, context: &C, bits: u64, cqe: Cqe) {
        let key = Key::from_bits(bits);
        let outcome = Outcome { result: cqe.result, flags: cqe.flags };
        if cqe.result < 0 && !cqe.notif() {
            self.failed(key, -cqe.result);
        }
        let usual = self.slots.borrow_mut().usual(key, outcome, cqe.more(), cqe.notif());
        match usual {
            Some(Usual::Wake(Some(waker))) => waker.wake(),
            Some(Usual::Wake(None)) => {}
            Some(Usual::Item { extra, owned }) => Self::item(context, extra, outcome, owned),
            None => self.complete_unusual(context, key, cqe),
        }
    }

    /// Hands one of many results to its operation.
    #[inline(always)]
    fn item(context: &C, placed: Placed<C>, outcome: Outcome, owned: bool) {
        // SAFETY: the cell holds a value of this function table's type until its last CQE. That one is
        // handled after this one, whatever code this one runs: only the core's loop and its end take CQEs
        // from the ring.
        unsafe { (placed.vtable.item)(placed.cell, context, outcome, owned) };
    }

    /// Out of line, with the space for a value that leaves its cell.
    #[inline(never)]
    fn complete_unusual(&self, context: &C, key: Key, cqe: Cqe) {
        let outcome = Outcome { result: cqe.result, flags: cqe.flags };
        let mut space = ValueSpace::new();
        let left = Self::left(&mut space);
        let event = self.slots.borrow_mut().complete(key, outcome, cqe.more(), cqe.notif(), left);
        match event {
            Event::Wake(Some(waker)) => waker.wake(),
            Event::Wake(None) => {}
            Event::Stale => stale(cqe),
            Event::Item { extra, owned } => Self::item(context, extra, outcome, owned),
            Event::Last { value, owned } => value.last(context, outcome, owned),
            Event::Late { extra, outcome, value } => late(extra.vtable, outcome, value),
            Event::Notified { extra, waker } => {
                // SAFETY: the cell holds a value of this function table's type until its owner takes it.
                // `notified` only counts, and runs no code that could take it.
                unsafe { (extra.vtable.notified)(extra.cell, outcome) };
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Event::Released { value } => value.release(outcome),
        }
    }

    /// What the owner of an operation waits for, and whether a worker of the kernel does it; `None` for one
    /// that is over.
    pub(crate) fn waits_for(&self, bits: u64) -> Option<(WaitsFor, bool)> {
        let key = Key::from_bits(bits);
        let placed = self.slots.borrow().extra(key)?;
        // SAFETY: the slot is not vacant, so its cell holds the value that belongs to this function table,
        // and what is called runs no code that could change that.
        Some(unsafe { (placed.vtable.waits_for)(placed.cell) })
    }

    #[cold]
    fn failed(&self, key: Key, errno: i32) {
        let placed = self.slots.borrow().extra(key);
        if let Some(placed) = placed {
            // SAFETY: the slot is not vacant, so its cell holds a value of this function table's type.
            // `failed` runs no code that could change that.
            unsafe { (placed.vtable.failed)(placed.cell, errno) };
        }
    }

    /// Makes the kernel release what it would otherwise hold for as long as some remote host likes. For the
    /// end of the core.
    pub(crate) fn force_release(&self) {
        let slots = self.slots.borrow();
        // SAFETY: the slot is not vacant, so its cell holds a value of this function table's type.
        // `force_release` runs no code that could change that.
        let force_release = |placed: Placed<C>| unsafe { (placed.vtable.force_release)(placed.cell) };
        let each: Vec<_> = slots.all().filter_map(force_release).collect();
        drop(slots);
        // Each closure owns what it needs, whatever code the closures before it have run.
        for force_release in each {
            contained("an operation that was hurried", force_release);
        }
    }

    /// Drops operations that are over and that their owners have not looked at: the core has ended, and they
    /// never will. Otherwise what they own would be leaked with their cells. The kernel has given all of them
    /// back.
    pub(crate) fn drop_answered(&self, ring: &Ring) {
        loop {
            let any = self.slots.borrow().any();
            let Some(key) = any.filter(|_| self.in_kernel() == 0) else { return };
            self.abandon(ring, key);
        }
    }

    /// Leaks the memory of all operations that the kernel has not given back.
    pub(crate) fn leak(&self) {
        self.arena.borrow_mut().leak();
        let mut slots = self.slots.borrow_mut();
        std::mem::forget(std::mem::replace(&mut *slots, Slots::with_capacity(0)));
    }
}

/// A result came after its owner had gone. There is a value if the operation is over.
#[cold]
fn late<C>(vtable: &Vtable<C>, outcome: Outcome, value: Option<Left<'_, C>>) {
    // Otherwise a notification is still due and the memory stays. A byte count brings nothing to clean up.
    if let Some(value) = value {
        value.late(outcome);
    }
    tracing::trace!(operation = vtable.name, result = outcome.result, "result after its owner had gone");
}

/// Takes an operation back if its SQE could not be made. The kernel does not know of it.
struct Withdraw<'a, T: Operation, C: 'static> {
    table: &'a OpTable<C>,
    key: Key,
    /// Holds the operation.
    cell: NonNull<T>,
}

impl<T: Operation, C> Drop for Withdraw<'_, T, C> {
    #[cold]
    fn drop(&mut self) {
        // SAFETY: the cell holds a `T` (`submit`), and the machine makes its slot vacant in this step.
        let take = |_, _| unsafe { self.cell.read() };
        let withdrawn = self.table.slots.borrow_mut().withdraw(self.key, take);
        let Some((operation, waker)) = withdrawn else { return };
        // This thread is panicking: a second panic that left this destructor would end the process.
        contained(format_args!("what was left of an operation ({})", T::NAME), || drop(operation));
        contained(format_args!("the waker of an operation ({})", T::NAME), || drop(waker));
    }
}

/// Pushes an operation's SQEs under its key.
///
/// # Safety
/// What the entries point to stays in place until the operation's final CQE.
#[inline(always)]
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
