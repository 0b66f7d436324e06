use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Wake};

use super::*;

/// Slots, and the senders that wait for one.
struct Slots {
    places: AtomicU32,
    space: SpaceWaiters,
}

impl Slots {
    fn new() -> Arc<Self> {
        Arc::new(Self { places: AtomicU32::new(0), space: SpaceWaiters::new() })
    }

    fn take(&self) -> Option<()> {
        self.places
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |places| places.checked_sub(1))
            .ok()
            .map(drop)
    }

    async fn place(&self) {
        self.space.find(|| self.take()).await;
    }

    /// Frees a place, and tells one sender.
    fn make(&self) {
        self.places.fetch_add(1, Ordering::Relaxed);
        self.space.made(1);
    }
}

/// A waker that counts its calls and does something.
struct Does(AtomicU32, Box<dyn Fn() + Send + Sync>);

impl Does {
    fn new(f: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self(AtomicU32::new(0), Box::new(f)))
    }

    fn nothing() -> Arc<Self> {
        Self::new(|| {})
    }

    fn calls(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Does {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        (self.1)();
    }
}

fn is_ready(future: Pin<&mut impl Future>, waker: &Arc<Does>) -> bool {
    future.poll(&mut Context::from_waker(&Arc::clone(waker).into())).is_ready()
}

/// Seen to fail: with a sender that comes back put at the end, the one after it is told first.
#[test]
fn who_is_told_and_finds_no_place_stands_where_it_stood() {
    let slots = Slots::new();
    let (a, b) = (Does::nothing(), Does::nothing());
    let (mut first, mut second) = (pin!(slots.place()), pin!(slots.place()));
    assert!(!is_ready(first.as_mut(), &a) && !is_ready(second.as_mut(), &b));
    slots.make();
    slots.take().expect("somebody else is faster");
    assert!(!is_ready(first.as_mut(), &a));
    slots.make();
    assert_eq!((a.calls(), b.calls()), (2, 0));
    assert!(!is_ready(second.as_mut(), &b), "it tries when it is notified");
    assert!(is_ready(first.as_mut(), &a));
}

/// Seen to fail: with nobody told instead, `second` sleeps on.
#[test]
fn who_is_told_and_gives_up_has_the_next_told() {
    let slots = Slots::new();
    let woken = Does::nothing();
    let mut second = pin!(slots.place());
    {
        let first = pin!(slots.place());
        let mut first = first;
        assert!(!is_ready(first.as_mut(), &Does::nothing()));
        assert!(!is_ready(second.as_mut(), &woken));
        slots.make();
        assert_eq!(woken.calls(), 0);
    }
    assert_eq!(woken.calls(), 1);
    assert!(is_ready(second.as_mut(), &woken));
}

/// Seen to fail: with its call counted, nobody else is told of the place.
#[test]
fn a_waker_that_panics_has_the_next_told() {
    let slots = Slots::new();
    let (bad, woken) = (Does::new(|| panic!("on purpose")), Does::nothing());
    let (mut first, mut second) = (pin!(slots.place()), pin!(slots.place()));
    assert!(!is_ready(first.as_mut(), &bad) && !is_ready(second.as_mut(), &woken));
    slots.make();
    assert_eq!((bad.calls(), woken.calls()), (1, 1));
    assert!(is_ready(second.as_mut(), &woken));
}

/// Seen to fail: with the first waker kept, that one is called.
#[test]
fn the_waker_of_the_last_poll_is_called() {
    let slots = Slots::new();
    let (old, new) = (Does::nothing(), Does::nothing());
    let mut place = pin!(slots.place());
    assert!(!is_ready(place.as_mut(), &old) && !is_ready(place.as_mut(), &new));
    slots.make();
    assert_eq!((old.calls(), new.calls(), Arc::strong_count(&old)), (0, 1, 1));
}

/// Seen to fail: with wakers called under the lock, the test waits for ever.
#[test]
fn a_waker_may_wait_for_space_again() {
    static SLOTS: OnceLock<Arc<Slots>> = OnceLock::new();
    let slots = SLOTS.get_or_init(Slots::new);
    let comes_back = Does::new(|| {
        let slots = SLOTS.get().expect("set before anyone waits");
        assert!(is_ready(pin!(slots.place()), &Does::nothing()), "it is faster");
        assert!(!is_ready(pin!(slots.place()), &Does::nothing()));
    });
    let mut place = pin!(slots.place());
    assert!(!is_ready(place.as_mut(), &comes_back));
    slots.make();
    assert_eq!(comes_back.calls(), 1);
    slots.make();
    assert!(is_ready(place.as_mut(), &comes_back));
}

/// Wakers of futures that were leaked. Seen to fail: with the list dropped as it is, the process aborts.
#[test]
fn wakers_that_panic_when_they_are_dropped_are_dropped_one_by_one() {
    let slots = Slots::new();
    let gone = crate::testing::BadWakers::give(3, |waker| {
        let mut place = Box::pin(slots.place());
        assert!(place.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
        std::mem::forget(place);
    });
    drop(slots);
    assert_eq!(gone.dropped(), 3);
}
