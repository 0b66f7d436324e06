//! Work that blocks: where it runs, what becomes of its result.

mod common;

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use annulus::numa::thread::{affinity_of_current, inherited_policy};
use annulus::{BlockingError, spawn_blocking};
use common::on_one_core;

fn sigpipe_is_blocked() -> bool {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: pthread_sigmask writes the mask into `set`, which sigismember then reads.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), set.as_mut_ptr());
        libc::sigismember(set.as_ptr(), libc::SIGPIPE) == 1
    }
}

/// Seen to fail: without `Origin::take_on` the affinity is the core's one CPU.
#[test]
fn a_closure_runs_on_its_node_and_not_as_the_core_does() {
    let all = affinity_of_current().unwrap();
    let (policy, blocked) = (inherited_policy(), sigpipe_is_blocked());
    let (core, here, there) = on_one_core(|| async {
        assert!(sigpipe_is_blocked());
        let core = annulus::cores::cpu();
        let here = thread::current().id();
        let there = spawn_blocking(|| {
            (thread::current().id(), affinity_of_current().unwrap(), inherited_policy(), sigpipe_is_blocked())
        });
        Ok((core, here, there.await?))
    });
    let (thread, cpus, its_policy, its_blocked) = there;
    assert_ne!(thread, here);
    let topology = annulus::numa::topology::Topology::discover().unwrap();
    let node = topology.home_node(core).unwrap();
    assert_eq!(cpus, topology.node(node).unwrap().cpus);
    assert!(cpus.is_subset(&all) && cpus.contains(core));
    assert_eq!((its_policy, its_blocked), (policy, blocked));
}

#[test]
fn a_panic_comes_to_the_handle_and_the_thread_goes_on() {
    on_one_core(|| async {
        match spawn_blocking(|| panic!("the words")).await {
            Err(BlockingError::Panicked(payload)) => {
                assert_eq!(payload.downcast_ref::<&str>(), Some(&"the words"));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(spawn_blocking(|| 7).await?, 7);
        let e: annulus::Error = spawn_blocking(|| panic!("again")).await.unwrap_err().into();
        assert_eq!(e.kind(), annulus::ErrorKind::Panicked);
        Ok(())
    });
}

#[test]
fn a_dropped_handle_forgets_the_result_and_stops_nothing() {
    on_one_core(|| async {
        let (begun, begins) = mpsc::channel();
        let (go, goes) = mpsc::channel();
        let result = Arc::new(());
        let theirs = Arc::clone(&result);
        let handle = spawn_blocking(move || {
            begun.send(()).unwrap();
            goes.recv().unwrap();
            theirs
        });
        spawn_blocking(move || begins.recv()).await?.unwrap();
        drop(handle);
        go.send(()).unwrap();
        while Arc::strong_count(&result) > 1 {
            annulus::yield_now().await;
        }
        Ok(())
    });
}

/// The closures end each other: with fewer threads than closures this would hang.
#[test]
fn closures_run_beside_each_other() {
    on_one_core(|| async {
        let barrier = Arc::new(std::sync::Barrier::new(4));
        let handles: Vec<_> = (0..4)
            .map(|i| {
                let barrier = Arc::clone(&barrier);
                spawn_blocking(move || {
                    barrier.wait();
                    i
                })
            })
            .collect();
        for (i, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.await?, i);
        }
        Ok(())
    });
}

/// A result that comes after its core has ended wakes nobody, and the closure is waited for.
#[test]
fn the_end_waits_for_a_closure_that_runs() {
    let (ended, ends) = mpsc::channel();
    let (begun, begins) = mpsc::channel();
    let (go, goes) = mpsc::channel();
    let (run, runs) = mpsc::channel();
    let helper = thread::spawn(move || {
        begins.recv().unwrap();
        go.send(()).unwrap();
    });
    on_one_core(move || async move {
        let mut handle = spawn_blocking(move || {
            run.send(()).unwrap();
            goes.recv().unwrap();
            ended.send(()).unwrap();
        });
        std::future::poll_fn(|cx| {
            assert!(std::pin::Pin::new(&mut handle).poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        // Awaited by a task that the end drops.
        annulus::spawn(async move { handle.await.map_err(drop) }).detach();
        // One that has not begun when its runtime ends is dropped.
        runs.recv().unwrap();
        begun.send(()).unwrap();
        Ok(())
    });
    ends.try_recv().expect("it ended before the runtime did");
    helper.join().unwrap();
}

/// Seen to fail: without the wrapper around closures, the process aborts.
#[test]
fn a_closure_that_was_not_run_may_panic_when_it_is_dropped() {
    struct Bad(mpsc::Sender<()>);
    impl Drop for Bad {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
            panic!("dropped without having run");
        }
    }
    let cpu = annulus::numa::thread::affinity_of_current().unwrap().first().unwrap();
    let (go, goes) = mpsc::channel();
    let goes = std::sync::Mutex::new(Some(goes));
    annulus::Runtime::builder()
        .cores(cpu.to_string().parse().unwrap())
        .pool_bytes(1 << 20)
        .blocking_threads(1)
        .build()
        .unwrap()
        .run(move || {
            let goes = goes.lock().unwrap().take().unwrap();
            let bad = Bad(go.clone());
            async move {
                let (begun, begins) = mpsc::channel();
                // The one thread is busy until the other closure, which waits for it, has been dropped.
                spawn_blocking(move || {
                    begun.send(()).unwrap();
                    goes.recv().unwrap();
                })
                .detach();
                begins.recv().unwrap();
                spawn_blocking(move || drop(bad)).detach();
                Ok(())
            }
        })
        .unwrap();
}
