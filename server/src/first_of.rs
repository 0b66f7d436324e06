//! Waiting for the first of two things.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

/// Which of two futures was ready first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum First<A, B> {
    /// The first one, also when both were.
    A(A),
    /// The second one.
    B(B),
}

/// Waits for either future; the other one is dropped.
///
/// # Cancellation
/// As safe as the two futures: both are dropped with this one.
pub(crate) async fn first_of<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> First<A, B> {
    let mut a = pin!(a);
    let mut b = pin!(b);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(a) = a.as_mut().poll(cx) {
            return Poll::Ready(First::A(a));
        }
        b.as_mut().poll(cx).map(First::B)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::task::{Context, Waker};

    use super::*;

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn the_first_one_wins_and_a_tie_goes_to_the_first_named() {
        assert_eq!(now(first_of(ready(1), ready(2))), Some(First::A(1)));
        assert_eq!(now(first_of(pending::<()>(), ready(2))), Some(First::B(2)));
        assert_eq!(now(first_of(ready(1), pending::<()>())), Some(First::A(1)));
        assert_eq!(now(first_of(pending::<()>(), pending::<()>())), None);
    }
}
