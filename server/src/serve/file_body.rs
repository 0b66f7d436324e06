//! A file's head and body on their way to a client: small ones in one send, large ones spliced.

use std::ops::Range;
use std::path::Path;

use annulus::buf::Block;
use annulus::net::Family;
use annulus::{Error, transfer};

use super::connection::Client;
use super::deadline_timer::OnStop;
use super::entry::Entry;
use super::pages::{self, Manner};
use super::send::{send, too_slow};
use super::{SEND_STEP, SEND_TIMEOUT, SMALL_COLD_FILE, SMALL_FILE, Site};
use crate::http::Status;
use crate::http::response::{self, Extent};

/// Sends an extent of a file, behind its head.
///
/// # Errors
/// When it could not be sent whole: the connection is of no further use.
pub(super) async fn send_extent<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    entry: &Entry,
    extent: &Extent,
    manner: Manner<'_>,
) -> annulus::Result<()> {
    client.sent.status = extent.status().code();
    if !manner.with_body {
        return send_head(client, site, entry, extent, manner, false).await;
    }
    if let Some(content) = &entry.content {
        let range = extent.range();
        let mut whole = with_head(site, entry, extent, manner, <[u8]>::to_vec);
        whole.extend_from_slice(&content[range.start as usize..range.end as usize]);
        send(client, whole, false).await?;
        client.sent.bytes = extent.len();
        return Ok(());
    }
    if is_small(entry, extent) {
        small(client, site, entry, extent, manner).await
    } else {
        large(client, site, entry, extent, manner).await
    }
}

/// Whether what is asked for is to be read into memory of ours.
fn is_small(entry: &Entry, extent: &Extent) -> bool {
    let len = extent.len();
    len <= SMALL_FILE || len <= SMALL_COLD_FILE && !entry.file.is_cached(extent.range().start, len)
}

/// Head and body in one send, from a block of the core's pool: node-local memory that is already there. While all blocks
/// are out, by clients that take theirs slowly, the file goes the way of large ones, which needs no memory of ours: so
/// neither do those clients hold up the others, nor does their number cost memory without end.
async fn small<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    entry: &Entry,
    extent: &Extent,
    manner: Manner<'_>,
) -> annulus::Result<()> {
    let Some(mut block) = Block::take() else {
        return large(client, site, entry, extent, manner).await;
    };
    let body_at = with_head(site, entry, extent, manner, |head| block.extend_from_slice(head));
    let whole = body_at + extent.len() as usize;
    if block.capacity() < whole {
        drop(block);
        return large(client, site, entry, extent, manner).await;
    }
    match fill(block, whole, entry, extent).await {
        Ok(block) => {
            send(client, block, false).await?;
            client.sent.bytes = extent.len();
            Ok(())
        }
        Err(error) => {
            tracing::warn!(client = %client.address, path = ?manner.path, %error, "a file cannot be read");
            // Nothing has been sent yet, so the client can be told.
            pages::error(client, site, Status::InternalServerError, "", manner).await
        }
    }
}

/// Fills a block with the extent, behind the head that it holds, up to `whole` bytes.
///
/// # Errors
/// As for a read; `UnexpectedEof` if the file has become shorter.
async fn fill(mut block: Block, whole: usize, entry: &Entry, extent: &Extent) -> annulus::Result<Block> {
    // What is in memory is read at once, what is not by the ring. Of larger extents it is known that they are not; and a call
    // on the core reads all that there is room for, so it is for those that the end of the file bounds.
    let range = extent.range();
    if (1..=SMALL_FILE).contains(&extent.len()) && range.end == entry.size {
        entry.file.read_now(&mut block, range.start)?;
        // The file may have grown.
        block.truncate(whole);
    }
    let left = whole - block.len();
    if left == 0 {
        return Ok(block);
    }
    let at = range.end - left as u64;
    entry.file.read_exact_at(block, left, at).await.map_err(|failed| failed.error)
}

/// The head, held back by MSG_MORE so that it leaves with the first bytes of the body, then the body spliced.
async fn large<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    entry: &Entry,
    extent: &Extent,
    manner: Manner<'_>,
) -> annulus::Result<()> {
    // Behind the head of an empty file comes nothing that it could leave with.
    send_head(client, site, entry, extent, manner, extent.len() > 0).await?;
    body(client, site, manner.path, entry, extent.range()).await
}

/// Bytes of a file, spliced. What has been sent has promised them: where they do not come, only cutting the connection tells
/// the client.
pub(super) async fn body<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    path: &Path,
    entry: &Entry,
    range: Range<u64>,
) -> annulus::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min(at + SEND_STEP);
        let stream = &client.stream;
        let sending = async { Ok(transfer::send_file(stream, &entry.file, at..end, site.road).await?) };
        let sent = client.timer.wait(SEND_TIMEOUT, OnStop::Wait, sending).await;
        if let Err(error) = sent.unwrap_or_else(|| Err(too_slow())) {
            note_cut(client, path, &error, entry.size);
            return Err(error);
        }
        client.sent.bytes += end - at;
        at = end;
    }
    Ok(())
}

/// Logs why a file was not sent whole: a client that goes away is everyday, a file that shrinks or cannot be read is
/// something to look into.
pub(super) fn note_cut<F: Family>(client: &Client<F>, path: &Path, error: &Error, size: u64) {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut};
    match error.io_error().map(std::io::Error::kind) {
        Some(BrokenPipe | ConnectionReset | TimedOut) => {
            tracing::info!(client = %client.address, ?path, size, %error, "the client did not take the whole file");
        }
        _ => {
            tracing::warn!(client = %client.address, ?path, size, %error, "a file was not sent whole: the connection is cut");
        }
    }
}

/// Hands the head of a 200 or 206 to `read`.
fn with_head<T>(
    site: &Site,
    entry: &Entry,
    extent: &Extent,
    manner: Manner<'_>,
    read: impl FnOnce(&[u8]) -> T,
) -> T {
    let write = |out: &mut Vec<u8>| {
        site.with_moment(manner.after, |moment| {
            response::file_head(out, moment, entry.facts.fields().0, extent);
        });
    };
    site.written(write, read)
}

/// Sends the head of a 200 or 206 alone, or with `more` to follow.
async fn send_head<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    entry: &Entry,
    extent: &Extent,
    manner: Manner<'_>,
    more: bool,
) -> annulus::Result<()> {
    match Block::take() {
        Some(mut block) => {
            with_head(site, entry, extent, manner, |head| block.extend_from_slice(head));
            send(client, block, more).await
        }
        None => {
            let head = with_head(site, entry, extent, manner, |head| head.to_vec());
            send(client, head, more).await
        }
    }
}
