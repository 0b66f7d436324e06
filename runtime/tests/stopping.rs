//! Waiting for the runtime to be asked to stop.

mod common;

use std::future::Future;
use std::mem::MaybeUninit;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake};

use annulus::buf::IoBufMut;
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
            let mut stopping = pin!(annulus::cores::stopping());
            for _ in 0..3 {
                assert!(stopping.as_mut().poll(&mut cx).is_pending());
                assert_eq!(Arc::strong_count(&bell), 3, "one waker of ours, one that waits");
            }
        }
        assert_eq!(Arc::strong_count(&bell), 2, "nobody waits any more");
        Ok(())
    });
}

/// Room whose destructor panics.
struct Bomb(Box<[MaybeUninit<u8>]>);

// SAFETY: the room lies in an allocation of its own.
unsafe impl IoBufMut for Bomb {
    fn spare_capacity(&mut self) -> &mut [MaybeUninit<u8>] {
        &mut self.0
    }

    unsafe fn filled(&mut self, _n: usize) {}
}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("in a destructor");
    }
}

/// Seen to fail: with the panic let through, the core does not come to its end, and who waits for it waits
/// for ever.
#[test]
fn a_buffer_that_panics_when_it_is_dropped_does_not_stop_the_end() {
    let running = annulus::Runtime::builder()
        .cores(common::one_cpu().parse().unwrap())
        .pool_bytes(1 << 20)
        .ring_entries(64)
        .build()
        .unwrap()
        .start(|| async {
            let (read, write) = std::io::pipe().unwrap();
            annulus::spawn(async move {
                let _write = write;
                let read = annulus::fs::File::from_fd(read.into());
                drop(read.read_at(Bomb(Box::new([MaybeUninit::uninit(); 16])), 0).await);
            })
            .detach();
            annulus::yield_now().await;
            annulus::Ok(())
        })
        .unwrap();
    common::must_end(running);
}
