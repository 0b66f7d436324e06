//! Wakers that use the very thing that is waited for, while they are cloned, woken and dropped.
//!
//! Seen to fail ("already borrowed", in the waker): with the waker of a connection, and with that of all that
//! wait in a list, cloned while what holds it is borrowed.

mod common;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, RawWaker, RawWakerVTable, Waker};
use std::time::{Duration, Instant};

use annulus::buf::Block;
use annulus::net::{TcpListener, TcpStream, UdpSocket};
use common::on_one_core;

thread_local! {
    /// What the wakers do. Not there while they do it.
    static ACT: RefCell<Option<Rc<dyn Fn()>>> = const { RefCell::new(None) };
    /// How often they were cloned, woken and dropped, and what they did came to its end.
    static DONE: Cell<[u32; 3]> = const { Cell::new([0; 3]) };
}

fn act(when: usize) {
    if when == 1 && DONE.get()[1] > 3 {
        // Else all that comes would be theirs.
        return;
    }
    let Some(does) = ACT.take() else { return };
    does();
    ACT.set(Some(does));
    let mut done = DONE.get();
    done[when] += 1;
    DONE.set(done);
}

/// Each `number` is another.
fn meddler(number: usize) -> Waker {
    fn clone(number: *const ()) -> RawWaker {
        act(0);
        RawWaker::new(number, &VTABLE)
    }
    static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, |_| act(1), |_| act(1), |_| act(2));
    // SAFETY: nothing is behind the pointer, and no function of the table follows it.
    unsafe { Waker::from_raw(RawWaker::new(std::ptr::without_provenance(number), &VTABLE)) }
}

/// Two wait by such wakers, by one and the other in turn, for what `come` makes come. The wakers wait for the
/// same themselves, take it if it is there, and give up.
async fn each_is_served<W: Future>(wait: impl Fn() -> W + Clone + 'static, come: impl AsyncFn()) {
    let wakers = [1, 2].map(meddler);
    let (mut first, mut second) = (pin!(wait()), pin!(wait()));
    ACT.set(Some(Rc::new({
        let wait = wait.clone();
        move || _ = pin!(wait()).poll(&mut Context::from_waker(Waker::noop())).map(drop)
    })));
    DONE.set([0; 3]);
    for round in 0..4 {
        let mut cx = Context::from_waker(&wakers[round % 2]);
        assert!(first.as_mut().poll(&mut cx).is_pending() && second.as_mut().poll(&mut cx).is_pending());
    }
    let begun = Instant::now();
    let mut served = [false; 2];
    for round in 0.. {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {served:?}");
        come().await;
        annulus::yield_now().await;
        let mut cx = Context::from_waker(&wakers[round % 2]);
        served[0] = served[0] || first.as_mut().poll(&mut cx).is_ready();
        served[1] = served[1] || second.as_mut().poll(&mut cx).is_ready();
        if served == [true; 2] {
            break;
        }
    }
    assert!(ACT.take().is_some(), "what a waker does has panicked");
    assert!(DONE.get().iter().all(|times| *times > 0), "{:?}", DONE.get());
}

#[test]
fn of_a_listener() {
    on_one_core(|| async {
        let listener = Rc::new(TcpListener::bind("127.0.0.1:0")?);
        let address = listener.local_addr();
        let wait = move || {
            let listener = Rc::clone(&listener);
            async move { listener.accept().await.map(drop).unwrap() }
        };
        each_is_served(wait, async || drop(TcpStream::connect(address).await.unwrap())).await;
        Ok(())
    });
}

#[test]
fn of_a_connection() {
    on_one_core(|| async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let near = Rc::new(TcpStream::connect(listener.local_addr()).await?);
        let far = listener.accept().await?;
        let wait = move || {
            let near = Rc::clone(&near);
            async move { assert!(near.recv().await.unwrap().is_some()) }
        };
        each_is_served(wait, async || _ = far.send_all("x").await.unwrap()).await;
        Ok(())
    });
}

#[test]
fn of_a_socket_for_datagrams() {
    on_one_core(|| async {
        let (near, far) = (Rc::new(UdpSocket::bind("127.0.0.1:0")?), UdpSocket::bind("127.0.0.1:0")?);
        let to = near.local_addr()?;
        let wait = move || {
            let near = Rc::clone(&near);
            async move { drop(near.recv().await.unwrap()) }
        };
        each_is_served(wait, async || _ = far.send_to("x", to).await.unwrap()).await;
        Ok(())
    });
}

#[test]
fn of_blocks() {
    on_one_core(|| async {
        let all = RefCell::new(std::iter::from_fn(Block::take).collect::<Vec<_>>());
        each_is_served(|| async { drop(Block::get().await) }, async || drop(all.borrow_mut().pop())).await;
        Ok(())
    });
}

thread_local! {
    /// What the next clone of an [`eager`] waker does.
    static AT_CLONE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    static WOKEN: Cell<bool> = const { Cell::new(false) };
}

/// A waker that brings about what is waited for while it is cloned, before it stands among those that wait.
fn eager(act: impl FnOnce() + 'static) -> Waker {
    fn clone(_: *const ()) -> RawWaker {
        let act = AT_CLONE.take();
        act.into_iter().for_each(|act| act());
        RawWaker::new(std::ptr::null(), &VTABLE)
    }
    static VTABLE: RawWakerVTable =
        RawWakerVTable::new(clone, |_| WOKEN.set(true), |_| WOKEN.set(true), |_| {});
    AT_CLONE.set(Some(Box::new(act)));
    WOKEN.set(false);
    // SAFETY: nothing is behind the pointer, and no function of the table follows it.
    unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &VTABLE)) }
}

/// Waits with an [`eager`] waker, and looks again if that was woken.
fn waits_for<T>(future: impl Future<Output = T>, act: impl FnOnce() + 'static) -> T {
    let mut future = pin!(future);
    let waker = eager(act);
    let mut cx = Context::from_waker(&waker);
    assert!(future.as_mut().poll(&mut cx).is_pending(), "nothing had come");
    assert!(WOKEN.get(), "what came while its waker was cloned is told to nobody");
    match future.poll(&mut cx) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("it was woken for nothing"),
    }
}

/// Seen to fail: with no look after the clone ("told to nobody").
#[test]
fn a_block_that_comes_back_while_the_waker_is_cloned() {
    on_one_core(|| async {
        let mut all: Vec<_> = std::iter::from_fn(Block::take).collect();
        let last = all.pop().expect("a block");
        drop(waits_for(Block::get(), move || drop(last)));
        Ok(())
    });
}

/// Seen to fail: with no look after the clone ("told to nobody").
#[test]
fn a_permit_to_write_that_is_given_up_while_the_waker_is_cloned() {
    on_one_core(|| async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = Rc::new(TcpStream::connect(listener.local_addr()).await?);
        let first = Rc::clone(&stream);
        let mut first = Box::pin(async move { first.send_all(vec![0; 1 << 20]).await.map(drop) });
        assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let error = waits_for(stream.send_all("behind it"), move || drop(first)).expect_err("poisoned");
        assert_eq!(error.error.kind(), annulus::ErrorKind::WritePoisoned);
        Ok(())
    });
}
