//! A core that sleeps gathers completions (`Builder::min_wait`). Where the kernel cannot (before Linux 6.12),
//! each completion wakes it, and nothing else is looked at.

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream as Std;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use annulus::net::UnixStream;
use annulus::{Builder, cores, spawn};
use common::{on_first_cpu, on_one_core_of, report_of};

/// Longer than any of the tests waits for something that comes.
const LONG: Duration = Duration::from_secs(10);
/// In which a core that is to wake does.
const PAUSE: Duration = Duration::from_millis(20);

fn gathering(time: Duration, completions: u32) -> Builder {
    common::small().min_wait(time, completions)
}

fn is_in_force() -> bool {
    let report = report_of(on_first_cpu(gathering(PAUSE, 2)).build().unwrap()).unwrap();
    report.cores[0].ring.min_wait
}

/// One end for the core, the other for a thread.
fn pair() -> annulus::Result<(UnixStream, Std)> {
    let (ours, theirs) = Std::pair()?;
    Ok((UnixStream::from_owned_fd(ours.into())?, theirs))
}

/// So many receives in flight that do not complete while their other ends are kept.
fn idle(receives: usize) -> annulus::Result<Vec<Std>> {
    let mut ends = Vec::new();
    for _ in 0..receives {
        let (stream, end) = pair()?;
        spawn(async move { stream.recv().await.map(|_| ()) }).detach();
        ends.push(end);
    }
    Ok(ends)
}

/// What the kernel claims: eight completions end one sleep, however far apart they come.
///
/// Seen to fail: with a core that waits for one completion, whose eight bytes came by eight enters; with a
/// minimum wait of a millisecond, which was over before the second.
#[test]
fn completions_that_come_one_by_one_end_one_sleep() {
    const ENDS: u32 = 8;
    let enters = on_one_core_of(gathering(LONG, ENDS), || async {
        let (mut tasks, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..ENDS {
            let (stream, end) = pair()?;
            ends.push(end);
            tasks.push(spawn(async move {
                stream.recv().await?.expect("a byte");
                annulus::Ok(cores::counters().enters)
            }));
        }
        // Polled after all of them have asked to receive.
        let writes = spawn(async move {
            thread::spawn(move || {
                for mut end in ends {
                    thread::sleep(PAUSE);
                    end.write_all(&[7]).unwrap();
                }
            })
        });
        let writer = writes.await?;
        let mut enters = BTreeSet::new();
        for task in tasks {
            enters.insert(task.await??);
        }
        writer.join().unwrap();
        annulus::Ok(enters)
    });
    if is_in_force() {
        assert_eq!(enters.len(), 1, "enters that brought bytes: {enters:?}");
    }
}

/// Seen to fail: with a sleep that has no minimum wait and waits for eight completions all the same.
#[test]
fn what_is_alone_waits_no_longer_than_was_said() {
    on_one_core_of(gathering(Duration::from_millis(1), 8), || async {
        let idle = idle(8)?;
        let (stream, mut end) = pair()?;
        let (told, answered) = mpsc::channel();
        let client = thread::spawn(move || {
            end.set_read_timeout(Some(LONG)).unwrap();
            let mut byte = [7];
            for _ in 0..3 {
                end.write_all(&byte).unwrap();
                told.send(end.read(&mut byte).is_ok()).unwrap();
            }
            // The core may still sleep.
            drop(idle);
        });
        while let Some(chunk) = stream.recv().await? {
            stream.send_all(chunk).await?;
        }
        client.join().unwrap();
        assert_eq!(answered.iter().collect::<Vec<_>>(), [true; 3], "an answer came in time");
        annulus::Ok(())
    });
}

/// Nothing completes, and the minimum wait is over again and again.
///
/// Seen to fail: with a sleep that has a minimum wait and no end, which the kernel ends with the minimum
/// wait: ten enters in `PAUSE`.
#[test]
fn an_idle_core_sleeps_on() {
    on_one_core_of(gathering(Duration::from_millis(1), 8), || async {
        let _idle = idle(8)?;
        let (stream, mut end) = pair()?;
        let writer = thread::spawn(move || {
            thread::sleep(PAUSE);
            end.write_all(&[7]).unwrap();
        });
        // It is woken after all of them have asked to receive.
        annulus::yield_now().await;
        annulus::yield_now().await;
        let before = cores::counters().enters;
        stream.recv().await?.expect("a byte");
        let enters = cores::counters().enters - before;
        // One for the receive, one that found the clock's edge.
        assert!(enters <= 2, "{enters} enters");
        writer.join().unwrap();
        annulus::Ok(())
    });
}

#[test]
fn it_is_off_for_fewer_than_two_completions() {
    let report = report_of(on_first_cpu(gathering(PAUSE, 1)).build().unwrap()).unwrap();
    let ring = &report.cores[0].ring;
    assert!(!ring.min_wait && ring.lacks.iter().all(|lack| !lack.contains("minimum wait")), "{report}");
}
