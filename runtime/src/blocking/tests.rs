use super::*;
use crate::numa::thread::{Origin, affinity_of_current};

fn poll<T>(handle: &mut BlockingHandle<T>) -> Poll<Result<T, BlockingError>> {
    Pin::new(handle).poll(&mut Context::from_waker(std::task::Waker::noop()))
}

/// Two cores of a node have one queue: a reason that the one finds concerns the closures of both. Seen to
/// fail: with the reason kept by the handle of the core that found it, the other is told that the runtime has
/// ended.
#[test]
fn every_closure_that_found_no_thread_says_so() {
    // A thread of this name cannot be made.
    let (name, origin) = ("a\0b".to_owned(), Arc::new(Origin::of_current()));
    let pool = BlockingPool::new(name, affinity_of_current().unwrap(), origin, 4);
    let mut handles = [queue(&pool, || 1), queue(&pool, || 2)];
    pool.ensure_thread();
    for handle in &mut handles {
        let Poll::Ready(Err(BlockingError::NoThread(e))) = poll(handle) else { panic!("{handle:?}") };
        assert!(e.to_string().contains("thread"), "{e}");
    }
    pool.end(std::time::Instant::now());
    assert!(matches!(poll(&mut queue(&pool, || 3)), Poll::Ready(Err(BlockingError::Ended))));
}
