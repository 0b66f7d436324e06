//! Connecting to the first of several addresses that answers (RFC 8305, "Happy Eyeballs").

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use crate::time::{Sleep, sleep};
use crate::{Error, ErrorKind, Result};

/// How long an attempt is alone before the next begins beside it (RFC 8305 section 8).
const HEAD_START: Duration = Duration::from_millis(250);

/// The two families alternately, beginning with that of the first, each in its order (RFC 8305 section 4).
fn in_turn(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut one, mut other): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut turns = VecDeque::with_capacity(one.len() + other.len());
    while !one.is_empty() || !other.is_empty() {
        turns.extend(one.pop_front());
        turns.extend(other.pop_front());
    }
    turns
}

/// Calls `connect` with one address after the other, each with a head start over the next, until one has
/// succeeded. The others are dropped. When one fails the next begins at once. The error is that of the first
/// that failed.
pub(crate) async fn first_to_answer<T, Fut>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> Fut,
) -> Result<T>
where
    Fut: Future<Output = Result<T>>,
{
    let mut left = in_turn(addresses);
    let mut under_way: Vec<Pin<Box<Fut>>> = Vec::new();
    let mut head_start: Option<Sleep> = None;
    let mut failure: Option<Error> = None;
    loop {
        // No attempt has a head start any more, so the next begins.
        if head_start.is_none()
            && let Some(address) = left.pop_front()
        {
            under_way.push(Box::pin(connect(address)));
            head_start = Some(sleep(HEAD_START));
        }
        if under_way.is_empty() {
            return Err(
                failure.unwrap_or_else(|| Error::new(ErrorKind::Input, "there is no address to connect to"))
            );
        }
        let ended = poll_fn(|cx| {
            for (i, attempt) in under_way.iter_mut().enumerate() {
                if let Poll::Ready(result) = attempt.as_mut().poll(cx) {
                    return Poll::Ready(Some((i, result)));
                }
            }
            match &mut head_start {
                Some(sleep) if !left.is_empty() => Pin::new(sleep).poll(cx).map(|()| None),
                _ => Poll::Pending,
            }
        })
        .await;
        head_start = None;
        match ended {
            None => {}
            Some((_, Ok(connection))) => return Ok(connection),
            Some((i, Err(e))) => {
                drop(under_way.swap_remove(i));
                failure.get_or_insert(e);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::testing::{on_a_core, small};

    fn addresses(text: &str) -> Vec<SocketAddr> {
        text.split(' ').map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_keep_their_order() {
        let mixed = addresses("[::1]:1 [::2]:1 [::3]:1 1.1.1.1:1 2.2.2.2:1");
        assert_eq!(Vec::from(in_turn(mixed)), addresses("[::1]:1 1.1.1.1:1 [::2]:1 2.2.2.2:1 [::3]:1"));
        let one = addresses("1.1.1.1:1 2.2.2.2:1");
        assert_eq!(Vec::from(in_turn(one.clone())), one);
    }

    /// An address that does not answer delays the next by no more than its head start, and one that fails
    /// does not delay it at all. No address is tried after another has answered.
    ///
    /// With attempts that begin only when the one before has ended, this would wait for ever.
    #[test]
    fn the_first_that_answers_is_taken_whoever_is_silent() {
        on_a_core(small(64), async || {
            let asked = RefCell::new(Vec::new());
            let connect = |address: SocketAddr| {
                let asked = &asked;
                async move {
                    asked.borrow_mut().push(address.port());
                    match address.port() {
                        1 => std::future::pending().await,
                        2 => Err(Error::new(ErrorKind::Io, "refused")),
                        port => Ok(port),
                    }
                }
            };
            let all = addresses("1.1.1.1:1 1.1.1.1:2 1.1.1.1:3 1.1.1.1:4");
            assert_eq!(first_to_answer(all, connect).await.unwrap(), 3);
            assert_eq!(asked.take(), [1, 2, 3]);

            let refused = addresses("1.1.1.1:2 1.1.1.1:2");
            let all_refused =
                first_to_answer(refused, |_| async { Err::<(), _>(Error::new(ErrorKind::Io, "refused")) });
            assert_eq!(all_refused.await.unwrap_err().to_string(), "refused");
            assert!(first_to_answer(Vec::new(), |_| async { Ok(()) }).await.is_err());
        });
    }
}
