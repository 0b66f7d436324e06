//! Children that borrow.

mod common;

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread;
use std::time::Duration;

use annulus::{JoinError, ScopedHandle, scope, time};
use common::on_one_core;

#[test]
fn children_borrow_from_their_parent_and_give_their_output() {
    on_one_core(|| async {
        let (mut words, seen) = (vec![String::from("a"), String::from("b")], RefCell::new(Vec::new()));
        let sum = scope(async |s| {
            let handles: Vec<_> = words
                .iter_mut()
                .zip([20, 1])
                .map(|(word, ms)| {
                    let seen = &seen;
                    s.spawn(async move {
                        time::sleep(Duration::from_millis(ms)).await;
                        word.push('!');
                        seen.borrow_mut().push(ms);
                        ms
                    })
                })
                .collect();
            let mut sum = 0;
            for handle in handles {
                sum += handle.await.expect("no panic");
            }
            sum
        })
        .await;
        assert_eq!((sum, words, seen.into_inner()), (21, vec!["a!".into(), "b!".into()], vec![1, 20]));
        Ok(())
    });
}

/// Seen to fail: with the parent's waker in place of the children's own, no child is ever found to be ready.
#[test]
fn a_wake_polls_the_child_that_it_is_for() {
    on_one_core(|| async {
        let polls = [const { Cell::new(0) }; 100];
        scope(async |s| {
            for (i, count) in polls.iter().enumerate() {
                drop(s.spawn(async move {
                    let mut sleep = pin!(time::sleep(Duration::from_millis(i as u64 % 7)));
                    poll_fn(|cx| {
                        count.set(count.get() + 1);
                        sleep.as_mut().poll(cx)
                    })
                    .await;
                }));
            }
        })
        .await;
        assert!(polls.iter().all(|count| (1..=2).contains(&count.get())), "{polls:?}");
        Ok(())
    });
}

#[test]
fn a_scope_waits_for_children_whose_handles_are_gone() {
    on_one_core(|| async {
        let done = Cell::new(0);
        scope(async |s| {
            for _ in 0..10 {
                drop(s.spawn(async {
                    annulus::yield_now().await;
                    done.set(done.get() + 1);
                }));
            }
        })
        .await;
        assert_eq!(done.get(), 10);
        Ok(())
    });
}

#[test]
fn a_dropped_scope_drops_its_children() {
    struct Count<'a>(&'a Cell<u32>);
    impl Drop for Count<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    on_one_core(|| async {
        let dropped = Cell::new(0);
        let late = time::timeout(
            Duration::from_millis(5),
            scope(async |s| {
                for _ in 0..3 {
                    let count = Count(&dropped);
                    drop(s.spawn(async move {
                        let _count = count;
                        pending::<()>().await;
                    }));
                }
            }),
        )
        .await;
        assert!(late.is_err());
        assert_eq!(dropped.get(), 3);
        Ok(())
    });
}

#[test]
fn a_panic_goes_to_the_handle_or_else_to_the_parent() {
    on_one_core(|| async {
        let other = Cell::new(false);
        let end = scope(async |s| {
            drop(s.spawn(async {
                annulus::yield_now().await;
                other.set(true);
            }));
            s.spawn(async { panic!("told to the handle") }).await
        })
        .await;
        assert!(matches!(end, Err::<(), _>(JoinError::Panicked(_))));
        assert!(other.get());
        let task = annulus::spawn(scope(async |s| {
            drop(s.spawn(async { panic!("told to the parent") }));
        }));
        match task.await {
            Err(JoinError::Panicked(payload)) => {
                assert_eq!(payload.downcast_ref::<&str>(), Some(&"told to the parent"));
            }
            other => panic!("{other:?}"),
        }
        Ok(())
    });
}

#[test]
fn children_are_woken_from_other_threads_also_after_their_end() {
    on_one_core(|| async {
        let (tx, rx) = std::sync::mpsc::channel::<std::task::Waker>();
        let waker = thread::spawn(move || {
            let wakers: Vec<_> = rx.iter().collect();
            for waker in &wakers {
                waker.wake_by_ref();
            }
            wakers
        });
        let wakers = scope(async |s| {
            let tx = RefCell::new(Some(tx));
            let tx = Rc::new(tx);
            for _ in 0..50 {
                let tx = Rc::clone(&tx);
                let mut asked = false;
                drop(s.spawn(poll_fn(move |cx| {
                    if std::mem::replace(&mut asked, true) {
                        return Poll::Ready(());
                    }
                    tx.borrow().as_ref().expect("still open").send(cx.waker().clone()).unwrap();
                    Poll::Pending
                })));
            }
            annulus::yield_now().await;
            // Every child has sent its waker: the thread goes on, and wakes them.
            tx.take();
            waker
        })
        .await;
        wakers.join().unwrap().into_iter().for_each(std::task::Waker::wake);
        Ok(())
    });
}

/// Wakers outlive their scope, and it may be dropped with children that wait for their turn. Seen to fail:
/// with a list that holds the wakers which hold it, nothing of either is ever freed, nor the task that the
/// scope was in.
#[test]
fn a_scope_that_has_gone_holds_nothing() {
    struct Ignored;
    impl Wake for Ignored {
        fn wake(self: Arc<Self>) {}
    }
    let parent = Arc::new(Ignored);
    let waker = Waker::from(Arc::clone(&parent));
    let kept = RefCell::new(None);
    {
        let mut scope = pin!(scope(async |s| {
            let waits = s.spawn(poll_fn(|cx| {
                kept.replace(Some(cx.waker().clone()));
                // For the next tick, which does not come.
                cx.waker().wake_by_ref();
                Poll::<()>::Pending
            }));
            waits.await.expect("no panic");
        }));
        assert!(scope.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(waker);
    assert_eq!(Arc::strong_count(&parent), 1);
    // A late wake is for nobody.
    let late = kept.take().expect("it was polled");
    late.wake_by_ref();
    drop(late);
    assert_eq!(Arc::strong_count(&parent), 1);
}

/// What the functions of a waker do, on the thread of the test.
type Act = Box<dyn Fn()>;

thread_local! {
    static ACT: RefCell<Option<Rc<Act>>> = const { RefCell::new(None) };
    /// When; always if it does not say.
    static ONLY: Cell<Option<On>> = const { Cell::new(None) };
    static ACTED: Cell<usize> = const { Cell::new(0) };
}

/// What is done with a waker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    Clone,
    Wake,
    Drop,
}

fn act(on: On) {
    if ONLY.get().is_some_and(|only| only != on) {
        return;
    }
    let act = ACT.with_borrow(Clone::clone);
    if let Some(act) = act {
        ACTED.set(ACTED.get() + 1);
        act();
    }
}

static ACTS: RawWakerVTable = RawWakerVTable::new(
    |data| {
        act(On::Clone);
        RawWaker::new(data, &ACTS)
    },
    |_| act(On::Wake),
    |_| act(On::Wake),
    |_| act(On::Drop),
);

/// A waker that acts whenever it is cloned, called or dropped. Two with different numbers do not wake the
/// same.
fn acts(number: usize) -> Waker {
    // SAFETY: no function of the table looks at the pointer; what they touch is of the calling thread.
    unsafe { Waker::from_raw(RawWaker::new(std::ptr::without_provenance(number), &ACTS)) }
}

fn poll_once(future: Pin<&mut (impl Future + ?Sized)>, waker: &Waker) -> bool {
    future.poll(&mut Context::from_waker(waker)).is_ready()
}

/// Seen to fail: with the parent's waker cloned under its lock, by waiting for ever.
#[test]
fn the_parents_waker_may_wake_children_whatever_is_done_with_it() {
    let (tx, rx) = mpsc::channel();
    thread::spawn(move || {
        let children = Rc::new(RefCell::new(Vec::<Waker>::new()));
        let wakers = Rc::clone(&children);
        let wake_all: Act = Box::new(move || wakers.borrow().iter().for_each(Waker::wake_by_ref));
        {
            let mut parent = pin!(scope(async |s| {
                for _ in 0..2 {
                    let children = Rc::clone(&children);
                    drop(s.spawn(poll_fn(move |cx| {
                        if children.borrow().len() < 2 {
                            children.borrow_mut().push(cx.waker().clone());
                        }
                        Poll::<()>::Pending
                    })));
                }
            }));
            assert!(!poll_once(parent.as_mut(), Waker::noop()));
            ACT.set(Some(Rc::new(wake_all)));
            for (number, on) in
                [On::Clone, On::Clone, On::Wake, On::Drop, On::Drop, On::Drop].into_iter().enumerate()
            {
                ONLY.set(Some(on));
                let waker = acts(number);
                assert_eq!(children.borrow().len(), 2);
                assert!(!poll_once(parent.as_mut(), &waker));
                if on == On::Wake {
                    children.borrow().iter().for_each(Waker::wake_by_ref);
                }
            }
        }
        ACT.set(None);
        assert!(ACTED.get() > 2);
        tx.send(()).unwrap();
    });
    rx.recv_timeout(Duration::from_secs(60)).expect("it ends");
}

/// A scope with one child that has ended once `end` is true, and the child's handle.
fn with_one_child(
    end: &Rc<Cell<bool>>,
) -> (std::pin::Pin<Box<dyn Future<Output = ()>>>, ScopedHandle<u8>, Waker) {
    let (end, handle, waker) = (Rc::clone(end), Rc::new(Cell::new(None)), Rc::new(Cell::new(None)));
    let (handle_out, waker_out) = (Rc::clone(&handle), Rc::clone(&waker));
    let mut parent = Box::pin(scope(async move |s| {
        handle_out.set(Some(s.spawn(poll_fn(move |cx| {
            waker_out.set(Some(cx.waker().clone()));
            if end.get() { Poll::Ready(7) } else { Poll::Pending }
        }))));
    }));
    assert!(!poll_once(parent.as_mut(), Waker::noop()));
    let taken = (handle.take().expect("the body has run"), waker.take().expect("the child was polled"));
    (parent, taken.0, taken.1)
}

/// Seen to fail: with the waker cloned while the handle's end is borrowed, by a second borrow; with no second
/// look, by waiting for ever.
#[test]
fn a_child_may_end_while_the_waker_of_who_waits_for_it_is_cloned_or_dropped() {
    for polls_before in [0, 1] {
        let end = Rc::new(Cell::new(false));
        let (parent, mut handle, child) = with_one_child(&end);
        let parent = RefCell::new(parent);
        let ends: Act = Box::new(move || {
            if !end.replace(true) {
                child.wake_by_ref();
                assert!(poll_once(parent.borrow_mut().as_mut(), Waker::noop()));
            }
        });
        for number in 0..polls_before {
            assert!(!poll_once(pin!(&mut handle), &acts(number)));
        }
        ACT.set(Some(Rc::new(ends)));
        let told = poll_once(pin!(&mut handle), &acts(9));
        ACT.set(None);
        assert!(told, "{polls_before}");
    }
}

/// Seen to fail: with the children dropped as they are, by an abort.
#[test]
fn children_that_panic_when_they_are_dropped_are_dropped_one_by_one() {
    struct Bad(Rc<Cell<usize>>);
    impl Drop for Bad {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
            panic!("on purpose");
        }
    }
    let dropped = Rc::new(Cell::new(0));
    {
        let mut parent = pin!(scope(async |s| {
            for _ in 0..3 {
                let bad = Bad(Rc::clone(&dropped));
                drop(s.spawn(async move {
                    let _bad = bad;
                    pending::<()>().await;
                }));
            }
        }));
        assert!(!poll_once(parent.as_mut(), Waker::noop()));
    }
    assert_eq!(dropped.get(), 3);
}

/// A waker that panics when it is dropped, and if it may also when it is called.
struct BadWaker(bool);

impl Wake for BadWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        assert!(!self.0, "the waker, on purpose");
    }
}

impl Drop for BadWaker {
    fn drop(&mut self) {
        panic!("the waker's destructor, on purpose");
    }
}

/// Seen to fail, by an abort: with the panic of a child and the waker of the parent dropped as they are.
#[test]
fn what_a_scope_holds_may_panic_when_a_panic_drops_it() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("the payload's destructor, on purpose");
        }
    }
    let mut parent = Box::pin(scope(async |s| {
        drop(s.spawn(async { std::panic::panic_any(Bad) }));
        pending::<()>().await;
    }));
    let waker = Waker::from(Arc::new(BadWaker(false)));
    assert!(!poll_once(parent.as_mut(), &waker));
    // That of the scope is the last.
    drop(waker);
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _parent = parent;
        panic!("the task, on purpose");
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"the task, on purpose"));
}

/// Seen to fail, by an abort: with the waker called as it is.
#[test]
fn a_waker_that_panics_when_a_child_ends_does_not_end_the_others() {
    let other = Cell::new(false);
    let mut parent = pin!(scope(async |s| {
        let handle = RefCell::new(s.spawn(async {}));
        let waker = Waker::from(Arc::new(BadWaker(true)));
        assert!(!poll_once(Pin::new(&mut *handle.borrow_mut()), &waker));
        drop(waker);
        drop(s.spawn(async { other.set(true) }));
        std::mem::forget(handle);
    }));
    assert!(poll_once(parent.as_mut(), Waker::noop()));
    assert!(other.get());
}
