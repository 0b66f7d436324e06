//! A future whose panics stay in it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use crate::contained::{Payload, bury, caught};

/// Runs a future whose panics become its output, those of its destructor too.
pub(crate) async fn caught_of<F: Future>(future: F) -> Result<F::Output, Payload> {
    let mut future = pin!(Some(future));
    // Nothing outside the future is left half-changed by its panic: it is not polled again, only dropped.
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
    match caught(|| future.set(None)) {
        Ok(()) => output,
        Err(payload) => {
            if let Err(earlier) = output {
                bury(earlier);
            }
            Err(payload)
        }
    }
}
