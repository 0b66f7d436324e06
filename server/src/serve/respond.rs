//! Answers: from what was asked to bytes on the wire.

use std::ops::Range;
use std::path::Path;
use std::time::SystemTime;

use annulus::buf::Block;
use annulus::net::Family;
use annulus::{Error, transfer};

use super::connection::Client;
use super::deadline_timer::OnStop;
use super::files::{self, Opened, Unavailable};
use super::parts::parts;
use super::send::{send, too_slow};
use super::{SEND_STEP, SEND_TIMEOUT, SMALL_COLD_FILE, SMALL_FILE, Site};
use crate::http::choice::{self, Choice};
use crate::http::method::Method;
use crate::http::range::Chosen;
use crate::http::request::{After, Request};
use crate::http::response::{self, Extent, Moment};
use crate::http::target::Kind;
use crate::http::{Refusal, Status};

/// Room for any answer that is nothing but text, in bytes; a longer one only costs a reallocation.
const PLAIN_ROOM: usize = 384;

/// Answers a well-formed request.
///
/// # Errors
/// When the answer could not be sent whole: the connection is of no further use.
pub(super) async fn answer<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    request: &Request,
    after: After,
) -> annulus::Result<()> {
    match request.method {
        Method::Get | Method::Head => file(client, site, request, after).await,
        Method::Options => text(client, site, Status::NoContent, after, response::options).await,
        Method::NotAllowed | Method::Connect => {
            plain(client, site, Status::MethodNotAllowed, "", after, true).await
        }
        Method::Unknown => plain(client, site, Status::NotImplemented, "", after, true).await,
    }
}

/// Answers a GET or HEAD.
async fn file<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    request: &Request,
    after: After,
) -> annulus::Result<()> {
    let with_body = request.method == Method::Get;
    if request.target.kind() != Kind::Name {
        return plain(client, site, Status::NotFound, "", after, with_body).await;
    }
    let path = request.target.path();
    match files::open(site, path).await {
        Ok(opened) => found(client, site, request, &opened, after).await,
        Err(Unavailable::NotFound) => plain(client, site, Status::NotFound, "", after, with_body).await,
        Err(Unavailable::Unreadable(error)) => {
            tracing::warn!(client = %client.address, ?path, %error, "a file cannot be read");
            plain(client, site, Status::InternalServerError, "", after, with_body).await
        }
    }
}

/// Answers about a file that is there.
async fn found<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    request: &Request,
    opened: &Opened,
    after: After,
) -> annulus::Result<()> {
    let path = request.target.path();
    let with_body = request.method == Method::Get;
    let choice = match &request.conditions {
        None => Choice::Send(Chosen::Whole),
        Some(conditions) => {
            let (file, now) = (opened.validators(), SystemTime::now());
            choice::choose(request.method, conditions, &file, opened.size, now)
        }
    };
    let extent = match choice {
        Choice::NotModified => {
            let fields = opened.facts.fields();
            let write = |out: &mut Vec<u8>, moment: Moment<'_>| response::not_modified(out, moment, fields);
            return text(client, site, Status::NotModified, after, write).await;
        }
        Choice::PreconditionFailed => {
            return plain(client, site, Status::PreconditionFailed, "", after, with_body).await;
        }
        Choice::Send(Chosen::Unsatisfiable) => {
            let size = opened.size;
            let write = |out: &mut Vec<u8>, moment: Moment<'_>| response::unsatisfiable(out, moment, size);
            return text(client, site, Status::RangeNotSatisfiable, after, write).await;
        }
        Choice::Send(Chosen::Parts(ranges)) => return parts(client, site, path, opened, ranges, after).await,
        Choice::Send(Chosen::Part(range)) => Extent::Part(range, opened.size),
        Choice::Send(Chosen::Whole) => Extent::Whole(opened.size),
    };
    client.sent.status = extent.status().code();
    if !with_body {
        send_head(client, site, opened, &extent, after, false).await
    } else if is_small(opened, &extent) {
        small(client, site, path, opened, &extent, after).await
    } else {
        large(client, site, path, opened, &extent, after).await
    }
}

/// Whether what is asked for is to be read into memory of ours.
fn is_small(opened: &Opened, extent: &Extent) -> bool {
    let len = extent.len();
    len <= SMALL_FILE || len <= SMALL_COLD_FILE && !opened.file.is_cached(extent.range().start, len)
}

/// Answers what is not a request, and says that the connection ends.
pub(super) async fn refuse<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    refusal: Refusal,
) -> annulus::Result<()> {
    plain(client, site, refusal.status, refusal.why, After::Close, true).await
}

/// Head and body in one send, from a block of the core's pool: node-local memory that is already there. While all blocks
/// are out, by clients that take theirs slowly, the file goes the way of large ones, which needs no memory of ours: so
/// neither do those clients hold up the others, nor does their number cost memory without end.
async fn small<F: Family>(
    client: &mut Client<F>,
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
    let range = extent.range();
    if (1..=SMALL_FILE).contains(&extent.len()) && range.end == opened.size {
        opened.file.read_now(&mut block, range.start)?;
        // The file may have grown.
        block.truncate(whole);
    }
    let left = whole - block.len();
    if left == 0 {
        return Ok(block);
    }
    let at = range.end - left as u64;
    opened.file.read_exact_at(block, left, at).await.map_err(|failed| failed.error)
}

/// The head, held back by MSG_MORE so that it leaves with the first bytes of the body, then the body spliced.
async fn large<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    path: &Path,
    opened: &Opened,
    extent: &Extent,
    after: After,
) -> annulus::Result<()> {
    // Behind the head of an empty file comes nothing that it could leave with.
    send_head(client, site, opened, extent, after, extent.len() > 0).await?;
    body(client, site, path, opened, extent.range()).await
}

/// Bytes of a file, spliced. What has been sent has promised them: where they do not come, only cutting the connection tells
/// the client.
pub(super) async fn body<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    path: &Path,
    opened: &Opened,
    range: Range<u64>,
) -> annulus::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min(at + SEND_STEP);
        let stream = &client.stream;
        let sending = async { Ok(transfer::send_file(stream, &opened.file, at..end, site.road).await?) };
        let sent = client.timer.wait(SEND_TIMEOUT, OnStop::Wait, sending).await;
        if let Err(error) = sent.unwrap_or_else(|| Err(too_slow())) {
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
    opened: &Opened,
    extent: &Extent,
    after: After,
    read: impl FnOnce(&[u8]) -> T,
) -> T {
    let write = |out: &mut Vec<u8>| {
        with_moment(site, after, |moment| {
            response::file_head(out, moment, opened.facts.fields().0, extent);
        });
    };
    site.written(write, read)
}

/// Now.
pub(super) fn with_moment<T>(site: &Site, after: After, write: impl FnOnce(Moment<'_>) -> T) -> T {
    write(Moment { dates: &mut site.dates.borrow_mut(), now: SystemTime::now(), after })
}

/// Sends the head of a 200 or 206 alone, or with `more` to follow.
async fn send_head<F: Family>(
    client: &mut Client<F>,
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
async fn plain<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    status: Status,
    why: &str,
    after: After,
    with_body: bool,
) -> annulus::Result<()> {
    let write = |out: &mut Vec<u8>, moment: Moment<'_>| response::plain(out, moment, status, why, with_body);
    text(client, site, status, after, write).await
}

/// A whole response that `write` writes.
async fn text<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    status: Status,
    after: After,
    write: impl FnOnce(&mut Vec<u8>, Moment<'_>),
) -> annulus::Result<()> {
    let mut out = Vec::with_capacity(PLAIN_ROOM);
    with_moment(site, after, |moment| write(&mut out, moment));
    let head = memchr::memmem::find(&out, b"\r\n\r\n").map_or(out.len(), |at| at + 4);
    let body = (out.len() - head) as u64;
    client.sent.status = status.code();
    send(client, out, false).await?;
    client.sent.bytes = body;
    Ok(())
}
