//! A core's memory for the paths of requests.
//!
//! A connection that waits for its next request has none. The next request takes memory that an answered one
//! has left.

use std::cell::RefCell;

/// The largest memory that is kept, in bytes. The memory of a long path is freed.
const KEPT: usize = 256;
/// How many are kept: about as many as there are requests in one tick of the core.
const MOST: usize = 64;

thread_local! {
    static KEPT_MEMORY: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Takes memory that was given back, or none.
pub(super) fn take() -> Vec<u8> {
    KEPT_MEMORY.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives memory back.
pub(super) fn give(memory: Vec<u8>) {
    if memory.capacity() == 0 || memory.capacity() > KEPT {
        return;
    }
    KEPT_MEMORY.with_borrow_mut(|kept| {
        if kept.len() < MOST {
            kept.push(memory);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_out_again_except_for_long_paths_and_above_the_limit() {
        give(Vec::with_capacity(10));
        assert!((10..=KEPT).contains(&take().capacity()));
        assert_eq!(take().capacity(), 0);
        give(Vec::with_capacity(KEPT + 1));
        assert_eq!(take().capacity(), 0);
        (0..2 * MOST).for_each(|_| give(Vec::with_capacity(10)));
        let kept = (0..2 * MOST).filter(|_| take().capacity() > 0).count();
        assert_eq!(kept, MOST);
    }
}
