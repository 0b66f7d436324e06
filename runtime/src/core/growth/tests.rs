use super::*;
use crate::buf::Block;
use crate::{Builder, Running, Runtime};

/// One core with one block, which a task has taken.
fn with_all_blocks_out(builder: Builder) -> Running {
    let first = crate::numa::thread::affinity_of_current().unwrap().first().unwrap();
    let builder = builder.cores(first.to_string().parse().unwrap()).pool_bytes(256 << 10);
    let running = builder.build().unwrap().start(|| async {
        let _block = Block::get().await;
        crate::cores::stopping().await;
        crate::Ok(())
    });
    running.unwrap()
}

fn end(running: Running) {
    running.stop();
    running.wait().unwrap();
}

/// Seen to fail, by waiting for ever: with a thread that notifies only after it has made something.
#[test]
fn a_thread_that_panics_wakes_its_core_and_is_told_of() {
    let running = with_all_blocks_out(Runtime::builder().pool_limit(1 << 20));
    let begin = async || {
        Core::with(|core| {
            let pending = core.growth.start(&core.shared, For::Blocks, 4096, || panic!("on purpose"));
            core.growth.begun(pending.unwrap());
        });
    };
    running.handle().submit_to_blocking(0, begin).unwrap();
    // The core sleeps: only that thread can wake it.
    while running.counters()[0].pool_refusals == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(running.report().cores[0].not_grown.as_deref().unwrap().contains("panicked"));
    end(running);
}

/// Seen to fail, by waiting for ever: with a core that sleeps without a time limit.
#[test]
fn a_core_that_sleeps_asks_again_when_the_rest_is_over() {
    let running = with_all_blocks_out(Runtime::builder().pool_limit(1 << 20));
    let rests_and_waits = async || {
        Core::with(|core| {
            core.growth.rest_until.set(Some(Instant::now() + Duration::from_millis(50)));
        });
        drop(Block::get().await);
        Core::with(|core| core.growth.asks_again_at())
    };
    let asks_again = running.handle().submit_to_blocking(0, rests_and_waits);
    assert_eq!(asks_again.unwrap(), None, "nobody waits any more");
    end(running);
}

/// Seen to fail: the payload is dropped where the thread is joined, and its panic comes out there.
#[test]
fn a_thread_that_panics_with_a_payload_that_panics_ends_no_core() {
    struct Again;
    impl Drop for Again {
        fn drop(&mut self) {
            panic!("the payload, on purpose");
        }
    }
    let running = with_all_blocks_out(Runtime::builder().pool_limit(1 << 20));
    let panics = async || {
        Core::with(|core| {
            let make = || std::panic::panic_any(Again);
            let pending = core.growth.start(&core.shared, For::Blocks, 4096, make).unwrap();
            *core.growth.last.borrow_mut() = Some(pending.thread);
            core.growth.end_last();
        });
    };
    running.handle().submit_to_blocking(0, panics).unwrap();
    end(running);
}

/// A subscriber that is told of a step finds it complete: in the pool, in the limit and in the report.
///
/// Seen to fail: with the event before the step is in the report.
#[test]
fn a_subscriber_that_is_told_of_a_step_may_use_it() {
    let builder = crate::testing::small(64).pool_bytes(256 << 10).pool_limit(2 << 20);
    crate::testing::on_a_core(builder, async || {
        let _all: Vec<_> = std::iter::from_fn(Block::take).collect();
        let before = Core::with(|core| core.growth.held.get());
        let found = std::rc::Rc::new(Cell::new(None));
        let finds = std::rc::Rc::clone(&found);
        let guard = crate::testing::at_the_next_event("annulus::core::growth", move || {
            let steps = Core::with(|core| core.shared.grown().steps.len());
            let held = Core::with(|core| core.growth.held.get());
            finds.set(Some((steps, held > before, Core::with(|core| core.blocks.is_short()))));
        });
        let _one_more = Block::get().await;
        drop(guard);
        assert!(crate::testing::has_acted());
        assert_eq!(found.get(), Some((1, true, false)));
    });
}
