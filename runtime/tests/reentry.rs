//! Wakers that come back to what calls them: a channel, an inbox, a cell for one value.

mod common;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use annulus::channel::{bounded, oneshot};
use common::{idle_cores, on_one_core, one_cpu};

/// Runs a test that may wait for ever in a thread of its own.
fn must_return(test: impl FnOnce() + Send + 'static) {
    let (tx, rx) = mpsc::channel();
    thread::spawn(move || {
        test();
        tx.send(()).unwrap();
    });
    rx.recv_timeout(Duration::from_secs(60)).expect("it ends");
}

/// Counts its calls and does something.
struct Does(AtomicUsize, Box<dyn Fn(&Waker) + Send + Sync>);

impl Does {
    fn new(f: impl Fn(&Waker) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(0), Box::new(f)))
    }

    fn calls(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Does {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        (self.1)(&Arc::clone(&self).into());
    }
}

fn is_pending(future: Pin<&mut (impl Future + ?Sized)>, waker: &Waker) -> bool {
    future.poll(&mut Context::from_waker(waker)).is_pending()
}

#[test]
fn a_waker_may_come_back_to_the_channel_that_has_room() {
    must_return(|| {
        on_one_core(|| async {
            let (sender, receiver) = bounded(1);
            sender.try_send(0).unwrap();
            let again = sender.clone();
            let waker = Does::new(move |_| {
                again.try_send(1).expect("there is room");
                assert!(is_pending(pin!(again.send(2)), Waker::noop()));
            });
            let mut waits = pin!(sender.send(3));
            assert!(is_pending(waits.as_mut(), &Arc::clone(&waker).into()));
            assert_eq!(receiver.try_recv(), Ok(0));
            assert_eq!(waker.calls(), 1);
            assert!(is_pending(waits.as_mut(), &Arc::clone(&waker).into()), "it was not as fast");
            drop(receiver);
            assert_eq!(waker.calls(), 2, "it was told of the end");
            Ok(())
        });
    });
}

#[test]
fn a_waker_may_poll_what_waits_for_room_in_an_inbox() {
    must_return(|| {
        let running = idle_cores(&one_cpu());
        let handle = running.handle();
        let (hold, held) = mpsc::channel::<()>();
        // The core takes nothing while this runs.
        let (begun, begins) = mpsc::channel();
        let holds = handle.submit_to(0, async move || {
            begun.send(()).unwrap();
            held.recv().unwrap();
        });
        let mut holds = pin!(holds);
        assert!(is_pending(holds.as_mut(), Waker::noop()));
        begins.recv().unwrap();
        let (ran, runs) = mpsc::channel();
        type Waits = Pin<Box<dyn Future<Output = ()> + Send>>;
        let mut submits: Vec<Arc<Mutex<Waits>>> = Vec::new();
        // More than the inbox has places.
        for _ in 0..600 {
            let (handle, ran) = (handle.clone(), ran.clone());
            let submit: Waits = Box::pin(async move {
                handle.submit_to(0, async move || ran.send(()).unwrap()).await.unwrap();
            });
            let submit = Arc::new(Mutex::new(submit));
            let polled = Arc::downgrade(&submit);
            let waker = Does::new(move |waker| {
                let Some(submit) = polled.upgrade() else { return };
                // On the core that calls this waker, which may be within a poll of the same future.
                if let Ok(mut submit) = submit.try_lock() {
                    _ = submit.as_mut().poll(&mut Context::from_waker(waker));
                }
            });
            assert!(is_pending(submit.lock().unwrap().as_mut(), &waker.into()));
            submits.push(submit);
        }
        // A closure that is dropped says so.
        drop(ran);
        hold.send(()).unwrap();
        for _ in 0..600 {
            runs.recv().unwrap();
        }
        running.stop();
        running.wait().unwrap();
    });
}

/// A waker that panics.
struct Bad(When);

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Called,
    Dropped,
}

impl Wake for Bad {
    fn wake(self: Arc<Self>) {
        assert!(self.0 == When::Dropped, "the waker, on purpose");
    }
}

impl Drop for Bad {
    fn drop(&mut self) {
        assert!(self.0 == When::Called, "the waker's destructor, on purpose");
    }
}

/// Polls `future` with a waker that it alone keeps.
fn waits_badly(future: Pin<&mut (impl Future + ?Sized)>, when: When) {
    assert!(is_pending(future, &Waker::from(Arc::new(Bad(when)))));
}

/// Seen to fail: with the application's waker in the crate's cell, which stays locked, the second poll is
/// never woken.
#[test]
fn a_receiver_waits_on_after_a_waker_that_panicked() {
    on_one_core(|| async {
        let (sender, mut receiver) = bounded(1);
        waits_badly(pin!(receiver.recv()), When::Dropped);
        let good = Does::new(|_| {});
        assert!(is_pending(pin!(receiver.recv()), &Arc::clone(&good).into()));
        sender.try_send(1).unwrap();
        assert_eq!((good.calls(), receiver.try_recv()), (1, Ok(1)));
        // The receiver's waker is not the sender's matter: it has sent.
        for bad in [When::Called, When::Dropped] {
            waits_badly(pin!(receiver.recv()), bad);
            sender.try_send(2).unwrap();
            assert_eq!(receiver.try_recv(), Ok(2));
        }
        Ok(())
    });
}

/// Seen to fail: with the crate's own end, which drops the receiver's waker before it wakes the sender.
#[test]
fn a_oneshot_tells_its_other_end_whatever_its_wakers_do() {
    let (mut sender, mut receiver) = oneshot::<u8>();
    waits_badly(Pin::new(&mut receiver), When::Dropped);
    let told = Does::new(|_| {});
    let mut closed = pin!(sender.closed());
    assert!(is_pending(closed.as_mut(), &Arc::clone(&told).into()));
    drop(receiver);
    assert_eq!(told.calls(), 1);
    for bad in [When::Called, When::Dropped] {
        let (sender, mut receiver) = oneshot::<u8>();
        waits_badly(Pin::new(&mut receiver), bad);
        assert_eq!(sender.send(1), Ok(()));
        let polled = Pin::new(&mut receiver).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(Ok(1)));
        let (sender, mut receiver) = oneshot::<u8>();
        waits_badly(Pin::new(&mut receiver), bad);
        drop(sender);
        let (mut sender, receiver) = oneshot::<u8>();
        waits_badly(pin!(sender.closed()), bad);
        drop(receiver);
        assert!(sender.is_closed());
    }
}
