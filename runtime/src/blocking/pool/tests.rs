use std::sync::mpsc;
use std::time::{Duration, Instant};

use async_task::Task;

use super::*;

fn pool(most: usize, idle_time: Duration) -> Arc<BlockingPool> {
    let cpus = crate::numa::thread::affinity_of_current().unwrap();
    let mut pool = BlockingPool::new("test-blk".into(), cpus, Arc::new(Origin::of_current()), most);
    Arc::get_mut(&mut pool).unwrap().idle_time = idle_time;
    pool
}

fn give<T: Send + 'static>(pool: &Arc<BlockingPool>, f: impl FnOnce() -> T + Send + 'static) -> Task<T> {
    let queue = Arc::clone(pool);
    let (runnable, task) = async_task::spawn(async move { f() }, move |runnable| queue.push(runnable));
    runnable.schedule();
    pool.ensure_thread();
    task
}

fn threads_become(pool: &BlockingPool, wanted: usize) {
    let mut state = pool.lock();
    while state.threads != wanted {
        state = pool.gone.wait(state).unwrap();
    }
}

/// A thread that gives up stops being counted under the lock of its last check: work that is pushed after it
/// finds no thread and starts one.
#[test]
fn idle_threads_end_and_later_work_gets_a_new_one() {
    let pool = pool(1, Duration::from_millis(1));
    for _ in 0..50 {
        let (tx, rx) = mpsc::channel();
        give(&pool, move || tx.send(()).unwrap()).detach();
        rx.recv().unwrap();
    }
    threads_become(&pool, 0);
    assert_eq!(pool.end(Instant::now()), 0);
}

#[test]
fn there_are_never_more_threads_than_allowed() {
    let pool = pool(2, Duration::from_secs(10));
    let (tx, rx) = mpsc::channel();
    let (hold, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    for _ in 0..5 {
        let (tx, held) = (tx.clone(), Arc::clone(&held));
        give(&pool, move || {
            tx.send(std::thread::current().id()).unwrap();
            held.lock().unwrap().recv().unwrap();
        })
        .detach();
    }
    let first = [rx.recv().unwrap(), rx.recv().unwrap()];
    assert_eq!(pool.lock().threads, 2);
    assert_eq!(pool.lock().queue.len(), 3);
    for _ in 0..5 {
        hold.send(()).unwrap();
    }
    for _ in 0..3 {
        assert!(first.contains(&rx.recv().unwrap()));
    }
    assert_eq!(pool.end(Instant::now() + Duration::from_secs(20)), 0);
}

#[test]
fn the_end_drops_what_has_not_begun_and_leaves_what_does_not_end() {
    let pool = pool(1, Duration::from_secs(10));
    let (begun, begins) = mpsc::channel();
    let (hold, held) = mpsc::channel::<()>();
    give(&pool, move || {
        begun.send(()).unwrap();
        held.recv().unwrap();
    })
    .detach();
    begins.recv().unwrap();
    let dropped = Arc::new(());
    let seen = Arc::clone(&dropped);
    give(&pool, move || drop(seen)).detach();
    assert_eq!(pool.end(Instant::now()), 1, "it runs on");
    assert_eq!(Arc::strong_count(&dropped), 1);
    // Work that comes after the end is dropped at once.
    let seen = Arc::clone(&dropped);
    give(&pool, move || drop(seen)).detach();
    assert_eq!(Arc::strong_count(&dropped), 1);
    hold.send(()).unwrap();
    threads_become(&pool, 0);
}

/// Seen to fail: with the calling thread counted, the end waits for it until the deadline, and counts one.
#[test]
fn a_thread_of_the_pool_that_ends_it_is_not_waited_for() {
    let pool = pool(2, IDLE);
    let (tx, rx) = mpsc::channel();
    let own = Arc::clone(&pool);
    give(&pool, move || tx.send(own.end(Instant::now() + Duration::from_secs(60))).unwrap()).detach();
    assert_eq!(rx.recv().unwrap(), 0);
    threads_become(&pool, 0);
}

/// Seen to fail: with threads counted until their last line, the place is never given back.
#[test]
fn a_thread_that_panics_before_its_first_closure_gives_its_place_back() {
    let pool = pool(1, IDLE);
    pool.lock().threads += 1;
    let place = Place { pool: Arc::clone(&pool), left: false };
    let queue = Arc::clone(&pool);
    let (runnable, task) = async_task::spawn(async {}, move |runnable| queue.push(runnable));
    runnable.schedule();
    let panicked = std::thread::spawn(move || {
        let _place = place;
        panic!("on purpose");
    });
    panicked.join().unwrap_err();
    assert_eq!(pool.lock().threads, 0);
    assert!(pool.refusal().unwrap().to_string().contains("panicked"));
    assert!(task.is_finished(), "what waited was dropped");
    drop(task.fallible());
}

/// A destructor of a socket that lingers may want a thread, and its own may be panicking.
///
/// Seen to fail, by an abort: with the event as it is.
#[test]
fn a_subscriber_that_panics_over_a_thread_that_cannot_be_had_may_do_so_while_its_thread_panics() {
    struct Wants(Arc<BlockingPool>);
    impl Drop for Wants {
        fn drop(&mut self) {
            self.0.ensure_thread();
        }
    }
    let cpus = crate::numa::thread::affinity_of_current().unwrap();
    // No thread has such a name.
    let pool = BlockingPool::new("\0".into(), cpus, Arc::new(Origin::of_current()), 2);
    // One that does not take the work, so that it waits.
    pool.lock().threads = 1;
    let task = give(&pool, || 7);
    let guard = crate::testing::at_the_next_event("annulus::blocking::pool", || panic!("the subscriber"));
    let wants = Wants(Arc::clone(&pool));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _wants = wants;
        panic!("on purpose");
    }));
    assert!(panicked.is_err() && crate::testing::has_acted());
    drop(guard);
    let (threads, waiting) = {
        let state = pool.lock();
        (state.threads, state.queue.len())
    };
    assert_eq!((threads, waiting), (1, 1), "the work waits for the other thread");
    drop(task);
    pool.close();
}
