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
