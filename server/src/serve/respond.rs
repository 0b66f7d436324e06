//! Answers: from what was asked to bytes on the wire.

use std::path::Path;
use std::time::SystemTime;

use annulus::buf::{Block, IoBuf};
use annulus::net::TcpStream;
use annulus::{Error, ErrorKind, transfer};

use super::files::{self, Opened, Unavailable};
use super::{SEND_STEP, SEND_TIMEOUT, SMALL_FILE, Site};
use crate::http::mime::content_type;
use crate::http::request::{After, Ask};
use crate::http::response::{self, FileFacts};
use crate::http::target::Resource;
use crate::http::{Refusal, Status};

/// Room for any head that this server writes, in bytes; a longer one only costs a reallocation.
const HEAD_ROOM: usize = 384;

/// Answers a well-formed request.
///
/// # Errors
/// When the answer could not be sent whole: the connection is of no further use.
pub(super) async fn answer(stream: &TcpStream, site: &Site, ask: &Ask, after: After) -> annulus::Result<()> {
    let (resource, with_body) = match ask {
        Ask::Get(resource) => (resource, true),
        Ask::Head(resource) => (resource, false),
        Ask::Other => return plain(stream, site, Status::MethodNotAllowed, "", after, true).await,
    };
    let Resource::File(path) = resource else {
        return plain(stream, site, Status::NotFound, "", after, with_body).await;
    };
    match files::open(&site.root, path).await {
        Ok(opened) if !with_body => {
            let head = head(site, path, &opened, after);
            send(stream, head).await
        }
        Ok(opened) if opened.size <= SMALL_FILE => small(stream, site, path, &opened, after).await,
        Ok(opened) => large(stream, site, path, &opened, after).await,
        Err(Unavailable::NotFound) => plain(stream, site, Status::NotFound, "", after, with_body).await,
        Err(Unavailable::Unreadable(error)) => {
            tracing::warn!(?path, %error, "a file cannot be read");
            plain(stream, site, Status::InternalServerError, "", after, with_body).await
        }
    }
}

/// Answers what is not a request, and says that the connection ends.
pub(super) async fn refuse(stream: &TcpStream, site: &Site, refusal: Refusal) -> annulus::Result<()> {
    plain(stream, site, refusal.status, refusal.why, After::Close, true).await
}

/// Head and body in one send, from a block of the core's pool: node-local memory that is already there. While all blocks
/// are out, by clients that take theirs slowly, the file goes the way of large ones, which needs no memory of ours: so
/// neither do those clients hold up the others, nor does their number cost memory without end.
async fn small(
    stream: &TcpStream,
    site: &Site,
    path: &Path,
    opened: &Opened,
    after: After,
) -> annulus::Result<()> {
    let head = head(site, path, opened, after);
    let whole = head.len() + opened.size as usize;
    let Some(mut block) = Block::take().filter(|block| block.capacity() >= whole) else {
        return large(stream, site, path, opened, after).await;
    };
    block.extend_from_slice(&head);
    let mut at = 0;
    // Reads the file behind the head that the block holds.
    while block.len() < whole {
        let read = match opened.file.read_at(block, at).await {
            Ok((read, filled)) => {
                block = filled;
                read
            }
            Err(failed) => {
                tracing::warn!(?path, error = %failed.error, "a file cannot be read");
                return plain(stream, site, Status::InternalServerError, "", after, true).await;
            }
        };
        if read == 0 {
            // Nothing has been sent yet, so the client can be told.
            tracing::warn!(?path, "a file became shorter while it was read");
            return plain(stream, site, Status::InternalServerError, "", after, true).await;
        }
        at += read as u64;
    }
    // The file may have grown, and the block had room for it.
    block.truncate(whole);
    send(stream, block).await
}

/// The head, held back by MSG_MORE so that it leaves with the first bytes of the body, then the body spliced.
async fn large(
    stream: &TcpStream,
    site: &Site,
    path: &Path,
    opened: &Opened,
    after: After,
) -> annulus::Result<()> {
    let head = head(site, path, opened, after);
    within(async { Ok(stream.send_all_more(head).await.map(drop)?) }).await?;
    let mut at = 0;
    while at < opened.size {
        let end = opened.size.min(at + SEND_STEP);
        let sending = async { Ok(transfer::send_file(stream, &opened.file, at..end, site.road).await?) };
        if let Err(error) = within(sending).await {
            // The head has promised more: only cutting the connection tells the client.
            note_cut(path, &error, opened.size);
            return Err(error);
        }
        at = end;
    }
    Ok(())
}

/// Logs why a file was not sent whole: a client that goes away is everyday, a file that shrinks or cannot be read is
/// something to look into.
fn note_cut(path: &Path, error: &Error, size: u64) {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut};
    match error.io_error().map(std::io::Error::kind) {
        Some(BrokenPipe | ConnectionReset | TimedOut) => {
            tracing::info!(?path, size, %error, "the client did not take the whole file");
        }
        _ => tracing::warn!(?path, size, %error, "a file was not sent whole: the connection is cut"),
    }
}

/// The head of a 200.
fn head(site: &Site, path: &Path, opened: &Opened, after: After) -> Vec<u8> {
    let content_type = content_type(path);
    let facts = FileFacts { content_type: &content_type, size: opened.size, modified: opened.modified };
    let mut out = Vec::with_capacity(HEAD_ROOM);
    response::file_head(&mut out, &mut site.dates.borrow_mut(), SystemTime::now(), &facts, after);
    out
}

/// A response that is nothing but a status and a line of text.
async fn plain(
    stream: &TcpStream,
    site: &Site,
    status: Status,
    why: &str,
    after: After,
    with_body: bool,
) -> annulus::Result<()> {
    let mut out = Vec::with_capacity(HEAD_ROOM);
    response::plain(&mut out, &mut site.dates.borrow_mut(), SystemTime::now(), status, why, after, with_body);
    send(stream, out).await
}

/// Sends all of `bytes`.
async fn send(stream: &TcpStream, bytes: impl IoBuf) -> annulus::Result<()> {
    within(async { Ok(stream.send_all(bytes).await.map(drop)?) }).await
}

/// Gives one send [`SEND_TIMEOUT`].
async fn within<T>(sending: impl Future<Output = annulus::Result<T>>) -> annulus::Result<T> {
    annulus::time::timeout(SEND_TIMEOUT, sending).await.unwrap_or_else(|_elapsed| {
        let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
        Err(Error::with_source(ErrorKind::Io, "the client takes too little, too slowly", late))
    })
}
