//! Children that borrow.

mod common;

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use annulus::{JoinError, scope, time};
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
                    let mut sleep = std::pin::pin!(time::sleep(Duration::from_millis(i as u64 % 7)));
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
