//! Sending a range of a file to a socket, with or without a head before it.

use std::ops::Range;

use super::Road;
use super::cold::Cold;
use super::file_transfer::{FileTransfer, Residency, SendFileError};
use crate::fs::File;
use crate::limits::{OFFSET, refuse_above};
use crate::net::{Connection, Family, Writes};

/// Sends bytes `range` of `file` to `stream` without copying them through user memory (`sendfile(2)`; from
/// the disk, and on [`Road::Ring`], `splice(2)`: Linux 2.6.17, as SQEs 5.7). Returns how many bytes were
/// sent, which is all of them.
///
/// The pages are the page cache's own: a change of the file before the peer has read may change what the peer
/// reads.
///
/// # Errors
/// [`SendFileError`] has the number of bytes that were sent, and the system's reason, or `UnexpectedEof` when
/// the file was shorter; [`ErrorKind::Input`](crate::ErrorKind::Input) for a range that goes beyond 2^63 - 1,
/// of which nothing was sent.
///
/// # Cancellation
/// An unknown part has been sent, so the stream refuses further sends
/// ([`ErrorKind::WritePoisoned`](crate::ErrorKind::WritePoisoned)), and a pipe that still holds bytes is
/// closed.
pub async fn send_file<F: Family, S: Writes>(
    stream: &Connection<F, S>,
    file: &File,
    range: Range<u64>,
    road: Road,
) -> Result<u64, SendFileError> {
    send_file_behind(stream, [], file, range, road).await
}

/// Sends `head` and behind it bytes `range` of `file`, as [`send_file`] does. The head leaves in one segment
/// with the first bytes of the file (`MSG_MORE`), or alone if the range is empty.
///
/// # Errors
/// As for [`send_file`]; [`SendFileError::sent`] does not count the head.
///
/// # Cancellation
/// As for [`send_file`].
pub async fn send_file_behind<F: Family, S: Writes>(
    stream: &Connection<F, S>,
    head: impl AsRef<[u8]>,
    file: &File,
    range: Range<u64>,
    road: Road,
) -> Result<u64, SendFileError> {
    FileParts::new(stream, file, road).send(head, range).await
}

/// Parts of a file that are sent one after the other, each as by [`send_file_behind`].
///
/// What one part shows of the page cache holds for the next ones: behind bytes that had to be read from the
/// disk the ring goes on reading, so that the core neither waits nor reads ahead. Tasks that send a large
/// file in steps, to have a deadline for each, use this.
#[derive(Debug)]
pub struct FileParts<'a, F: Family, S: Writes> {
    stream: &'a Connection<F, S>,
    file: &'a File,
    road: Road,
    region: Cold,
}

impl<'a, F: Family, S: Writes> FileParts<'a, F, S> {
    /// None are sent yet.
    pub fn new(stream: &'a Connection<F, S>, file: &'a File, road: Road) -> Self {
        Self { stream, file, road, region: Cold::default() }
    }

    /// Sends `head` and behind it bytes `range` of the file.
    ///
    /// # Errors
    /// As for [`send_file_behind`].
    ///
    /// # Cancellation
    /// As for [`send_file`].
    pub async fn send(&mut self, head: impl AsRef<[u8]>, range: Range<u64>) -> Result<u64, SendFileError> {
        refuse(&range)?;
        let transfer = FileTransfer::new(self.stream.socket(), self.file, range, &mut self.region).await?;
        transfer.send(head.as_ref(), self.road).await
    }
}

/// Sends as [`send_file_behind`] does if all of `range` is in the page cache. `None` if it is not: then
/// nothing has been sent, and the caller chooses what to do. One call for the head and one for up to 64 KiB
/// of the file are all that it costs, beside the question.
///
/// If the system drops pages between the question and the call, the core waits for the disk.
///
/// # Errors
/// As for [`send_file_behind`].
///
/// # Cancellation
/// As for [`send_file`].
pub async fn send_cached<F: Family, S: Writes>(
    stream: &Connection<F, S>,
    head: impl AsRef<[u8]>,
    file: &File,
    range: Range<u64>,
    residency: Residency,
) -> Result<Option<u64>, SendFileError> {
    refuse(&range)?;
    let mut region = Cold::default();
    let mut transfer = FileTransfer::new(stream.socket(), file, range, &mut region).await?;
    if !transfer.is_cached(residency) {
        return transfer.end(Ok(())).map(|_| None);
    }
    transfer.send(head.as_ref(), Road::Inline).await.map(Some)
}

/// Refuses a range that the kernel has no number for.
fn refuse(range: &Range<u64>) -> Result<(), SendFileError> {
    let checked = refuse_above(OFFSET, "a range of a file to an offset", range.start.max(range.end));
    checked.map_err(|error| SendFileError { sent: 0, error })
}
