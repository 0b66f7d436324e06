//! Sends a file's head and body: small ones in one send, large ones without passing through user memory.

use std::ops::Range;
use std::sync::Arc;

use annulus::buf::Block;
use annulus::net::Family;
use annulus::transfer::{self, FileParts, Residency};
use annulus::{Error, ErrorKind};

use super::client::Client;
use super::clock;
use super::deadline_timer::OnStop;
use super::entry::Entry;
use super::pages::{self, Manner};
use super::send::{send, send_block, send_two, too_slow};
use super::send_method::{self, COPIED, SendMethod};
use super::{SEND_STEP, Site};
use crate::http::Status;
use crate::http::response::{self, Extent};

/// The answer with a file: which version, and how it is given.
#[derive(Clone, Copy)]
pub(super) struct FileAnswer<'a> {
    pub(super) site: &'a Site,
    pub(super) entry: &'a Entry,
    pub(super) manner: Manner<'a>,
}

impl FileAnswer<'_> {
    /// Hands the head of a 200 or 206 to `read`.
    fn with_head<T>(self, extent: &Extent, read: impl FnOnce(&[u8]) -> T) -> T {
        let write = |out: &mut Vec<u8>| {
            self.site.with_moment(self.manner.after, |moment| {
                response::file_head(out, moment, self.entry.facts().fields().0, extent);
            });
        };
        self.site.written(write, read)
    }

    /// Head and content in a block, if there is one that both fit into.
    fn copied(self, extent: &Extent, content: &[u8]) -> Option<Block> {
        let mut block = Block::take()?;
        self.with_head(extent, |head| block.extend_from_slice(head));
        if block.capacity() - block.len() < content.len() {
            return None;
        }
        block.extend_from_slice(content);
        Some(block)
    }

    /// The whole answer for a small file whose content is in memory, ready to be sent, and the bytes of its
    /// body.
    pub(super) fn at_once(self) -> Option<(Block, u64)> {
        let content = self.entry.stored.content.as_deref();
        let content = content.filter(|content| content.len() as u64 <= COPIED)?;
        let size = self.entry.size();
        Some((self.copied(&Extent::Whole(size), content)?, size))
    }
}

/// Sends an extent of a file, behind its head.
///
/// # Errors
/// When it could not be sent whole: the connection is of no further use.
pub(super) async fn send_extent<F: Family>(
    client: &mut Client<F>,
    answer: FileAnswer<'_>,
    extent: &Extent,
) -> annulus::Result<()> {
    client.sent.status = extent.status().code();
    let mut sending = Sending { client, answer, extent };
    if !answer.manner.with_body {
        return sending.head_alone().await;
    }
    let (held, whole) = (answer.entry.stored.content.is_some(), matches!(extent, Extent::Whole(_)));
    match send_method::choose(held, whole, extent.len()) {
        SendMethod::Copied => sending.copied().await,
        SendMethod::TwoPlaces => sending.in_two_pieces().await,
        SendMethod::Read => sending.read(false).await,
        SendMethod::Cached => {
            if sending.cached().await? {
                return Ok(());
            }
            let zero_copy = send_method::may_skip_copy(extent.len(), sending.client.address());
            sending.read(zero_copy).await
        }
        SendMethod::Spliced => sending.spliced().await,
    }
}

/// An extent of a file on its way to a client, behind its head.
struct Sending<'a, F: Family> {
    client: &'a mut Client<F>,
    answer: FileAnswer<'a>,
    extent: &'a Extent,
}

impl<F: Family> Sending<'_, F> {
    /// Sends content and head in one send, from a block of the core's pool. While slow clients hold all
    /// blocks, the content is sent from where it lies.
    async fn copied(&mut self) -> annulus::Result<()> {
        let content = self.answer.entry.content(self.extent.range()).unwrap_or_default();
        if let Some(block) = self.answer.copied(self.extent, content) {
            send(self.client, block).await?;
        } else if matches!(self.extent, Extent::Whole(_)) {
            return self.in_two_pieces().await;
        } else {
            let mut head = self.answer.with_head(self.extent, <[u8]>::to_vec);
            head.extend_from_slice(content);
            send(self.client, head).await?;
        }
        self.client.sent.bytes = self.extent.len();
        Ok(())
    }

    /// Sends all of the content from where it lies, behind its head, in one send.
    async fn in_two_pieces(&mut self) -> annulus::Result<()> {
        let head = self.answer.with_head(self.extent, <[u8]>::to_vec);
        if let Some(content) = &self.answer.entry.stored.content {
            send_two(self.client, head, Arc::clone(content)).await?;
        }
        self.client.sent.bytes = self.extent.len();
        Ok(())
    }

    /// Reads the body, and sends head and body in one send, from a block of the core's pool: node-local
    /// memory that exists already. While slow clients hold all blocks, the file is spliced as large ones are,
    /// which needs no memory of ours. So slow clients delay nobody else, and their number costs no memory.
    async fn read(&mut self, zero_copy: bool) -> annulus::Result<()> {
        let answer = self.answer;
        let Some(mut block) = Block::take() else { return self.spliced().await };
        let body_at = answer.with_head(self.extent, |head| block.extend_from_slice(head));
        if block.capacity() < body_at + self.extent.len() as usize {
            drop(block);
            return self.spliced().await;
        }
        match answer.entry.read(block, self.extent.range()).await {
            Ok(_) if answer.entry.has_changed() => {
                let changed = changed();
                note_cut(self.client, answer, &changed);
                Err(changed)
            }
            Ok(block) => {
                if zero_copy {
                    send_block(self.client, block).await?;
                } else {
                    send(self.client, block).await?;
                }
                self.client.sent.bytes = self.extent.len();
                Ok(())
            }
            Err(error) => {
                tracing::warn!(client = %self.client.address(), path = ?answer.manner.path, %error, "a file cannot be read");
                // Nothing has been sent yet, so the client can be told.
                pages::error(self.client, answer.site, Status::InternalServerError, "", answer.manner).await
            }
        }
    }

    /// Sends head and body by one call each, if the page cache has all of the body. False: it has not, and
    /// nothing has been sent.
    async fn cached(&mut self) -> annulus::Result<bool> {
        let Some(file) = &self.answer.entry.file else { return Ok(false) };
        let (head, range) = (self.head(), self.extent.range());
        let (stored, now) = (&self.answer.entry.stored, clock::now());
        let residency = stored.residency(now);
        let Client { stream, timer, deadlines, .. } = &mut *self.client;
        let sending = async { Ok(transfer::send_cached(stream, head, file, range, residency).await?) };
        let sent = timer.wait(deadlines.sending(self.extent.len()), OnStop::Wait, sending).await;
        let sent = unless_changed(sent, self.answer);
        if let Err(error) = &sent {
            note_cut(self.client, self.answer, error);
        }
        let sent = sent?;
        if matches!(self.extent, Extent::Whole(_)) && residency == Residency::Unknown && sent.is_some() {
            stored.was_resident(now);
        }
        self.client.sent.bytes = sent.unwrap_or_default();
        Ok(sent.is_some())
    }

    /// Sends the head and behind it the body, spliced.
    async fn spliced(&mut self) -> annulus::Result<()> {
        let head = self.head();
        body(self.client, self.answer, head, self.extent.range()).await
    }

    /// Sends the head of a 200 or 206 alone.
    async fn head_alone(&mut self) -> annulus::Result<()> {
        match self.head() {
            Head::Block(block) => send(self.client, block).await,
            Head::Own(bytes) => send(self.client, bytes).await,
        }
    }

    /// The head of a 200 or 206.
    fn head(&self) -> Head {
        match Block::take() {
            Some(mut block) => {
                self.answer.with_head(self.extent, |head| block.extend_from_slice(head));
                Head::Block(block)
            }
            None => Head::Own(self.answer.with_head(self.extent, <[u8]>::to_vec)),
        }
    }
}

/// Bytes that stand before those of a file.
pub(super) enum Head {
    /// In a block of the core's pool.
    Block(Block),
    /// Elsewhere: while slow clients hold all blocks, or where it is gathered.
    Own(Vec<u8>),
}

impl AsRef<[u8]> for Head {
    fn as_ref(&self) -> &[u8] {
        match self {
            Head::Block(block) => block,
            Head::Own(bytes) => bytes,
        }
    }
}

/// Sends `head` and behind it bytes of a file. The head has promised them: where they cannot be sent, only
/// cutting the connection tells the client.
pub(super) async fn body<F: Family>(
    client: &mut Client<F>,
    answer: FileAnswer<'_>,
    head: Head,
    range: Range<u64>,
) -> annulus::Result<()> {
    let Some(file) = &answer.entry.file else { return Ok(()) };
    let (mut at, mut head) = (range.start, Some(head));
    let mut parts = FileParts::new(&client.stream, file, answer.site.road);
    loop {
        let end = range.end.min(at + SEND_STEP);
        let before = head.take().unwrap_or(Head::Own(Vec::new()));
        let sending = async { Ok(parts.send(before, at..end).await?) };
        let sent = client.timer.wait(client.deadlines.sending(end - at), OnStop::Wait, sending).await;
        if let Err(error) = unless_changed(sent, answer) {
            note_cut(client, answer, &error);
            return Err(error);
        }
        client.sent.bytes += end - at;
        at = end;
        if at >= range.end {
            return Ok(());
        }
    }
}

/// What became of sending bytes of a file in time. A client that resumes would put bytes of two versions with
/// one strong tag together.
fn unless_changed<T>(sent: Option<annulus::Result<T>>, answer: FileAnswer<'_>) -> annulus::Result<T> {
    let sent = sent.unwrap_or_else(|| Err(too_slow()))?;
    if answer.entry.has_changed() { Err(changed()) } else { Ok(sent) }
}

/// Why a client was cut whose file became another while it was sent.
pub(super) fn changed() -> Error {
    let busy = std::io::Error::from(std::io::ErrorKind::ResourceBusy);
    Error::with_source(ErrorKind::Io, "the file was written to while it was sent", busy)
}

/// Logs why a file was not sent whole. A client that leaves is usual (info); a file that shrinks or cannot be
/// read is not (warning).
pub(super) fn note_cut<F: Family>(client: &Client<F>, answer: FileAnswer<'_>, error: &Error) {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut};
    let (path, size) = (answer.manner.path, answer.entry.size());
    match error.io_error().map(std::io::Error::kind) {
        Some(BrokenPipe | ConnectionReset | TimedOut) => {
            tracing::info!(client = %client.address(), ?path, size, %error, "the client did not take the whole file");
        }
        _ => {
            tracing::warn!(client = %client.address(), ?path, size, %error, "a file was not sent whole: the connection is cut");
        }
    }
}
