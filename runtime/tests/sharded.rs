//! One value per core.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use annulus::cores::{self, Sharded};
use annulus::{Error, ErrorKind};
use common::{idle_cores, one_cpu, two_idle_cores};

type Log = Arc<Mutex<Vec<(usize, &'static str)>>>;

/// Not `Send`; says on which core it is dropped.
struct Part {
    hits: Rc<Cell<usize>>,
    log: Log,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.log.lock().unwrap().push((cores::index(), "dropped"));
    }
}

async fn parts(log: &Log) -> annulus::Result<Sharded<Part>> {
    let log = Arc::clone(log);
    Sharded::new(async move || {
        annulus::yield_now().await;
        Ok(Part { hits: Rc::new(Cell::new(cores::index())), log })
    })
    .await
}

#[test]
fn each_core_has_its_own_from_first_to_last() {
    let Some(running) = two_idle_cores() else { return };
    let log = Log::default();
    let seen = Arc::clone(&log);
    let outcome: annulus::Result<()> = running
        .handle()
        .submit_to_blocking(0, async move || {
            let parts = parts(&log).await?;
            assert_eq!(parts.local()?.hits.get(), 0);
            let far = parts.invoke_on(1, async |part| {
                annulus::yield_now().await;
                part.hits.set(part.hits.get() + 10);
                cores::index()
            });
            assert_eq!(far.await?, 1);
            parts.invoke_on_all(async |part| part.hits.set(part.hits.get() + 1)).await?;
            let hits = parts.map_reduce(
                async |part| part.hits.get(),
                Vec::new(),
                |mut all, hits| {
                    all.push(hits);
                    all
                },
            );
            assert_eq!(hits.await?, [1, 12]);
            let words = Arc::clone(&log);
            parts.stop(async move |_| words.lock().unwrap().push((cores::index(), "stopped"))).await?;
            let gone = parts.invoke_on(1, async |_| ()).await.unwrap_err();
            assert_eq!(
                (gone.kind(), parts.local().err().map(|e| e.kind())),
                (ErrorKind::Ended, Some(ErrorKind::Ended))
            );
            parts.stop(async |_| unreachable!("it was stopped before")).await
        })
        .unwrap();
    outcome.unwrap();
    for core in 0..2 {
        let seen: Vec<_> =
            seen.lock().unwrap().iter().filter(|(on, _)| *on == core).map(|(_, what)| *what).collect();
        assert_eq!(seen, ["stopped", "dropped"], "on core {core}");
    }
    running.stop();
    running.wait().unwrap();
}

#[test]
fn a_stop_waits_for_who_still_uses_it() {
    let running = idle_cores(&one_cpu());
    let log = Log::default();
    let seen = Arc::clone(&log);
    running
        .handle()
        .submit_to_blocking(0, async move || {
            let parts = parts(&log).await.unwrap();
            let held = parts.local().unwrap();
            let stopping = annulus::spawn({
                let parts = parts.clone();
                async move { parts.stop(async |_| ()).await }
            });
            for _ in 0..20 {
                annulus::yield_now().await;
            }
            assert!(!stopping.is_finished() && log.lock().unwrap().is_empty());
            assert_eq!(held.hits.get(), 0);
            drop(held);
            stopping.await.unwrap().unwrap();
            assert_eq!(*log.lock().unwrap(), [(0, "dropped")]);
        })
        .unwrap();
    assert_eq!(seen.lock().unwrap().len(), 1);
    running.stop();
    running.wait().unwrap();
}

#[test]
fn what_is_not_stopped_is_dropped_when_its_core_ends() {
    let running = idle_cores(&one_cpu());
    let log = Log::default();
    let seen = Arc::clone(&log);
    let kept = running.handle().submit_to_blocking(0, async move || parts(&log).await).unwrap().unwrap();
    assert!(seen.lock().unwrap().is_empty());
    running.stop();
    running.wait().unwrap();
    assert_eq!(*seen.lock().unwrap(), [(0, "dropped")]);
    drop(kept);
}

#[test]
fn a_factory_that_fails_leaves_nothing_behind() {
    let Some(running) = two_idle_cores() else { return };
    let log = Log::default();
    let seen = Arc::clone(&log);
    let failed = running.handle().submit_to_blocking(0, async move || {
        let made = Sharded::new(async move || {
            if cores::index() == 1 {
                return Err(Error::other("no room"));
            }
            Ok(Part { hits: Rc::default(), log })
        });
        made.await.map(drop)
    });
    assert_eq!(failed.unwrap().unwrap_err().to_string(), "no room");
    assert_eq!(*seen.lock().unwrap(), [(0, "dropped")]);
    running.stop();
    running.wait().unwrap();
}
