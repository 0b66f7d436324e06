//! Memory for the paths of requests, of a core.
//!
//! A connection that waits for its next request has none: it takes what an answered request has left.

use std::cell::RefCell;

/// Bytes that a path may take without asking for memory anew. What one long path needed is not kept.
const KEPT: usize = 256;
/// So many are kept: about as many as have a request under way in one turn of the core.
const MOST: usize = 64;

thread_local! {
    static ROOMS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Takes one.
pub(super) fn take() -> Vec<u8> {
    ROOMS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives one back.
pub(super) fn give(room: Vec<u8>) {
    if room.capacity() == 0 || room.capacity() > KEPT {
        return;
    }
    ROOMS.with_borrow_mut(|rooms| {
        if rooms.len() < MOST {
            rooms.push(room);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_given_out_again_but_for_long_ones_and_more_than_enough() {
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
