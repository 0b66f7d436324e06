//! Options that are off by default: each works, is told of in the report, and is refused with a reason where
//! it cannot be.

mod common;

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream as Std;
use std::rc::Rc;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use annulus::fs::{File, OpenOptions};
use annulus::net::TcpListener;
use annulus::numa::thread::affinity_of_current;
use annulus::{Builder, ErrorKind, Runtime, spawn};
use common::{Scratch, numbers, on_first_cpu, read_number, read_numbers_at_once};

fn one_core() -> Builder {
    on_first_cpu(Runtime::builder().pool_bytes(1 << 20).ring_entries(64))
}

/// A poller beside the core, or on its CPU where there is no other.
fn polled(idle: Duration) -> Builder {
    let poller = affinity_of_current().unwrap().last().unwrap();
    one_core().sqpoll(idle).sqpoll_cpus(poller.into())
}

/// Sends bytes there and back until `enough`.
async fn echo_until(enough: impl Fn() -> bool) -> annulus::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = Std::connect(listener.local_addr()).unwrap();
    let peer = thread::spawn(move || {
        let mut byte = [7];
        loop {
            client.write_all(&byte).unwrap();
            // The end: the core has seen enough.
            if client.read(&mut byte).unwrap() == 0 {
                return;
            }
        }
    });
    let stream = listener.accept().await?;
    loop {
        let chunk = stream.recv().await?.expect("a byte");
        if enough() {
            break;
        }
        stream.send_all(chunk).await?;
    }
    drop(stream);
    // Not joined here: the close goes through the ring, and a core that blocks submits nothing.
    annulus::spawn_blocking(move || peer.join().unwrap()).await.expect("no panic");
    Ok(())
}

/// Two cores that wake each other a few hundred times, and are woken from outside, whether they are awake,
/// look about or sleep.
fn wake_each_other(builder: impl Fn(Builder, &str) -> Builder) {
    let Some(cpus) = common::two_cpus() else { return };
    let settings = Runtime::builder().cores(cpus.parse().unwrap()).pool_bytes(1 << 20).ring_entries(64);
    let running = builder(settings, &cpus).build().unwrap().start(|| async {
        annulus::cores::stopping().await;
        annulus::Ok(())
    });
    let running = running.unwrap();
    let sum = running.handle().submit_to_blocking(0, async || {
        let mut sum = 0;
        for i in 0..300 {
            sum += annulus::cores::submit_to(1, async move || i).await.expect("core 1 is there");
        }
        sum
    });
    assert_eq!(sum.unwrap(), 300 * 299 / 2);
    for core in [0, 1].repeat(20) {
        // Nothing is under way, so sooner or later it sleeps; and this finds it anywhere on the way.
        let index = running.handle().submit_to_blocking(core, async || annulus::cores::index());
        assert_eq!(index.unwrap(), core);
    }
    running.stop();
    running.wait().unwrap();
}

/// Seen to fail (by hanging): with a `park` that does not announce its sleep.
#[test]
fn cores_that_spin_wake_each_other() {
    wake_each_other(|builder, _| builder.spin(Duration::from_micros(50)));
}

/// Seen to fail (by hanging): with `must_wake_poller` always false, and as above.
#[test]
fn cores_with_pollers_wake_each_other() {
    // The pollers sleep now and then, on the CPUs of the cores.
    wake_each_other(|builder, cpus| {
        builder.sqpoll(Duration::from_millis(1)).sqpoll_cpus(cpus.parse().unwrap())
    });
}

/// Seen to fail (by running for ever): with `has_completions` always false.
#[test]
fn a_core_that_spins_finds_what_comes() {
    one_core()
        .spin(Duration::from_millis(20))
        .build()
        .unwrap()
        .run(|| async {
            echo_until(|| annulus::cores::counters().spins_won >= 3).await?;
            let counters = annulus::cores::counters();
            assert!(counters.spins >= counters.spins_won, "{counters}");
            Ok(())
        })
        .unwrap();
}

/// A look about ends with the next timer. Seen to fail (by spinning on): with a look that does not mind when
/// that is due.
#[test]
fn timers_fire_while_a_core_spins() {
    one_core()
        .spin(Duration::from_secs(3600))
        .build()
        .unwrap()
        .run(|| async {
            for _ in 0..3 {
                annulus::time::sleep(Duration::from_millis(20)).await;
            }
            let counters = annulus::cores::counters();
            // On a slow machine some are due before the core could spin.
            assert!(counters.spins_won >= 1 && counters.parks == 0, "{counters}");
            Ok(())
        })
        .unwrap();
}

/// While the core does not wait, it enters only to wake the poller. Seen to fail: with each enter going to
/// the kernel.
#[test]
fn a_polled_ring_submits_without_a_system_call() {
    let scratch = Scratch::new("options-polled");
    let file = numbers(&scratch, 100);
    polled(Duration::from_secs(1))
        .build()
        .unwrap()
        .run(move || {
            let file = file.clone();
            async move {
                let file = File::open(file, OpenOptions::new()).await?;
                let before = annulus::cores::counters();
                let done = Rc::new(Cell::new(false));
                let tell = Rc::clone(&done);
                let reads = spawn(async move {
                    for i in 0..100 {
                        read_number(&file, i).await?;
                    }
                    tell.set(true);
                    annulus::Ok(())
                });
                // The core is never idle, so it never waits.
                while !done.get() {
                    annulus::yield_now().await;
                }
                let after = annulus::cores::counters();
                reads.await.expect("no panic")?;
                assert!(after.sqes - before.sqes >= 100, "{after}");
                assert_eq!(after.enters - before.enters, after.poller_wakes - before.poller_wakes, "{after}");
                assert!(after.enters - before.enters < 100, "{after}");
                Ok(())
            }
        })
        .unwrap();
}

/// Seen to fail: with `must_wake_poller` always false (it hangs), and with workers looked for under the
/// core's number alone.
#[test]
fn a_poller_that_sleeps_is_woken() {
    let scratch = Scratch::new("options-woken");
    let file = numbers(&scratch, 1);
    let (tell, done) = mpsc::channel();
    let tell = Mutex::new(tell);
    let running = polled(Duration::from_millis(1)).build().unwrap().start(move || {
        let (file, tell) = (file.clone(), tell.lock().unwrap().clone());
        async move {
            let file = File::open(file, OpenOptions::new()).await?;
            let before = annulus::cores::counters().poller_wakes;
            while annulus::cores::counters().poller_wakes < before + 3 {
                annulus::time::sleep(Duration::from_millis(4)).await;
                read_number(&file, 0).await?;
            }
            echo_until(|| true).await?;
            file.stat().await?;
            tell.send(()).expect("the test waits");
            annulus::cores::stopping().await;
            annulus::Ok(())
        }
    });
    let running = running.unwrap();
    done.recv().unwrap();
    let report = running.report();
    assert!(!report.workers.is_empty(), "the one that did the stat is the poller's, and goes in seconds");
    let text = report.to_string();
    let poller = affinity_of_current().unwrap().last().unwrap();
    assert_eq!(report.cores[0].ring.sqpoll, Some(poller.0));
    for words in ["no DEFER_TASKRUN", "options: sqpoll 1 ms", &format!("polled from CPU {poller}")] {
        assert!(text.contains(words), "{words}: {text}");
    }
    running.stop();
    running.wait().unwrap();
}

/// The poller may be asleep when the queue fills: what waits for room wakes it first.
#[test]
fn a_full_queue_waits_for_the_poller() {
    let scratch = Scratch::new("options-full");
    let file = numbers(&scratch, 500);
    polled(Duration::from_millis(1))
        .ring_entries(8)
        .build()
        .unwrap()
        .run(move || {
            let file = file.clone();
            async move {
                let file = File::open(file, OpenOptions::new()).await?;
                annulus::time::sleep(Duration::from_millis(20)).await;
                read_numbers_at_once(&file, 500).await?;
                Ok(())
            }
        })
        .unwrap();
}

/// Seen to fail: with cores' own CPUs dealt out as well.
#[test]
fn a_poller_needs_a_cpu_of_its_own_unless_one_is_named() {
    let all = affinity_of_current().unwrap();
    let builder =
        || Runtime::builder().cores(all.to_string().parse().unwrap()).sqpoll(Duration::from_millis(1));
    let error = builder().build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert!(error.to_string().contains("is left for the poller"), "{error}");
    builder().sqpoll_cpus(all.clone()).build().unwrap();
    let foreign = annulus::numa::CpuId(all.last().unwrap().0 + 1);
    let error = builder().sqpoll_cpus(foreign.into()).build().unwrap_err();
    assert!(error.to_string().contains("may not be used"), "{error}");
}

/// Seen to fail: with the registration left out, and with its success not noted.
#[test]
fn busy_polling_is_in_force_or_the_report_says_why_not() {
    let running = one_core().busy_poll(Duration::from_micros(20)).build().unwrap().start(|| async {
        echo_until(|| true).await?;
        annulus::cores::stopping().await;
        annulus::Ok(())
    });
    let running = running.unwrap();
    let report = running.report();
    running.stop();
    running.wait().unwrap();
    let ring = &report.cores[0].ring;
    let told = ring.lacks.iter().any(|lack| lack.starts_with("busy polling (Linux 6.9)"));
    assert_ne!(ring.busy_poll, told, "{report}");
    assert!(report.to_string().contains("options: busy_poll 20 us"), "{report}");
}
