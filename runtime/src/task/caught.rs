//! A future whose panics become its output.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use crate::contained::{Kept, Payload, caught};

/// Runs a future. Its panics, and those of its destructor, become its output.
pub(crate) async fn caught_of<F: Future>(future: F) -> Result<F::Output, Payload> {
    let mut future = pin!(Some(future));
    // A panic leaves nothing outside the future half-changed: it is not polled again, only dropped.
    let output = poll_fn(|cx| {
        let polled = caught(|| {
            let running = future.as_mut().as_pin_mut().expect("a child that has ended is not polled");
            running.poll(cx)
        });
        match polled {
            Ok(poll) => poll.map(Ok),
            Err(payload) => Poll::Ready(Err(payload)),
        }
    })
    .await;
    // It may be lost to the panic of the future's destructor, and its own destructor may panic.
    let output = Kept::new(output);
    match caught(|| future.set(None)) {
        Ok(()) => output.take(),
        Err(payload) => Err(payload),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::panic::panic_any;
    use std::pin::Pin;
    use std::task::{Context, Waker};

    use super::*;

    struct Output;

    impl Drop for Output {
        fn drop(&mut self) {
            panic!("the output, on purpose");
        }
    }

    /// Is ready at once, and panics when it is dropped.
    struct Ready;

    impl Future for Ready {
        type Output = Output;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Output> {
            Poll::Ready(Output)
        }
    }

    impl Drop for Ready {
        fn drop(&mut self) {
            panic_any("the future, on purpose");
        }
    }

    /// Seen to fail: with the output not kept, its panic came out of the poll.
    #[test]
    fn an_output_that_is_lost_to_its_futures_destructor_may_panic_too() {
        let mut running = pin!(caught_of(Ready));
        let polled = running.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Err(payload)) = polled else { panic!("the future's destructor panicked") };
        assert_eq!(payload.downcast_ref(), Some(&"the future, on purpose"));
    }
}
