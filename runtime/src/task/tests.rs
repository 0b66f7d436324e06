//! Tasks on a core that has a thread and a wake list, and nothing else: no ring. So that Miri and the thread
//! sanitizer can look at all that is unsafe of a task.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Wake};
use std::thread;

use super::raw::Owner;
use super::waker::Wakes;
use super::woken::Woken;
use super::*;
use crate::contained::Payload;
use crate::sync::mailbox::WakeList;

/// What other threads see of a core.
struct Shared {
    woken: WakeList<Woken<Shared>>,
}

/// A core.
struct TestCore {
    shared: Arc<Shared>,
    tasks: queue::Tasks<Shared>,
}

thread_local! {
    static HERE: Cell<*const TestCore> = const { Cell::new(ptr::null()) };
}

static WAKERS: RawWakerVTable = waker::functions::<Shared>();

impl Owner for Shared {
    fn wakers() -> &'static RawWakerVTable {
        &WAKERS
    }
}

impl Wakes for Shared {
    fn here<R>(owner: *const Self, f: impl FnOnce(&queue::Tasks<Self>) -> R) -> Option<R> {
        // SAFETY: the core of this thread is there until `on_a_core` has reset this.
        let core = unsafe { HERE.get().as_ref() }?;
        ptr::eq(Arc::as_ptr(&core.shared), owner).then(|| f(&core.tasks))
    }

    fn take(&self, woken: Woken<Self>) {
        drop(self.woken.push(woken));
    }
}

type Handle<T> = handle::Handle<T, Shared>;

impl TestCore {
    #[track_caller]
    fn spawn<F: Future + 'static>(&self, future: F) -> Handle<F::Output> {
        let task = self.tasks.spawn(future, Location::caller());
        // SAFETY: it was made of this future just now, on this thread.
        unsafe { Handle::of(task) }
    }

    /// Polls each task that is ready.
    fn tick(&self) {
        for woken in self.shared.woken.take_all() {
            self.tasks.take_in(woken);
        }
        for _ in 0..self.tasks.ready_len() {
            self.tasks.pop().expect("it was counted").run();
        }
    }
}

/// Runs `f` with a core, and ends the core as a core ends.
fn on_a_core<R>(f: impl FnOnce(&TestCore) -> R) -> R {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            HERE.set(ptr::null());
        }
    }
    let shared = Arc::new(Shared { woken: WakeList::new() });
    let core = TestCore { shared: Arc::clone(&shared), tasks: queue::Tasks::new(shared) };
    HERE.set(&raw const core);
    let leave = Leave;
    let result = f(&core);
    core.tasks.drop_all();
    drop(core.shared.woken.close());
    drop(leave);
    result
}

/// Polls a handle on behalf of nobody.
fn output<T>(handle: &mut Handle<T>) -> Option<Result<T, Payload>> {
    match handle.poll(Waker::noop()) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the task is not over"),
    }
}

/// Notes that it was dropped, and where.
struct Dropped(Arc<AtomicUsize>, thread::ThreadId);

impl Dropped {
    fn counted_by(count: &Arc<AtomicUsize>) -> Self {
        Self(Arc::clone(count), thread::current().id())
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        assert_eq!(thread::current().id(), self.1, "dropped on another thread");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A future that waits for ever, and has given its waker away.
fn gives_waker(to: &mpsc::Sender<Waker>) -> impl Future<Output = ()> + use<> {
    let to = to.clone();
    poll_fn(move |cx| {
        drop(to.send(cx.waker().clone()));
        Poll::Pending
    })
}

#[test]
fn a_task_runs_when_it_is_woken_and_leaves_its_output() {
    on_a_core(|core| {
        let polls = Rc::new(Cell::new(0));
        let counts = Rc::clone(&polls);
        let mut handle = core.spawn(async move {
            for _ in 0..3 {
                counts.set(counts.get() + 1);
                yield_now().await;
            }
            String::from("its output")
        });
        assert_eq!(polls.get(), 0);
        for turn in 1..=3 {
            assert!(handle.poll(Waker::noop()).is_pending());
            core.tick();
            assert_eq!(polls.get(), turn);
        }
        core.tick();
        assert_eq!(output(&mut handle).unwrap().unwrap(), "its output");
        assert!(output(&mut handle).is_none(), "it was taken");
    });
}

/// A handle that waits is woken once the future has been dropped.
#[test]
fn who_awaits_a_handle_is_woken_at_the_end() {
    on_a_core(|core| {
        let (told, dropped) = (Rc::new(Cell::new(false)), Arc::new(AtomicUsize::new(0)));
        let holds = Dropped::counted_by(&dropped);
        let mut awaited = core.spawn(async move {
            let _holds = holds;
            yield_now().await;
        });
        let tell = Rc::clone(&told);
        let awaiter = core.spawn(async move {
            poll_fn(|cx| awaited.poll(cx.waker())).await.unwrap().unwrap();
            assert_eq!(dropped.load(Ordering::Relaxed), 1);
            tell.set(true);
        });
        awaiter.detach();
        for _ in 0..3 {
            core.tick();
        }
        assert!(told.get());
    });
}

#[test]
fn a_handle_aborts_its_task_when_it_is_dropped_and_not_when_it_is_detached() {
    on_a_core(|core| {
        let (aborted, detached) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let future = |count| {
            let holds = Dropped::counted_by(count);
            async move {
                let _holds = holds;
                yield_now().await;
                pending::<()>().await;
            }
        };
        // Before the first poll, in the queue after it, and while it waits.
        for turns in 0..3 {
            let [one, other] = [&aborted, &detached].map(|count| core.spawn(future(count)));
            for _ in 0..turns {
                core.tick();
            }
            drop(one);
            other.detach();
            assert_eq!(aborted.load(Ordering::Relaxed), turns, "not in the call");
            core.tick();
            assert_eq!(aborted.load(Ordering::Relaxed), turns + 1);
        }
        assert_eq!(detached.load(Ordering::Relaxed), 0);
    });
}

/// A task that drops its own handle in its poll, and one whose output nobody takes.
#[test]
fn a_task_may_drop_its_own_handle() {
    on_a_core(|core| {
        for ready in [false, true] {
            let dropped = Arc::new(AtomicUsize::new(0));
            let own: Rc<RefCell<Option<Handle<Dropped>>>> = Rc::default();
            let (holds, left) = (Dropped::counted_by(&dropped), Dropped::counted_by(&dropped));
            let handle = core.spawn({
                let own = Rc::clone(&own);
                async move {
                    let _holds = holds;
                    drop(own.take());
                    if !ready {
                        pending::<()>().await;
                    }
                    left
                }
            });
            *own.borrow_mut() = Some(handle);
            core.tick();
            assert_eq!(dropped.load(Ordering::Relaxed), 2);
        }
    });
}

/// Wakes its task, and drops another's handle, when it is dropped.
struct Meddles(Waker, Option<Handle<()>>);

impl Drop for Meddles {
    fn drop(&mut self) {
        self.0.wake_by_ref();
        let clone = self.0.clone();
        clone.wake();
        self.1 = None;
    }
}

#[test]
fn a_destructor_may_wake_its_own_task_and_drop_handles() {
    on_a_core(|core| {
        let meddles = |other| async move {
            let mut meddles = Some(other);
            poll_fn(|cx| {
                let other = meddles.take().expect("polled once");
                Poll::Ready(Meddles(cx.waker().clone(), Some(other)))
            })
            .await
        };
        // As the output that nobody takes, as the output in its handle, and as a part of the future.
        core.spawn(meddles(core.spawn(pending()))).detach();
        let in_handle = core.spawn(meddles(core.spawn(pending())));
        let other = core.spawn(pending());
        let in_future = core.spawn(async move {
            let _held = meddles(other).await;
            pending::<()>().await;
        });
        core.tick();
        drop(in_handle);
        drop(in_future);
        for _ in 0..3 {
            core.tick();
        }
        assert!(core.tasks.is_idle());
        // And at the end.
        let other = core.spawn(pending());
        core.spawn(async move {
            let _held = meddles(other).await;
            pending::<()>().await;
        })
        .detach();
        core.tick();
    });
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a destructor, on purpose");
    }
}

/// Seen to fail: with the output dropped as it is, the panic comes out of the poll.
#[test]
fn panics_stay_in_their_task() {
    on_a_core(|core| {
        let mut polled = core.spawn(async { panic!("a poll, on purpose") });
        let mut dropped = core.spawn(async {
            let bomb = Bomb;
            poll_fn(|_| Poll::Ready(_ = &bomb)).await;
        });
        core.spawn(async { Bomb }).detach();
        let left = core.spawn(async { Bomb });
        let aborted = core.spawn(async {
            let _bomb = Bomb;
            pending::<()>().await;
        });
        core.tick();
        drop((left, aborted));
        core.tick();
        assert!(output(&mut polled).unwrap().is_err());
        assert!(output(&mut dropped).unwrap().is_err());
    });
}

/// Panics when it is woken and when it is dropped.
struct Bad;

impl Wake for Bad {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        panic!("a waker, on purpose");
    }
}

impl Drop for Bad {
    fn drop(&mut self) {
        panic!("the destructor of a waker, on purpose");
    }
}

/// Seen to fail: with the waker called as it is, the panic comes out of the poll.
#[test]
fn a_waker_that_panics_may_await_a_handle() {
    on_a_core(|core| {
        let bad = || Waker::from(Arc::new(Bad));
        let mut called = core.spawn(yield_now());
        let mut replaced = core.spawn(pending::<()>());
        for handle in [&mut called, &mut replaced] {
            let waker = bad();
            assert!(handle.poll(&waker).is_pending());
            std::mem::forget(waker.clone());
        }
        let waker = std::mem::ManuallyDrop::new(bad());
        assert!(replaced.poll(&waker).is_pending());
        assert!(replaced.poll(Waker::noop()).is_pending());
        core.tick();
        core.tick();
        assert!(output(&mut called).unwrap().is_ok());
    });
}

/// For Miri and the sanitizers: elsewhere a count that two threads change without a lock is seldom wrong.
#[test]
fn wakers_may_be_used_anywhere_and_after_the_end() {
    let (rounds, tasks) = if cfg!(miri) { (3, 2) } else { (10, 20) };
    for _ in 0..rounds {
        let (to, wakers) = mpsc::channel::<Waker>();
        let ended = Arc::new(AtomicBool::new(false));
        let tormentors = [to.clone(), to.clone()].map(|back| {
            let ended = Arc::clone(&ended);
            let (give, given) = mpsc::channel::<Waker>();
            let thread = thread::spawn(move || {
                let mut kept: Vec<Waker> = Vec::new();
                while !ended.load(Ordering::Acquire) {
                    kept.extend(given.try_iter());
                    kept.iter().for_each(Waker::wake_by_ref);
                    kept.clone().into_iter().for_each(Waker::wake);
                    // Made here and dropped at its core.
                    kept.first().into_iter().for_each(|waker| drop(back.send(waker.clone())));
                    if kept.len() > tasks {
                        kept.clear();
                    }
                    thread::yield_now();
                }
                // The core has ended.
                for waker in kept {
                    waker.wake_by_ref();
                    let clone = waker.clone();
                    clone.wake();
                }
            });
            (give, thread)
        });
        let dropped = Arc::new(AtomicUsize::new(0));
        let handle = on_a_core(|core| {
            for _ in 0..tasks {
                let (holds, gives) = (Dropped::counted_by(&dropped), gives_waker(&to));
                core.spawn(async move {
                    let _holds = holds;
                    gives.await;
                })
                .detach();
            }
            let kept = core.spawn(gives_waker(&to));
            for turn in 0..10 * tasks {
                core.tick();
                for (i, waker) in wakers.try_iter().enumerate() {
                    drop(tormentors[(turn + i) % 2].0.send(waker));
                }
                thread::yield_now();
            }
            kept
        });
        assert_eq!(dropped.load(Ordering::Relaxed), tasks);
        ended.store(true, Ordering::Release);
        for (_, thread) in tormentors {
            thread.join().unwrap();
        }
        // A handle may outlive its core, on its thread.
        assert!(handle.is_over());
    }
}

/// A waker changes the state of a task first and pushes it onto the wake list then. The core may end between
/// the two.
#[test]
fn a_wake_that_comes_to_a_closed_list_is_lost_and_drops_nothing_of_the_task() {
    let (to, wakers) = mpsc::channel();
    let dropped = Arc::new(AtomicUsize::new(0));
    on_a_core(|core| {
        let (holds, gives) = (Dropped::counted_by(&dropped), gives_waker(&to));
        let future = async move {
            let _holds = holds;
            gives.await;
        };
        core.spawn(future).detach();
        core.tick();
        drop(core.shared.woken.close());
        let waker = wakers.recv().unwrap();
        thread::spawn(move || {
            waker.wake_by_ref();
            waker.wake();
        })
        .join()
        .unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
    });
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
}

/// Wakers of a task that are equal are known to be, and a task that waits with the same one costs no clone.
#[test]
fn wakers_of_a_task_are_equal_wherever_they_were_cloned() {
    on_a_core(|core| {
        let (to, wakers) = mpsc::channel();
        core.spawn(gives_waker(&to)).detach();
        core.spawn(gives_waker(&to)).detach();
        core.tick();
        let [one, other] = [(); 2].map(|()| wakers.recv().unwrap());
        let there = thread::scope(|scope| scope.spawn(|| one.clone()).join().unwrap());
        assert!(one.will_wake(&there) && !one.will_wake(&other));
        let cx = Context::from_waker(&there);
        let mut handle = core.spawn(pending::<()>());
        assert!(handle.poll(cx.waker()).is_pending() && handle.poll(cx.waker()).is_pending());
        cx.waker().wake_by_ref();
    });
}
