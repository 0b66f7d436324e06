//! Operations whose type only their function table knows: what can be done with one in its cell, and with one
//! that was taken out.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use super::arena::CELL_SIZE;
use super::slots::Outcome;
use super::waits_for::WaitsFor;
use super::{ForceRelease, Multishot, Operation};
use crate::contained::contained;

/// What to do with an untyped value. `C` is what answers are handled with.
pub(super) struct Vtable<C> {
    pub(super) name: &'static str,
    /// Bytes of the value.
    pub(super) size: usize,
    /// Consumes the value with a result that nobody waits for. Single operations only.
    pub(super) late: unsafe fn(NonNull<u8>, Outcome),
    /// Shows the value one of many results, after which more may come. Multishot operations only.
    pub(super) item: unsafe fn(NonNull<u8>, &C, Outcome, bool),
    /// Shows the value the last result and consumes it. Multishot operations only.
    pub(super) last: unsafe fn(NonNull<u8>, &C, Outcome, bool),
    /// Shows the value that it has failed. Single operations only.
    pub(super) failed: unsafe fn(NonNull<u8>, i32),
    /// Shows the value its notification. Single operations only.
    pub(super) notified: unsafe fn(NonNull<u8>, Outcome),
    /// Shows the value its notification and consumes it. Single operations only.
    pub(super) release: unsafe fn(NonNull<u8>, Outcome),
    /// What makes the kernel release the memory. It is run when the value is not borrowed any more.
    pub(super) force_release: unsafe fn(NonNull<u8>) -> Option<ForceRelease>,
    /// A poll is linked before it, so a cancel must find either.
    pub(super) linked: bool,
    /// What its owner waits for, and whether a worker of the kernel does it.
    pub(super) waits_for: unsafe fn(NonNull<u8>) -> (WaitsFor, bool),
}

/// The function table of an operation that answers once.
pub(super) struct Single<T, C>(PhantomData<(T, C)>);

impl<T: Operation, C> Single<T, C> {
    pub(super) const VTABLE: Vtable<C> = Vtable {
        name: T::NAME,
        size: size_of::<T>(),
        // A buffer of the application's own type may panic when it is dropped. The core's other work goes on.
        late: |value, outcome| {
            // SAFETY: the caller passes the place of a `T` and treats it as empty afterwards.
            let operation = unsafe { value.cast::<T>().read() };
            contained(format_args!("what was left of an operation ({})", T::NAME), || {
                operation.late(outcome)
            });
        },
        item: |_, _, _, _| unreachable!("a single operation has no items"),
        last: |_, _, _, _| unreachable!("a single operation has no items"),
        // SAFETY: the caller passes the place of a `T`; only shared references to it exist meanwhile.
        failed: |value, errno| unsafe { value.cast::<T>().as_ref() }.failed(errno),
        // SAFETY: as for `failed`.
        notified: |value, outcome| unsafe { value.cast::<T>().as_ref() }.notified(outcome),
        release: |value, outcome| {
            // SAFETY: as for `late`.
            let operation = unsafe { value.cast::<T>().read() };
            contained(format_args!("what was left of an operation ({})", T::NAME), || {
                operation.notified(outcome);
                drop(operation);
            });
        },
        // SAFETY: the caller passes the place of a `T`; only shared references to it exist meanwhile.
        force_release: |value| unsafe { value.cast::<T>().as_ref() }.force_release(),
        linked: T::LINKED,
        waits_for: |value| {
            // SAFETY: as for `force_release`.
            let operation = unsafe { value.cast::<T>().as_ref() };
            (operation.waits_for(), operation.runs_on_iowq())
        },
    };
}

/// The function table of an operation that answers many times.
pub(super) struct Many<T, C>(PhantomData<(T, C)>);

impl<T: Multishot<C>, C> Many<T, C> {
    pub(super) const VTABLE: Vtable<C> = Vtable {
        name: T::NAME,
        size: size_of::<T>(),
        late: |_, _| unreachable!("a multishot operation has items, not a late result"),
        // SAFETY: the caller passes the place of a `T`; only shared references to it exist meanwhile.
        item: |value, context, outcome, owned| unsafe {
            value.cast::<T>().as_ref().item(context, outcome, owned, false);
        },
        last: |value, context, outcome, owned| {
            // SAFETY: the caller passes the place of a `T` and treats it as empty afterwards.
            unsafe { value.cast::<T>().read() }.item(context, outcome, owned, true);
        },
        failed: |_, _| {},
        notified: |_, _| unreachable!("a multishot operation has no notification"),
        release: |_, _| unreachable!("a multishot operation ends with its last item"),
        force_release: |_| None,
        linked: false,
        waits_for: |_| (T::WAITS_FOR, false),
    };
}

/// The value of an operation that is over, out of its cell. Its function table knows its type.
#[must_use = "what is not consumed is leaked"]
pub(super) struct Left<'a, C: 'static> {
    vtable: &'static Vtable<C>,
    /// A reference, so that what passes through the machine stays small.
    value: &'a mut ValueSpace,
}

/// Space for a value that leaves its cell: as large and as aligned as a cell.
#[repr(C, align(64))]
pub(super) struct ValueSpace(MaybeUninit<[u8; CELL_SIZE]>);

impl ValueSpace {
    pub(super) fn new() -> Self {
        Self(MaybeUninit::uninit())
    }
}

impl<'a, C> Left<'a, C> {
    /// Moves the value out of a cell.
    ///
    /// # Safety
    /// The cell holds a value of the type of `vtable`, and the caller treats it as empty afterwards.
    pub(super) unsafe fn out_of(
        cell: NonNull<u8>,
        vtable: &'static Vtable<C>,
        value: &'a mut ValueSpace,
    ) -> Self {
        // SAFETY: the cell has at least `size` bytes, and so has `value`, which nobody else has.
        unsafe { cell.as_ptr().copy_to_nonoverlapping(value.0.as_mut_ptr().cast(), vtable.size) };
        Self { vtable, value }
    }

    fn place(&mut self) -> NonNull<u8> {
        NonNull::from(&mut self.value.0).cast()
    }

    pub(super) fn late(mut self, outcome: Outcome) {
        // SAFETY: it holds such a value (`out_of`), and `self` is gone after this.
        unsafe { (self.vtable.late)(self.place(), outcome) }
    }

    pub(super) fn last(mut self, context: &C, outcome: Outcome, owned: bool) {
        // SAFETY: as for `late`.
        unsafe { (self.vtable.last)(self.place(), context, outcome, owned) }
    }

    pub(super) fn release(mut self, outcome: Outcome) {
        // SAFETY: as for `late`.
        unsafe { (self.vtable.release)(self.place(), outcome) }
    }
}
