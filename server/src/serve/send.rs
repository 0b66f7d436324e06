//! Sends bytes of ours to a client, each within its time limit.

use std::sync::Arc;

use annulus::buf::{Block, IoBuf};
use annulus::net::Family;
use annulus::{Error, ErrorKind};

use super::client::Client;
use super::deadline_timer::OnStop;

/// Sends all of `bytes` in the time that they may take; with `more` to follow, the last segment may wait for
/// it.
pub(super) async fn send<F: Family>(
    client: &mut Client<F>,
    bytes: impl IoBuf,
    more: bool,
) -> annulus::Result<()> {
    let limit = client.deadlines.sending(bytes.bytes().len() as u64);
    let stream = &client.stream;
    let sending =
        async { if more { stream.send_all_more(bytes).await } else { stream.send_all(bytes).await } };
    match client.timer.wait(limit, OnStop::Wait, sending).await {
        Some(sent) => Ok(sent.map(drop)?),
        None => Err(too_slow()),
    }
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
