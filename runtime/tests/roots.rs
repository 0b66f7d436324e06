//! Programs of one body, of one core that differs, and of a value from each core.

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use annulus::cores::{self, Sharded};
use annulus::{ErrorKind, Runtime, TaskTracker};
use common::hostile::around;
use common::{on_first_cpu, small, two_cpus};

fn one_core() -> Runtime {
    on_first_cpu(small()).build().unwrap()
}

fn two_cores() -> Option<Runtime> {
    let cores = two_cpus()?.parse().unwrap();
    Some(small().cores(cores).build().unwrap())
}

/// A value that counts its drops, and says on which core.
struct Told(Arc<AtomicUsize>);

impl Drop for Told {
    fn drop(&mut self) {
        cores::index();
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_body_gives_its_value_and_need_not_be_send() {
    let value = one_core().block_on(async || {
        around(async {
            let held = Rc::new(Cell::new(40));
            annulus::yield_now().await;
            held.get() + 2
        })
        .await
    });
    assert_eq!(value.unwrap(), 42);
}

/// Seen to fail: with a first core that asks nobody to stop, this never ends.
#[test]
fn other_cores_serve_until_the_body_has_ended() {
    let Some(runtime) = two_cores() else { return };
    let dropped = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&dropped);
    let index = runtime.block_on(async move || {
        let index = cores::submit_to(1, async || {
            // A task that nobody awaits ends with its core.
            annulus::spawn(async move {
                let _told = Told(told);
                std::future::pending::<()>().await;
            })
            .detach();
            cores::index()
        });
        index.await.unwrap()
    });
    assert_eq!((index.unwrap(), dropped.load(Ordering::Relaxed)), (1, 1));
}

/// Seen to fail: with the panic let out into the task, `block_on` gives an error.
#[test]
fn a_panic_of_the_body_comes_with_its_payload_once_all_have_ended() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&dropped);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        one_core().block_on(async move || {
            annulus::spawn(async move {
                let _told = Told(told);
                std::future::pending::<()>().await;
            })
            .detach();
            annulus::yield_now().await;
            std::panic::panic_any(17_u32)
        })
    }));
    let payload = panicked.map(drop).expect_err("the body has panicked");
    assert_eq!((payload.downcast_ref(), dropped.load(Ordering::Relaxed)), (Some(&17_u32), 1));
}

#[test]
fn the_first_core_may_have_a_root_of_its_own() {
    let Some(runtime) = two_cores() else { return };
    let others = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&others);
    let value = runtime.run_with_first(
        async || {
            assert_eq!(cores::index(), 0);
            cores::submit_to(1, async || ()).await?;
            annulus::Ok(String::from("first"))
        },
        move || {
            let seen = Arc::clone(&seen);
            async move {
                seen.fetch_add(cores::index(), Ordering::Relaxed);
                cores::stopping().await;
                annulus::Ok(())
            }
        },
    );
    assert_eq!((value.unwrap().as_str(), others.load(Ordering::Relaxed)), ("first", 1));
}

#[test]
fn an_error_of_another_core_ends_the_first() {
    let Some(runtime) = two_cores() else { return };
    let ended = runtime.run_with_first(
        async || {
            std::future::pending::<()>().await;
            annulus::Ok(())
        },
        || async { Err(annulus::Error::other("on purpose")) },
    );
    assert_eq!(ended.unwrap_err().to_string(), "on purpose");
}

/// Seen to fail: with values in the order in which they came.
#[test]
fn each_core_gives_a_value_in_the_order_of_the_cores() {
    let Some(runtime) = two_cores() else { return };
    let values = runtime.run_for_each(|| async {
        if cores::index() == 0 {
            // The other's comes first.
            cores::submit_to(1, async || cores::stopping().await).await.ok();
        }
        annulus::Ok(cores::index())
    });
    // Core 0 waited until core 1 had ended, which nobody asked for but its own root.
    assert_eq!(values.unwrap(), [0, 1]);
    let one = one_core().run_for_each(|| async { Err::<(), _>(annulus::Error::other("on purpose")) });
    assert_eq!(one.unwrap_err().to_string(), "on purpose");
}

#[test]
fn as_many_cores_as_are_asked_for_and_no_core_is_refused() {
    let runtime = small().most_cores(1).build().unwrap();
    assert_eq!(runtime.plan().cores().len(), 1);
    let refused = small().most_cores(0).build().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Input);
}

/// Seen to fail: with cores that come up without making theirs.
#[test]
fn a_sharded_is_there_before_any_root_begins() {
    let Some(mut runtime) = two_cores() else { return };
    let dropped = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&dropped);
    let sharded = runtime.sharded(move || annulus::Ok((cores::index(), Told(Arc::clone(&told)))));
    let early = common::on_one_core({
        let sharded = sharded.clone();
        async move || annulus::Ok(sharded.invoke_on(0, async |_| ()).await.unwrap_err().kind())
    });
    assert_eq!(early, ErrorKind::Ended, "nobody is there to be asked before the start");
    let asked = Arc::new(AtomicUsize::new(0));
    let indices = runtime.run_for_each(move || {
        let here = sharded.local().unwrap().0;
        let (sharded, asked) = (sharded.clone(), Arc::clone(&asked));
        async move {
            let there = sharded.invoke_on(1 - here, async |(index, _)| *index).await?;
            assert_eq!(there, 1 - here);
            // Nobody ends before both have asked.
            asked.fetch_add(1, Ordering::Relaxed);
            while asked.load(Ordering::Relaxed) < 2 {
                annulus::yield_now().await;
            }
            annulus::Ok(here)
        }
    });
    assert_eq!((indices.unwrap(), dropped.load(Ordering::Relaxed)), (vec![0, 1], 2));
}

/// Seen to fail: with the result of the makers not looked at.
#[test]
fn a_shard_that_cannot_be_made_is_the_error_of_the_start() {
    let mut runtime = one_core();
    let first = runtime.sharded(|| annulus::Ok(RefCell::new(Vec::<u8>::new())));
    let _second: Sharded<()> = runtime.sharded(|| Err(annulus::Error::other("on purpose")));
    let ended = runtime.block_on(async move || first.local().is_ok());
    assert_eq!(ended.unwrap_err().to_string(), "on purpose");

    let mut runtime = one_core();
    let _sharded: Sharded<()> = runtime.sharded(|| panic!("in a maker, on purpose"));
    let ended = runtime.run(|| async { Ok(()) }).unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::Panicked);
    assert!(ended.to_string().contains("in a maker"), "{ended}");
}

/// Seen to fail: with a place that goes when the task is aborted, and not its future.
#[test]
fn a_tracker_waits_for_futures_to_be_dropped() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&dropped);
    one_core()
        .block_on(async move || {
            around(async move {
                let tracker = TaskTracker::new();
                tracker.all_ended().await;
                for i in 0..10 {
                    let told = Told(Arc::clone(&told));
                    tracker.spawn(async move {
                        let _told = told;
                        if i < 5 {
                            return annulus::yield_now().await;
                        }
                        std::future::pending::<()>().await;
                    });
                }
                assert_eq!(tracker.len(), 10);
                while tracker.len() > 5 {
                    annulus::yield_now().await;
                }
                let waits = annulus::spawn({
                    let tracker = tracker.clone();
                    async move { tracker.all_ended().await }
                });
                annulus::yield_now().await;
                assert!(!waits.is_finished());
                // Never polled.
                let unpolled = Told(Arc::clone(&told));
                tracker.spawn(async move { drop(unpolled) });
                tracker.abort_all();
                assert_eq!(tracker.len(), 6, "their futures are there still");
                waits.await.unwrap();
                assert_eq!((told.load(Ordering::Relaxed), tracker.is_empty()), (11, true));
            })
            .await;
        })
        .unwrap();
    assert_eq!(dropped.load(Ordering::Relaxed), 11);
}

/// A panic of one, a task that spawns another, and handles that have gone.
#[test]
fn a_tracker_survives_what_its_tasks_do() {
    let done = one_core().block_on(async || {
        let tracker = TaskTracker::new();
        let done = Rc::new(Cell::new(0));
        tracker.spawn(async { panic!("on purpose") });
        let (inner, count) = (tracker.clone(), Rc::clone(&done));
        tracker.spawn(async move {
            inner.spawn(async move {
                annulus::yield_now().await;
                count.set(count.get() + 1);
            });
        });
        tracker.all_ended().await;
        let count = Rc::clone(&done);
        tracker.spawn(async move { count.set(count.get() + 1) });
        drop(tracker);
        while Rc::strong_count(&done) > 1 {
            annulus::yield_now().await;
        }
        done.get()
    });
    assert_eq!(done.unwrap(), 2);
}
