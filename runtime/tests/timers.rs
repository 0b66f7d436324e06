//! Timers: how many, how late, and what moves them.

mod common;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use annulus::time::{
    Elapsed, MissedTick, deadline_after, interval, interval_at, sleep, sleep_until, timeout, timeout_at,
};
use annulus::{ErrorKind, Runtime, spawn};
use common::{bulk, on_one_core};

const MS: Duration = Duration::from_millis(1);

/// Polls once and says whether it is ready.
async fn ready<F: Future + Unpin>(future: &mut F) -> bool {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx).is_ready())).await
}

#[test]
fn a_million_pending_timers_keep_no_other_from_firing() {
    let count = bulk(1 << 20);
    on_one_core(move || async move {
        let mut sleeps: Vec<_> = (0..count as u64)
            .map(|n| sleep(Duration::from_secs(600) + Duration::from_micros(n * 977)))
            .collect();
        for sleep in &mut sleeps {
            assert!(!ready(sleep).await);
        }
        let due = deadline_after(2 * MS);
        sleep_until(due).await;
        assert!(due <= Instant::now());
        // In an order of its own: 2^20 has no odd factor.
        for i in 0..sleeps.len() {
            let at = i * 7919 % sleeps.len();
            sleeps[at] = sleep(Duration::ZERO);
        }
        sleep(MS).await;
        Ok(())
    });
}

/// Seen to fail: without a slack the sleepers wake in many ticks.
#[test]
fn with_a_slack_many_timers_share_a_wake_and_none_is_early() {
    let first = annulus::numa::thread::affinity_of_current().unwrap().first().unwrap();
    let build = |slack| {
        let builder = Runtime::builder().cores(first.to_string().parse().unwrap()).pool_bytes(1 << 20);
        builder.timer_slack(slack).build()
    };
    assert_eq!(build(Duration::from_secs(11)).unwrap_err().kind(), ErrorKind::Input);
    let runtime = build(20 * MS).unwrap();
    runtime
        .run(|| async {
            let start = Instant::now();
            let tasks: Vec<_> = (0..100)
                .map(|n| {
                    let due = start + 100 * MS + Duration::from_micros(n * 200);
                    spawn(async move {
                        sleep_until(due).await;
                        assert!(due <= Instant::now(), "early");
                        annulus::cores::counters().turns
                    })
                })
                .collect();
            let mut turns = BTreeSet::new();
            for task in tasks {
                turns.insert(task.await.expect("it does not panic"));
            }
            // All are due within 20 ms of the first. One more wake, should the first come early.
            assert!(turns.len() <= 3, "{turns:?}");
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_sleep_is_moved_in_both_directions_and_used_again() {
    on_one_core(|| async {
        let start = Instant::now();
        let mut moved = sleep(Duration::from_secs(600));
        assert!(!ready(&mut moved).await && !moved.is_elapsed());
        // The task that waits does not poll again before it is woken.
        let waiting = spawn(async move {
            let mut polls = 0;
            let mut reset = false;
            poll_fn(|cx| {
                polls += 1;
                let polled = Pin::new(&mut moved).poll(cx);
                if !std::mem::replace(&mut reset, true) {
                    moved.reset(start + 5 * MS);
                }
                polled
            })
            .await;
            (moved, polls)
        });
        let (mut moved, polls) = waiting.await.expect("it does not panic");
        assert!(start.elapsed() >= 5 * MS && polls == 2);
        assert_eq!(moved.deadline(), start + 5 * MS);
        moved.reset(deadline_after(Duration::from_secs(600)));
        assert!(!ready(&mut moved).await, "a completed sleep sleeps again");
        moved.reset(start);
        (&mut moved).await;
        Ok(())
    });
}

#[test]
fn a_deadline_that_has_passed_still_lets_a_ready_future_win() {
    on_one_core(|| async {
        let past = Instant::now();
        assert_eq!(timeout_at(past, async { 7 }).await, Ok(7));
        assert!(timeout_at(past, std::future::pending::<()>()).await.is_err());
        sleep(Duration::ZERO).await;
        assert!(!ready(&mut sleep(Duration::MAX)).await);
        Ok(())
    });
}

#[test]
fn an_interval_ticks_when_due_and_a_dropped_tick_waits() {
    on_one_core(|| async {
        let start = Instant::now();
        let mut ticks = interval_at(start, 3 * MS);
        assert_eq!(ticks.tick().await, start);
        assert!(timeout_at(start, ticks.tick()).await.is_err() || start.elapsed() >= 3 * MS);
        let next = ticks.next_due();
        assert_eq!(ticks.tick().await, next);
        assert!(next <= Instant::now());
        // Three ticks are missed.
        let mut burst = interval_at(start, 3 * MS);
        let mut skip = interval_at(start, 3 * MS).missed(MissedTick::Skip);
        sleep_until(start + 10 * MS).await;
        for n in 0..4 {
            assert_eq!(burst.tick().await, start + 3 * MS * n);
        }
        assert_eq!(skip.tick().await, start);
        assert!(skip.next_due() > start + 10 * MS, "what was missed is left out");
        let before = Instant::now();
        skip.reset();
        assert!(skip.next_due() >= before + skip.period());
        interval(MS).tick().await;
        Ok(())
    });
}

/// Seen to fail: with a time-out that asks the wheel, the future is polled again and ends.
#[test]
fn a_timeout_of_no_time_polls_once() {
    on_one_core(|| async {
        let mut polls = 0;
        let twice = std::future::poll_fn(|cx| {
            polls += 1;
            if polls == 2 {
                return std::task::Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            std::task::Poll::Pending
        });
        assert!(annulus::time::timeout(std::time::Duration::ZERO, twice).await.is_err());
        assert_eq!(polls, 1);
        Ok(())
    });
}

/// Something that is always ready beside a timer, polled before it, leaves it no budget. Seen to fail, by
/// waiting for ever: with a timer that does nothing without one.
#[test]
fn a_timer_passes_beside_what_uses_the_budget_up() {
    on_one_core(|| async {
        let busy = async || {
            let (reader, writer) = annulus::pipe::pipe().unwrap();
            let mut buf = Vec::with_capacity(1);
            loop {
                writer.write("x").await.unwrap();
                buf.clear();
                buf = reader.read(buf).await.unwrap().1;
            }
        };
        for time in [Duration::ZERO, Duration::from_millis(5)] {
            let ended: Result<(), Elapsed> = timeout(time, busy()).await;
            ended.expect_err("it has no end");
            let (mut first, mut second) = (pin!(busy()), pin!(sleep(time)));
            poll_fn(|cx| {
                let never: Poll<()> = first.as_mut().poll(cx);
                assert!(never.is_pending());
                second.as_mut().poll(cx)
            })
            .await;
        }
        // Nor does a loop of those that are due at once keep the core.
        let turns = Rc::new(Cell::new(0));
        let other = annulus::spawn({
            let turns = Rc::clone(&turns);
            async move {
                for _ in 0..3 {
                    annulus::yield_now().await;
                    turns.set(turns.get() + 1);
                }
            }
        });
        while turns.get() < 3 {
            sleep(Duration::ZERO).await;
        }
        other.await.expect("no panic");
        Ok(())
    });
}
