//! Who waits to receive: one alone, or several in their order.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Socket;
use crate::buf::Lease;
use crate::contained::contained;
use crate::core::Core;
use crate::sync::waiters::Waiters;

impl Socket {
    /// Waits for what comes next: alone, or behind others at a place that
    /// [`wait_is_over`](Self::wait_is_over) gives up. `has_come` looks for it once more when the waker was
    /// cloned, as in [`Waiters::wait`].
    pub(super) fn wait(
        &self,
        cx: &Context<'_>,
        place: &mut Option<u64>,
        has_come: impl FnOnce(&Self) -> bool,
    ) {
        let stands = self.reader_as(|kept| kept.map(|waker| waker.will_wake(cx.waker())));
        match stands {
            Some(true) => {}
            None if self.waiting_readers().is_none() => {
                // Cloned and dropped with nothing borrowed: what either does is not ours to know.
                let waker = cx.waker().clone();
                if let Some(other) = self.reader.replace(Some(waker)) {
                    // It has come while ours was cloned, and waits again.
                    other.wake();
                }
                if has_come(self) {
                    cx.waker().wake_by_ref();
                }
            }
            _ => self.wait_behind(cx, place, has_come),
        }
    }

    /// Whether the task waits to receive, alone, and nothing has come: a poll would find nothing. False where
    /// that takes a closer look.
    #[inline(always)]
    pub(crate) fn still_waits(&self, cx: &Context<'_>) -> bool {
        self.chain.get().len() == 0
            && self.rare.get().is_none()
            && self.receiving.is_receiving()
            && self.reader_as(|kept| kept.is_some_and(|waker| waker.will_wake(cx.waker())))
    }

    #[cold]
    pub(super) fn wait_behind(
        &self,
        cx: &Context<'_>,
        place: &mut Option<u64>,
        has_come: impl FnOnce(&Self) -> bool,
    ) {
        *place = Some(self.rare().readers.wait(*place, cx.waker(), |_| has_come(self)));
    }

    /// A wait to receive is over.
    pub(crate) fn wait_is_over(&self, place: &mut Option<u64>) {
        if let Some(place) = place.take() {
            self.rare().readers.leave(place);
        }
    }

    /// Whether somebody waits to receive.
    pub(super) fn is_waited_for(&self) -> bool {
        self.reader_as(|kept| kept.is_some()) || self.waiting_readers().is_some()
    }

    /// Calls `look`, which runs no foreign code, with the waker of the task that waits alone.
    #[inline(always)]
    fn reader_as<T>(&self, look: impl FnOnce(Option<&Waker>) -> T) -> T {
        let kept = self.reader.take();
        let looked = look(kept.as_ref());
        self.reader.set(kept);
        looked
    }

    /// The tasks that wait behind another, if there are any.
    #[inline(always)]
    fn waiting_readers(&self) -> Option<&Waiters> {
        self.rare.get().map(|rare| &rare.readers).filter(|readers| !readers.is_empty())
    }

    pub(super) fn wake_reader(self: &Rc<Self>) {
        // A reader that waits re-arms when it is polled and finds nothing.
        let reader = self.reader.take();
        if self.waiting_readers().is_some() {
            return self.wake_all(reader);
        }
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Wakes several, the one that has waited longest first: one that has given up, or is not polled, keeps
    /// nobody else waiting.
    #[cold]
    pub(super) fn wake_all(&self, first: Option<Waker>) {
        if let Some(first) = first {
            contained("a waker", || first.wake());
        }
        self.rare().readers.wake_all();
    }

    /// Forgets who waited to receive. What dropping a waker does is not ours to know, so it comes last, and
    /// stays in here: this thread may be panicking.
    pub(super) fn forget_reader(&self) {
        if let Some(reader) = self.reader.take() {
            contained("the destructor of a waker", || drop(reader));
        }
    }
}

/// One that waits to receive, and its place among those that do, if it is behind another.
pub(crate) struct ReadWait<'a> {
    pub(super) on: &'a Rc<Socket>,
    pub(super) place: Option<u64>,
}

impl<'a> ReadWait<'a> {
    pub(crate) fn new(on: &'a Rc<Socket>) -> Self {
        Self { on, place: None }
    }

    /// As [`Socket::poll_recv`].
    #[inline(always)]
    pub(crate) fn poll_recv(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        self.on.poll_recv(core, cx, &mut self.place)
    }
}

impl Drop for ReadWait<'_> {
    fn drop(&mut self) {
        self.on.wait_is_over(&mut self.place);
    }
}

/// One that waits until no receive is armed. While it does no reader arms one: with a reader that did, the
/// two would go on for ever, each by what the other has asked for.
pub(super) struct QuietWait<'a>(ReadWait<'a>);

impl<'a> QuietWait<'a> {
    pub(super) fn new(on: &'a Rc<Socket>) -> Self {
        on.receiving.hush();
        Self(ReadWait::new(on))
    }

    /// As [`Socket::poll_quiet`].
    pub(super) fn poll(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<()> {
        self.0.on.poll_quiet(core, cx, &mut self.0.place)
    }
}

impl Drop for QuietWait<'_> {
    fn drop(&mut self) {
        self.0.on.wait_is_over(&mut self.0.place);
        if self.0.on.receiving.unhush() {
            // This thread may be panicking.
            contained("a waker", || self.0.on.wake_reader());
        }
    }
}
