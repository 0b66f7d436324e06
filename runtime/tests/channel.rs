//! Channels between cores and from outside.

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::thread;

use annulus::channel::{Sender, TryRecvError, TrySendError, bounded, oneshot};
use annulus::cores::submit_to;
use common::{idle_cores, must_end, on_one_core, one_cpu, two_idle_cores};

struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn pending_once(future: impl Future) {
    assert!(pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[test]
fn messages_go_round_between_two_cores() {
    const ROUNDS: u64 = 2000;
    let Some(running) = two_idle_cores() else { return };
    let before = running.counters();
    running
        .handle()
        .submit_to_blocking(0, async || {
            let (back, mut returns) = bounded(4);
            let there: Sender<u64> = submit_to(1, async move || {
                let (there, mut arrives) = bounded(4);
                annulus::spawn(async move {
                    while let Some(number) = arrives.recv().await {
                        back.send(number).await.unwrap();
                    }
                })
                .detach();
                there
            })
            .await
            .unwrap();
            for number in 0..ROUNDS {
                there.send(number).await.unwrap();
                assert_eq!(returns.recv().await, Some(number));
            }
            drop(there);
            assert_eq!(returns.recv().await, None, "the echo has ended and dropped its sender");
        })
        .unwrap();
    let after = running.counters();
    let signals: u64 = after.iter().zip(&before).map(|(a, b)| a.signals_by_ring - b.signals_by_ring).sum();
    assert!(signals <= 2 * ROUNDS + 8, "{signals} signals for {ROUNDS} round trips");
    running.stop();
    running.wait().unwrap();
}

/// Many threads send through few places: all arrives, each sender's messages in their order.
#[test]
fn outside_threads_are_held_back_and_lose_nothing() {
    const THREADS: usize = 3;
    const EACH: usize = 3000;
    let running = idle_cores(&one_cpu());
    let (sender, sum) = running
        .handle()
        .submit_to_blocking(0, async || {
            let (sender, mut receiver) = bounded::<(usize, usize)>(8);
            let (done, sum) = oneshot();
            annulus::spawn(async move {
                let mut next = [0; THREADS];
                while let Some((thread, number)) = receiver.recv().await {
                    assert_eq!(number, next[thread]);
                    next[thread] += 1;
                    assert!(receiver.len() <= 8);
                }
                assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
                done.send(next.iter().sum::<usize>()).unwrap();
            })
            .detach();
            (sender, sum)
        })
        .unwrap();
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let sender = sender.clone();
            thread::spawn(move || (0..EACH).for_each(|n| sender.blocking_send((thread, n)).unwrap()))
        })
        .collect();
    drop(sender);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(sum.blocking_recv(), Ok(THREADS * EACH));
    running.stop();
    running.wait().unwrap();
}

#[test]
fn a_full_channel_says_so_and_takes_again_what_has_room() {
    on_one_core(|| async {
        let (sender, mut receiver) = bounded(2);
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        assert!(matches!(sender.try_send(3), Err(TrySendError::Full(3))));
        pending_once(sender.send(4));
        let waits = annulus::spawn({
            let sender = sender.clone();
            async move { sender.send(5).await }
        });
        annulus::yield_now().await;
        assert_eq!(receiver.recv().await, Some(1));
        waits.await.unwrap().unwrap();
        assert_eq!((receiver.recv().await, receiver.recv().await), (Some(2), Some(5)));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        drop(sender);
        assert_eq!(receiver.recv().await, None);
        Ok(())
    });
}

#[test]
fn a_dropped_receiver_gives_messages_back_and_drops_what_was_queued() {
    on_one_core(|| async {
        let dropped = Arc::new(AtomicUsize::new(0));
        let message = || Dropped(Arc::clone(&dropped));
        let (sender, receiver) = bounded(2);
        sender.try_send(message()).unwrap();
        sender.try_send(message()).unwrap();
        let waits = annulus::spawn({
            let (sender, message) = (sender.clone(), message());
            async move { sender.send(message).await.err().map(|back| drop(back.0)) }
        });
        annulus::yield_now().await;
        drop(receiver);
        assert_eq!(dropped.load(Ordering::SeqCst), 2);
        assert_eq!(waits.await.unwrap(), Some(()), "it waited for room and was told");
        assert!(sender.is_closed());
        assert!(matches!(sender.try_send(message()), Err(TrySendError::Closed(_))));
        assert_eq!(dropped.load(Ordering::SeqCst), 4);
        Ok(())
    });
}

/// Threads send while the receiver goes: what was sent is received, comes back, or is dropped; never kept.
#[test]
fn nothing_stays_in_a_channel_whose_receiver_goes() {
    const THREADS: usize = 3;
    const EACH: usize = 500;
    let running = idle_cores(&one_cpu());
    for _ in 0..5 {
        let dropped = Arc::new(AtomicUsize::new(0));
        let sender = running
            .handle()
            .submit_to_blocking(0, async || {
                let (sender, mut receiver) = bounded::<Dropped>(16);
                annulus::spawn(async move {
                    for _ in 0..EACH {
                        receiver.recv().await.unwrap();
                    }
                })
                .detach();
                sender
            })
            .unwrap();
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (sender, dropped) = (sender.clone(), Arc::clone(&dropped));
                thread::spawn(move || {
                    (0..EACH).for_each(|_| drop(sender.blocking_send(Dropped(Arc::clone(&dropped)))));
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        // Senders are refused from the first moment of the receiver's end on; when its core does something
        // else, it is over.
        running.handle().submit_to_blocking(0, async || ()).unwrap();
        // The sender is still there: what it keeps alive must be empty.
        assert_eq!(dropped.load(Ordering::SeqCst), THREADS * EACH);
        drop(sender);
    }
    running.stop();
    running.wait().unwrap();
}

/// A task whose channel always has a message shares the core with others.
#[test]
fn a_channel_that_is_always_full_spends_the_budget() {
    on_one_core(|| async {
        let (sender, mut receiver) = bounded(1);
        let talk = annulus::spawn(async move { while sender.send(()).await.is_ok() {} });
        let mut others = 0;
        let listen = annulus::spawn(async move {
            loop {
                receiver.recv().await;
            }
        });
        while others < 50 {
            annulus::yield_now().await;
            others += 1;
        }
        listen.cancel().await;
        talk.await.unwrap();
        Ok(())
    });
}

#[test]
fn one_value_crosses_threads_and_a_lost_side_is_seen() {
    on_one_core(|| async {
        let (sender, receiver) = oneshot();
        let thread = thread::spawn(move || sender.send(7));
        assert_eq!(receiver.await, Ok(7));
        thread.join().unwrap().unwrap();
        let (sender, receiver) = oneshot::<u8>();
        drop(sender);
        assert!(receiver.await.is_err());
        let (mut sender, receiver) = oneshot::<u8>();
        assert!(!sender.is_closed());
        let thread = thread::spawn(move || drop(receiver));
        sender.closed().await;
        thread.join().unwrap();
        assert_eq!(sender.send(1), Err(1));
        Ok(())
    });
}

/// Seen to fail: with tasks that are dropped where they are woken, the receiver's destructor wakes a sender
/// under the lock of those that wait for room, the sender's destructor takes that lock, and the runtime does
/// not end.
#[test]
fn a_core_ends_while_senders_wait_for_room() {
    let running = annulus::Runtime::builder()
        .cores(one_cpu().parse().unwrap())
        .pool_bytes(1 << 20)
        .ring_entries(64)
        .build()
        .unwrap()
        .start(|| async {
            let (sender, receiver) = bounded::<u32>(1);
            annulus::spawn(async move {
                let _receiver = receiver;
                std::future::pending::<()>().await;
            })
            .detach();
            annulus::yield_now().await;
            sender.try_send(0).unwrap();
            for number in 1..3 {
                let sender = sender.clone();
                annulus::spawn(async move { drop(sender.send(number).await) }).detach();
            }
            annulus::yield_now().await;
            annulus::Ok(())
        })
        .unwrap();
    must_end(running);
}

/// A message whose destructor panics, if it is told to.
struct Bomb(bool);

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!self.0, "in a destructor");
    }
}

/// Seen to fail: with the destructor's panic passed on, to whoever drops the receiver.
#[test]
fn a_destructor_that_panics_keeps_nobody_waiting() {
    on_one_core(|| async {
        let (sender, receiver) = bounded(2);
        let dropped = Arc::new(AtomicUsize::new(0));
        assert!(sender.try_send((Bomb(true), None)).is_ok());
        assert!(sender.try_send((Bomb(false), Some(Dropped(Arc::clone(&dropped))))).is_ok());
        let waits = annulus::spawn(async move { sender.send((Bomb(false), None)).await.is_err() });
        annulus::yield_now().await;
        drop(receiver);
        assert_eq!(dropped.load(Ordering::SeqCst), 1, "what lay behind it is dropped too");
        assert!(waits.await.unwrap());
        Ok(())
    });
}

/// Seen to fail: with a budget that must be a core's, the poll elsewhere panics.
#[test]
fn a_send_that_was_begun_on_a_core_may_go_on_elsewhere() {
    let running = idle_cores(&one_cpu());
    let (sender, receiver, mut send) = running
        .handle()
        .submit_to_blocking(0, async || {
            let (sender, mut receiver) = bounded::<usize>(256);
            let theirs = sender.clone();
            let mut send = Box::pin(async move {
                for number in 0..256 {
                    theirs.send(number).await.unwrap();
                }
            });
            // A poll may send this many; the rest waits for the next poll.
            let waits = send.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            let (done, gone) = oneshot();
            annulus::spawn(async move {
                let mut sum = 0;
                while let Some(number) = receiver.recv().await {
                    sum += number;
                }
                assert!(done.send(sum).is_ok());
            })
            .detach();
            assert!(waits.is_pending());
            (sender, gone, send)
        })
        .unwrap();
    assert!(send.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    drop((send, sender));
    let sum = running.handle().submit_to_blocking(0, async move || receiver.await.unwrap()).unwrap();
    assert_eq!(sum, (0..256).sum::<usize>());
    running.stop();
    running.wait().unwrap();
}
