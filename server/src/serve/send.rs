//! Sends bytes of ours to a client, each within its time limit.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use annulus::buf::{Block, BufError, IoBuf};
use annulus::net::Family;
use annulus::{Error, ErrorKind};
use pin_project_lite::pin_project;

use super::client::Client;
use super::deadline_timer::{OnStop, Wait};

pin_project! {
    /// The future of [`send`] and [`send_more`].
    pub(super) struct Sending<'c, S> {
        #[pin]
        wait: Wait<'c, S>,
    }
}

impl<B, S: Future<Output = Result<B, BufError<B>>>> Future for Sending<'_, S> {
    type Output = annulus::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let sent = ready!(self.project().wait.poll(cx));
        Poll::Ready(sent.map_or_else(|| Err(too_slow()), |sent| Ok(sent.map(drop)?)))
    }
}

/// Sends all of `bytes` in the time that they may take.
pub(super) fn send<F: Family, B: IoBuf>(
    client: &mut Client<F>,
    bytes: B,
) -> Sending<'_, impl Future<Output = Result<B, BufError<B>>>> {
    let limit = client.deadlines.sending(bytes.bytes().len() as u64);
    let sending = client.stream.send_all(bytes);
    Sending { wait: client.timer.wait(limit, OnStop::Wait, sending) }
}

/// As [`send`]; more follows, for which the last segment may wait.
pub(super) fn send_more<F: Family, B: IoBuf>(
    client: &mut Client<F>,
    bytes: B,
) -> Sending<'_, impl Future<Output = Result<B, BufError<B>>>> {
    let limit = client.deadlines.sending(bytes.bytes().len() as u64);
    let sending = client.stream.send_all_more(bytes);
    Sending { wait: client.timer.wait(limit, OnStop::Wait, sending) }
}

/// Sends all of a block, without the copy into the kernel where the peer's notifications say that it pays.
pub(super) async fn send_block<F: Family>(client: &mut Client<F>, block: Block) -> annulus::Result<()> {
    let limit = client.deadlines.sending(block.len() as u64);
    match client.timer.wait(limit, OnStop::Wait, client.stream.send_zc(block)).await {
        Some(sent) => sent,
        None => Err(too_slow()),
    }
}

/// Sends all of `head` and then all of `body`, as [`send`] does.
pub(super) async fn send_two<F: Family>(
    client: &mut Client<F>,
    head: Vec<u8>,
    body: Arc<[u8]>,
) -> annulus::Result<()> {
    let limit = client.deadlines.sending((head.len() + body.len()) as u64);
    let stream = &client.stream;
    match client.timer.wait(limit, OnStop::Wait, stream.send_all_vectored((head, body))).await {
        Some(sent) => Ok(sent.map(drop)?),
        None => Err(too_slow()),
    }
}

/// Why a client was cut that takes its answer too slowly.
pub(super) fn too_slow() -> Error {
    let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
    Error::with_source(ErrorKind::Io, "the client takes too little, too slowly", late)
}
