//! Answers: from what was asked to bytes on the wire.

use std::path::Path;
use std::time::SystemTime;

use annulus::buf::{Block, IoBuf};
use annulus::{Error, ErrorKind, transfer};

use super::connection::Client;
use super::deadline_timer::OnStop;
use super::files::{self, Opened, Unavailable};
use super::{SEND_STEP, SEND_TIMEOUT, SMALL_COLD_FILE, SMALL_FILE, Site};
use crate::http::range::Chosen;
use crate::http::request::{After, Ask, Request};
use crate::http::response::{self, Extent};
use crate::http::target::Resource;
use crate::http::{Refusal, Status};

/// Room for any answer that is nothing but text, in bytes; a longer one only costs a reallocation.
const PLAIN_ROOM: usize = 384;

/// Answers a well-formed request.
///
/// # Errors
/// When the answer could not be sent whole: the connection is of no further use.
pub(super) async fn answer(
    client: &mut Client,
    site: &Site,
    request: &Request,
    after: After,
) -> annulus::Result<()> {
    let (resource, with_body) = match &request.ask {
        Ask::Get(resource) => (resource, true),
        Ask::Head(resource) => (resource, false),
        Ask::Other => return plain(client, site, Status::MethodNotAllowed, "", after, true).await,
    };
    let Resource::File(path) = resource else {
        return plain(client, site, Status::NotFound, "", after, with_body).await;
    };
    match files::open(site, path).await {
        Ok(opened) => {
            let Some(extent) = extent(request, &opened) else {
                return unsatisfiable(client, site, opened.size, after).await;
            };
            if !with_body {
                client.sent.status = status_of(&extent).code();
                send_head(client, site, &opened, &extent, after, false).await
            } else if is_small(&opened, &extent) {
                small(client, site, path, &opened, &extent, after).await
            } else {
                large(client, site, path, &opened, &extent, after).await
            }
        }
        Err(Unavailable::NotFound) => plain(client, site, Status::NotFound, "", after, with_body).await,
        Err(Unavailable::Unreadable(error)) => {
            tracing::warn!(client = %client.address, ?path, %error, "a file cannot be read");
            plain(client, site, Status::InternalServerError, "", after, with_body).await
        }
    }
}

/// How much of the file is asked for; `None` if it does not have that.
fn extent(request: &Request, opened: &Opened) -> Option<Extent> {
    let whole = Extent { range: 0..opened.size, of: None };
    let Some(part) = request.part else {
        return Some(whole);
    };
    match part.choose(opened.size, opened.modified, SystemTime::now()) {
        Chosen::Whole => Some(whole),
        Chosen::Part(range) => Some(Extent { range, of: Some(opened.size) }),
        Chosen::Unsatisfiable => None,
    }
}

fn status_of(extent: &Extent) -> Status {
    if extent.of.is_some() { Status::PartialContent } else { Status::Ok }
}

/// Whether what is asked for is to be read into memory of ours.
fn is_small(opened: &Opened, extent: &Extent) -> bool {
    let len = extent.len();
    len <= SMALL_FILE || len <= SMALL_COLD_FILE && !opened.file.is_cached(extent.range.start, len)
}

/// Answers what is not a request, and says that the connection ends.
pub(super) async fn refuse(client: &mut Client, site: &Site, refusal: Refusal) -> annulus::Result<()> {
    plain(client, site, refusal.status, refusal.why, After::Close, true).await
}

/// Head and body in one send, from a block of the core's pool: node-local memory that is already there. While all blocks
/// are out, by clients that take theirs slowly, the file goes the way of large ones, which needs no memory of ours: so
/// neither do those clients hold up the others, nor does their number cost memory without end.
async fn small(
    client: &mut Client,
    site: &Site,
    path: &Path,
    opened: &Opened,
    extent: &Extent,
    after: After,
) -> annulus::Result<()> {
    let Some(mut block) = Block::take() else {
        return large(client, site, path, opened, extent, after).await;
    };
    let body_at = with_head(site, opened, extent, after, |head| block.extend_from_slice(head));
    let whole = body_at + extent.len() as usize;
    if block.capacity() < whole {
        drop(block);
        return large(client, site, path, opened, extent, after).await;
    }
    match fill(block, whole, opened, extent).await {
        Ok(block) => {
            client.sent.status = status_of(extent).code();
            send(client, block, false).await?;
            client.sent.bytes = extent.len();
            Ok(())
        }
        Err(error) => {
            tracing::warn!(client = %client.address, ?path, %error, "a file cannot be read");
            // Nothing has been sent yet, so the client can be told.
            plain(client, site, Status::InternalServerError, "", after, true).await
        }
    }
}

/// Fills a block with the extent, behind the head that it holds, up to `whole` bytes.
///
/// # Errors
/// As for a read; `UnexpectedEof` if the file has become shorter.
async fn fill(mut block: Block, whole: usize, opened: &Opened, extent: &Extent) -> annulus::Result<Block> {
    // What is in memory is read at once, what is not by the ring. Of larger extents it is known that they are not; and a call
    // on the core reads all that there is room for, so it is for those that the end of the file bounds.
    if (1..=SMALL_FILE).contains(&extent.len()) && extent.range.end == opened.size {
        opened.file.read_now(&mut block, extent.range.start)?;
        // The file may have grown.
        block.truncate(whole);
    }
    let left = whole - block.len();
    if left == 0 {
        return Ok(block);
    }
    let at = extent.range.end - left as u64;
    opened.file.read_exact_at(block, left, at).await.map_err(|failed| failed.error)
}

/// The head, held back by MSG_MORE so that it leaves with the first bytes of the body, then the body spliced.
async fn large(
    client: &mut Client,
    site: &Site,
    path: &Path,
    opened: &Opened,
    extent: &Extent,
    after: After,
) -> annulus::Result<()> {
    client.sent.status = status_of(extent).code();
    // Behind the head of an empty file comes nothing that it could leave with.
    send_head(client, site, opened, extent, after, extent.len() > 0).await?;
    let mut at = extent.range.start;
    while at < extent.range.end {
        let end = extent.range.end.min(at + SEND_STEP);
        let stream = &client.stream;
        let sending = async { Ok(transfer::send_file(stream, &opened.file, at..end, site.road).await?) };
        let sent = client.timer.wait(SEND_TIMEOUT, OnStop::Wait, sending).await;
        if let Err(error) = sent.unwrap_or_else(|| Err(too_slow())) {
            // The head has promised more: only cutting the connection tells the client.
            note_cut(client, path, &error, opened.size);
            return Err(error);
        }
        client.sent.bytes += end - at;
        at = end;
    }
    Ok(())
}

/// Logs why a file was not sent whole: a client that goes away is everyday, a file that shrinks or cannot be read is
/// something to look into.
fn note_cut(client: &Client, path: &Path, error: &Error, size: u64) {
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
    opened: &Opened,
    extent: &Extent,
    after: After,
    read: impl FnOnce(&[u8]) -> T,
) -> T {
    let write = |out: &mut Vec<u8>| {
        let dates = &mut site.dates.borrow_mut();
        response::file_head(out, dates, SystemTime::now(), &opened.fields, extent, after);
    };
    site.written(write, read)
}

/// Sends the head of a 200 or 206 alone, or with `more` to follow.
async fn send_head(
    client: &mut Client,
    site: &Site,
    opened: &Opened,
    extent: &Extent,
    after: After,
    more: bool,
) -> annulus::Result<()> {
    match Block::take() {
        Some(mut block) => {
            with_head(site, opened, extent, after, |head| block.extend_from_slice(head));
            send(client, block, more).await
        }
        None => {
            let head = with_head(site, opened, extent, after, |head| head.to_vec());
            send(client, head, more).await
        }
    }
}

/// A response that is nothing but a status and a line of text.
async fn plain(
    client: &mut Client,
    site: &Site,
    status: Status,
    why: &str,
    after: After,
    with_body: bool,
) -> annulus::Result<()> {
    let mut out = Vec::with_capacity(PLAIN_ROOM);
    response::plain(&mut out, &mut site.dates.borrow_mut(), SystemTime::now(), status, why, after, with_body);
    send_text(client, status, out).await
}

/// The answer to a range that the file does not have.
async fn unsatisfiable(client: &mut Client, site: &Site, size: u64, after: After) -> annulus::Result<()> {
    let mut out = Vec::with_capacity(PLAIN_ROOM);
    response::unsatisfiable(&mut out, &mut site.dates.borrow_mut(), SystemTime::now(), size, after);
    send_text(client, Status::RangeNotSatisfiable, out).await
}

/// Sends a response that is nothing but text.
async fn send_text(client: &mut Client, status: Status, out: Vec<u8>) -> annulus::Result<()> {
    let head = memchr::memmem::find(&out, b"\r\n\r\n").map_or(out.len(), |at| at + 4);
    let body = (out.len() - head) as u64;
    client.sent.status = status.code();
    send(client, out, false).await?;
    client.sent.bytes = body;
    Ok(())
}

/// Sends all of `bytes`, and gives that [`SEND_TIMEOUT`].
async fn send(client: &mut Client, bytes: impl IoBuf, more: bool) -> annulus::Result<()> {
    let stream = &client.stream;
    let sending =
        async { if more { stream.send_all_more(bytes).await } else { stream.send_all(bytes).await } };
    match client.timer.wait(SEND_TIMEOUT, OnStop::Wait, sending).await {
        Some(sent) => Ok(sent.map(drop)?),
        None => Err(too_slow()),
    }
}

fn too_slow() -> Error {
    let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
    Error::with_source(ErrorKind::Io, "the client takes too little, too slowly", late)
}
