//! A file's head and body on their way to a client: small ones in one send, large ones spliced.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use annulus::buf::Block;
use annulus::net::Family;
use annulus::{Error, ErrorKind, transfer};

use super::connection::Client;
use super::deadline_timer::OnStop;
use super::entry::Entry;
use super::pages::{self, Manner};
use super::send::{send, send_block, send_two, too_slow};
use super::send_road::{self, COPIED, SendRoad};
use super::{SEND_STEP, Site};
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
    let (at, len) = (extent.range().start, extent.len());
    let is_cached = || entry.file.as_ref().is_none_or(|file| file.is_cached(at, len));
    let (held, whole) = (entry.stored.content.is_some(), matches!(extent, Extent::Whole(_)));
    match send_road::choose(held, whole, len, is_cached, client.address) {
        SendRoad::Copied => from_memory(client, site, entry, extent, manner).await,
        SendRoad::TwoPlaces => from_two_places(client, site, entry, extent, manner).await,
        SendRoad::Read => small(client, site, entry, extent, manner, false).await,
        SendRoad::ReadZeroCopy => small(client, site, entry, extent, manner, true).await,
        SendRoad::Spliced => large(client, site, entry, extent, manner).await,
    }
}

/// Content and head in one send, from a block of the core's pool; while all blocks are out, by clients that
/// take theirs slowly, from where the content lies.
async fn from_memory<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    entry: &Entry,
    extent: &Extent,
    manner: Manner<'_>,
) -> annulus::Result<()> {
    let content = entry.content(extent.range()).unwrap_or_default();
    if let Some(block) = copied(site, entry, extent, content, manner) {
        send(client, block, false).await?;
    } else if matches!(extent, Extent::Whole(_)) {
        return from_two_places(client, site, entry, extent, manner).await;
    } else {
        let mut head = with_head(site, entry, extent, manner, <[u8]>::to_vec);
        head.extend_from_slice(content);
        send(client, head, false).await?;
    }
    client.sent.bytes = extent.len();
    Ok(())
}

/// All of the content from where it lies, behind its head, in one send.
async fn from_two_places<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    entry: &Entry,
    extent: &Extent,
    manner: Manner<'_>,
) -> annulus::Result<()> {
    let head = with_head(site, entry, extent, manner, <[u8]>::to_vec);
    if let Some(content) = &entry.stored.content {
        send_two(client, head, Arc::clone(content)).await?;
    }
    client.sent.bytes = extent.len();
    Ok(())
}

/// Head and content in a block, if there is one with room for both.
fn copied(site: &Site, entry: &Entry, extent: &Extent, content: &[u8], manner: Manner<'_>) -> Option<Block> {
    let mut block = Block::take()?;
    with_head(site, entry, extent, manner, |head| block.extend_from_slice(head));
    if block.capacity() - block.len() < content.len() {
        return None;
    }
    block.extend_from_slice(content);
    Some(block)
}

/// The whole answer for a small file whose content is in memory, ready to leave, and how long its body is.
pub(super) fn at_once(site: &Site, entry: &Entry, manner: Manner<'_>) -> Option<(Block, u64)> {
    let content = entry.stored.content.as_deref().filter(|content| content.len() as u64 <= COPIED)?;
    let size = entry.size();
    Some((copied(site, entry, &Extent::Whole(size), content, manner)?, size))
}

/// Head and body in one send, from a block of the core's pool: node-local memory that is already there. While
/// all blocks are out, by clients that take theirs slowly, the file goes the way of large ones, which needs
/// no memory of ours: so neither do those clients hold up the others, nor does their number cost memory
/// without end.
async fn small<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    entry: &Entry,
    extent: &Extent,
    manner: Manner<'_>,
    zero_copy: bool,
) -> annulus::Result<()> {
    let Some(mut block) = Block::take() else {
        return large(client, site, entry, extent, manner).await;
    };
    let body_at = with_head(site, entry, extent, manner, |head| block.extend_from_slice(head));
    if block.capacity() < body_at + extent.len() as usize {
        drop(block);
        return large(client, site, entry, extent, manner).await;
    }
    match entry.read(block, extent.range()).await {
        Ok(_) if entry.has_changed() => {
            let changed = changed();
            note_cut(client, manner.path, &changed, entry.size());
            Err(changed)
        }
        Ok(block) => {
            if zero_copy {
                send_block(client, block).await?;
            } else {
                send(client, block, false).await?;
            }
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

/// Bytes of a file, spliced. What has been sent has promised them: where they do not come, only cutting the
/// connection tells the client.
pub(super) async fn body<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    path: &Path,
    entry: &Entry,
    range: Range<u64>,
) -> annulus::Result<()> {
    let Some(file) = &entry.file else { return Ok(()) };
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min(at + SEND_STEP);
        let stream = &client.stream;
        let sending = async { Ok(transfer::send_file(stream, file, at..end, site.road).await?) };
        let sent = client.timer.wait(client.deadlines.sending(end - at), OnStop::Wait, sending).await;
        // Bytes of two versions under one strong tag would be put together by whoever resumes.
        let sent = sent.unwrap_or_else(|| Err(too_slow()));
        let sent = sent.and_then(|sent| if entry.has_changed() { Err(changed()) } else { Ok(sent) });
        if let Err(error) = sent {
            note_cut(client, path, &error, entry.size());
            return Err(error);
        }
        client.sent.bytes += end - at;
        at = end;
    }
    Ok(())
}

/// Why a client was cut whose file became another while it was sent.
pub(super) fn changed() -> Error {
    let busy = std::io::Error::from(std::io::ErrorKind::ResourceBusy);
    Error::with_source(ErrorKind::Io, "the file was written to while it was sent", busy)
}

/// Logs why a file was not sent whole: a client that goes away is everyday, a file that shrinks or cannot be
/// read is something to look into.
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
            response::file_head(out, moment, entry.facts().fields().0, extent);
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
