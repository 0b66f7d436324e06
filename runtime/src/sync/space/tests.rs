use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Wake};

use super::*;

/// Slots, and the senders that wait for one.
struct Room {
    places: AtomicU32,
    space: SpaceWaiters,
}

impl Room {
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
    let room = Room::new();
    let (a, b) = (Does::nothing(), Does::nothing());
    let (mut first, mut second) = (pin!(room.place()), pin!(room.place()));
    assert!(!is_ready(first.as_mut(), &a) && !is_ready(second.as_mut(), &b));
    room.make();
    room.take().expect("somebody else is faster");
    assert!(!is_ready(first.as_mut(), &a));
    room.make();
    assert_eq!((a.calls(), b.calls()), (2, 0));
    assert!(!is_ready(second.as_mut(), &b), "it looks when it is told");
    assert!(is_ready(first.as_mut(), &a));
}

/// Seen to fail: with nobody told instead, `second` sleeps on.
#[test]
fn who_is_told_and_gives_up_has_the_next_told() {
    let room = Room::new();
    let woken = Does::nothing();
    let mut second = pin!(room.place());
    {
        let first = pin!(room.place());
        let mut first = first;
        assert!(!is_ready(first.as_mut(), &Does::nothing()));
        assert!(!is_ready(second.as_mut(), &woken));
        room.make();
        assert_eq!(woken.calls(), 0);
    }
    assert_eq!(woken.calls(), 1);
    assert!(is_ready(second.as_mut(), &woken));
}

/// Seen to fail: with its call counted, nobody else is told of the place.
#[test]
fn a_waker_that_panics_has_the_next_told() {
    let room = Room::new();
    let (bad, woken) = (Does::new(|| panic!("on purpose")), Does::nothing());
    let (mut first, mut second) = (pin!(room.place()), pin!(room.place()));
    assert!(!is_ready(first.as_mut(), &bad) && !is_ready(second.as_mut(), &woken));
    room.make();
    assert_eq!((bad.calls(), woken.calls()), (1, 1));
    assert!(is_ready(second.as_mut(), &woken));
}

/// Seen to fail: with the first waker kept, that one is called.
#[test]
fn the_waker_of_the_last_poll_is_called() {
    let room = Room::new();
    let (old, new) = (Does::nothing(), Does::nothing());
    let mut place = pin!(room.place());
    assert!(!is_ready(place.as_mut(), &old) && !is_ready(place.as_mut(), &new));
    room.make();
    assert_eq!((old.calls(), new.calls(), Arc::strong_count(&old)), (0, 1, 1));
}

/// Seen to fail: with wakers called under the lock, the test waits for ever.
#[test]
fn a_waker_may_wait_for_room_anew() {
    static ROOM: OnceLock<Arc<Room>> = OnceLock::new();
    let room = ROOM.get_or_init(Room::new);
    let comes_back = Does::new(|| {
        let room = ROOM.get().expect("set before anyone waits");
        assert!(is_ready(pin!(room.place()), &Does::nothing()), "it is faster");
        assert!(!is_ready(pin!(room.place()), &Does::nothing()));
    });
    let mut place = pin!(room.place());
    assert!(!is_ready(place.as_mut(), &comes_back));
    room.make();
    assert_eq!(comes_back.calls(), 1);
    room.make();
    assert!(is_ready(place.as_mut(), &comes_back));
}

/// Wakers of futures that were leaked. Seen to fail: with the list dropped as it is, the process aborts.
#[test]
fn wakers_that_panic_when_they_are_dropped_are_dropped_one_by_one() {
    let room = Room::new();
    let gone = crate::testing::BadWakers::give(3, |waker| {
        let mut place = Box::pin(room.place());
        assert!(place.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
        std::mem::forget(place);
    });
    drop(room);
    assert_eq!(gone.dropped(), 3);
}
