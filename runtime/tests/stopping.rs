//! Waiting for the runtime to be asked to stop.

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake};

use common::on_one_core;

struct Silent;

impl Wake for Silent {
    fn wake(self: Arc<Self>) {}
}

/// Each idle connection of a server waits for the stop, and most are gone long before it comes.
#[test]
fn a_wait_that_was_dropped_is_forgotten() {
    on_one_core(|| async {
        let bell = Arc::new(Silent);
        let waker = Arc::clone(&bell).into();
        let mut cx = Context::from_waker(&waker);
        for _ in 0..3 {
            let mut stopping = pin!(annulus::core::stopping());
            for _ in 0..3 {
                assert!(stopping.as_mut().poll(&mut cx).is_pending());
                assert_eq!(Arc::strong_count(&bell), 3, "one waker of ours, one that waits");
            }
        }
        assert_eq!(Arc::strong_count(&bell), 2, "nobody waits any more");
        Ok(())
    });
}
