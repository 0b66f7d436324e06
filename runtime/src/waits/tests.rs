//! Waits whose cause is planted.

use std::io::{Read, Write};
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::*;
use crate::core::ask::ask;
use crate::net::TcpStream;
use crate::op::read::Read as ReadOperation;
use crate::op::waits_for::WaitsFor;
use crate::{Builder, Runtime, spawn, spawn_blocking, yield_now};

/// What is planted lasts this long. More than enough to be told from what else a wait holds.
const LONG: Duration = Duration::from_millis(50);

fn runtime() -> Builder {
    Runtime::builder().most_cores(1).measure_waits(true)
}

/// Where the time of `future` went.
async fn of<F: Future<Output = ()>>(future: F) -> Waits {
    watched(async {
        future.await;
        so_far().unwrap()
    })
    .await
}

/// A connection to a peer that is a thread: `peer` gets the other end.
async fn connection(peer: impl FnOnce(StdStream) + Send + 'static) -> TcpStream {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || peer(listener.accept().unwrap().0));
    TcpStream::connect(address).await.unwrap()
}

fn spent_most_on(waits: &Waits, what: &str) {
    let most = waits.spent.iter().max_by_key(|(_, time)| *time).unwrap();
    assert_eq!(most.0, what, "{waits:?}");
    assert!(most.1 >= LONG * 9 / 10, "{waits:?}");
}

#[test]
fn a_wait_has_the_name_of_what_ended_it() {
    runtime()
        .build()
        .unwrap()
        .run(|| async {
            spent_most_on(&of(crate::time::sleep(LONG)).await, TIMER);

            let stream = connection(|mut peer| {
                std::thread::sleep(LONG);
                peer.write_all(b"x").unwrap();
                drop(peer.read(&mut [0]));
            })
            .await;
            spent_most_on(&of(async { drop(stream.recv().await.unwrap()) }).await, RECEIVE);
            drop(stream);

            const BULK: usize = 8 << 20;
            let stream = connection(|mut peer| {
                std::thread::sleep(LONG);
                peer.read_exact(&mut vec![0; BULK]).unwrap();
            })
            .await;
            let sent = of(async { drop(stream.send_all(vec![0; BULK]).await.unwrap()) }).await;
            assert!(sent.of(SEND) >= LONG / 2, "{sent:?}");

            // A file whose bytes come late.
            let (end, mut other) = std::io::pipe().unwrap();
            std::thread::spawn(move || {
                std::thread::sleep(LONG);
                other.write_all(b"x").unwrap();
            });
            let file = Rc::new(OwnedFd::from(end));
            let read = of(async {
                drop(ask(ReadOperation { file, buf: Vec::with_capacity(1), offset: u64::MAX }).await)
            });
            spent_most_on(&read.await, DISK);

            let thread = of(async { spawn_blocking(|| std::thread::sleep(LONG)).await.unwrap() });
            spent_most_on(&thread.await, OTHERS);
            crate::Ok(())
        })
        .unwrap();
}

/// Another task keeps the core: after the wake that is the wait for the task, and before it the core's late
/// enter.
#[test]
fn a_core_that_is_kept_busy_is_named() {
    runtime()
        .build()
        .unwrap()
        .run(|| async {
            let busy = || spawn(async { std::thread::sleep(LONG) }).detach();
            // Woken by itself, and behind the other one.
            let woken = of(async {
                busy();
                yield_now().await;
            })
            .await;
            spent_most_on(&woken, TASK);

            let (tell, told) = channel::<()>();
            let stream = connection(move |mut peer| {
                told.recv().unwrap();
                peer.write_all(b"x").unwrap();
                drop(peer.read(&mut [0]));
            })
            .await;
            // The byte comes while the core is busy, and not before.
            let late = of(async {
                spawn(async move {
                    tell.send(()).unwrap();
                    std::thread::sleep(LONG);
                })
                .detach();
                drop(stream.recv().await.unwrap());
            })
            .await;
            spent_most_on(&late, TICKS);
            crate::Ok(())
        })
        .unwrap();
}

#[test]
fn a_wait_may_be_given_a_name_once() {
    runtime()
        .build()
        .unwrap()
        .run(|| async {
            let named = of(async {
                during("a lease", crate::time::sleep(LONG)).await;
                crate::time::sleep(LONG).await;
                add("another", LONG);
            })
            .await;
            for what in ["a lease", TIMER, "another"] {
                assert!(named.of(what) >= LONG * 9 / 10 && named.of(what) < LONG * 3, "{named:?}");
            }
            let over = of(async {
                crate::time::sleep(LONG).await;
                let last = start_over().unwrap();
                assert!(last.lasted >= LONG * 9 / 10, "{last:?}");
            })
            .await;
            assert_eq!(over.of(TIMER), Duration::ZERO, "{over:?}");
            assert!(so_far().is_none() && start_over().is_none());
            crate::Ok(())
        })
        .unwrap();
}

/// Without notes of the core it is known how long, and not why.
#[test]
fn without_notes_everything_is_for_others() {
    Runtime::builder()
        .most_cores(1)
        .build()
        .unwrap()
        .run(|| async {
            spent_most_on(&of(crate::time::sleep(LONG)).await, OTHERS);
            crate::Ok(())
        })
        .unwrap();
}

/// A task of another core has a waker that wakes this one, and that core calls it while it handles a
/// completion. Seen to fail: with the notes of whichever core wakes, by a difference of ticks that overflows.
#[test]
fn a_wake_by_another_core_is_for_others() {
    runtime()
        .build()
        .unwrap()
        .run(|| async {
            let elsewhere = || Arc::new(Note::new(Waker::noop().clone()));
            let note = std::thread::spawn(elsewhere).join().unwrap();
            note.tick.store(1 << 40, Ordering::Relaxed);
            Core::with(|core| core.notes.completes((WaitsFor::Send, false), 0, 4));
            Waker::from(Arc::clone(&note)).wake();
            assert_eq!(WaitsFor::of(note.cause.load(Ordering::Relaxed)), WaitsFor::Others);
            assert!(note.woken.load(Ordering::Relaxed) > 0);
            crate::Ok(())
        })
        .unwrap();
}

/// Seen to fail, by an overflow.
#[test]
fn times_of_the_application_add_up_to_a_limit() {
    let future = pin!(watched(async {
        add("mine", Duration::MAX);
        add("mine", LONG);
        so_far().unwrap()
    }));
    let Poll::Ready(waits) = future.poll(&mut Context::from_waker(Waker::noop())) else { panic!("it waits") };
    assert_eq!(waits.of("mine"), Duration::MAX);
}

/// Destructors of a thread's values run when others of them have gone. Seen to fail, by an abort: with a
/// future that is watched there, and with a time that is added.
#[test]
fn at_the_end_of_a_thread_nothing_is_watched() {
    struct Last(std::sync::mpsc::Sender<Poll<bool>>);
    impl Drop for Last {
        fn drop(&mut self) {
            add("mine", LONG);
            let future = pin!(watched(async { so_far().is_none() }));
            self.0.send(future.poll(&mut Context::from_waker(Waker::noop()))).unwrap();
        }
    }
    thread_local! {
        static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
    }
    let (tell, told) = channel();
    std::thread::spawn(move || {
        // The first that is used is the last to go.
        LAST.set(Some(Last(tell)));
        assert!(so_far().is_none());
    });
    assert_eq!(told.recv(), Ok(Poll::Ready(true)));
}
