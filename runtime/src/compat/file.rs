//! A file as a stream: it has a position, reads ahead, and writes behind.

use std::fmt;
use std::future::Future;
use std::io::{self, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::io::to_io;
use crate::Result;
use crate::buf::owned::Copied;
use crate::fs::{Cursor, File};

/// How many bytes are read at a time.
const AHEAD: usize = 64 << 10;

type Pending<T> = Pin<Box<dyn Future<Output = Result<T>>>>;

/// A file that has the traits of other crates. It reads 64 KiB at a time into a buffer of its own. Written
/// bytes are copied, at most 68 KiB at a time, and the next write or flush returns an error of that.
///
/// Closing flushes; [`File::sync_data`] of [`get_ref`](Self::get_ref) writes the file to the disk.
///
/// ```
/// # annulus::Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?.run(|| async {
/// use annulus::compat::FileIo;
/// use annulus::fs::temp_file;
/// use std::io::SeekFrom;
/// use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
///
/// let mut file = FileIo::new(temp_file().await?);
/// file.write_all(b"one two").await?;
/// file.seek(SeekFrom::Start(4)).await?;
/// let mut word = String::new();
/// file.read_to_string(&mut word).await?;
/// assert_eq!(word, "two");
/// # annulus::Ok(())
/// # })?;
/// # annulus::Ok(())
/// ```
///
/// # Cancellation
/// Reading and seeking are safe. Bytes that a write has accepted are written on when the future around the
/// write or flush is dropped. Dropping the `FileIo` before a flush has ended loses what is not written yet.
///
/// # Panics
/// Its polls panic on a thread that is no core's.
pub struct FileIo {
    file: File,
    /// The offset of the next read or write, as its user sees it.
    position: u64,
    /// The bytes that were read ahead. Those after the first `used` begin at `position`.
    ahead: Vec<u8>,
    used: usize,
    reading: Option<Pending<Vec<u8>>>,
    writing: Option<Pending<()>>,
    seeking: Option<(SeekFrom, Pending<u64>)>,
}

impl FileIo {
    /// Puts the traits on `file`, at its beginning.
    pub fn new(file: File) -> Self {
        Self::at(Cursor::new(file))
    }

    /// Puts the traits on a file, at the position of `cursor`.
    pub fn at(cursor: Cursor) -> Self {
        let position = cursor.position();
        let file = cursor.into_inner();
        Self { file, position, ahead: Vec::new(), used: 0, reading: None, writing: None, seeking: None }
    }

    /// The file.
    pub fn get_ref(&self) -> &File {
        &self.file
    }

    /// The offset of the next read or write, in bytes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The file and its position. Flush before: bytes that are still being written are lost.
    pub fn into_inner(self) -> Cursor {
        Cursor::at(self.file, self.position)
    }
}

#[cfg_attr(
    not(any(feature = "futures-io", feature = "tokio")),
    expect(dead_code, reason = "no feature, no traits")
)]
impl FileIo {
    /// The bytes that can be read without waiting for more; none at the end of the file.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        // Written bytes must be in the file before it is read.
        ready!(self.poll_written(cx))?;
        if self.used == self.ahead.len() {
            let reading = self.reading.get_or_insert_with(|| {
                let (file, at) = (self.file.clone(), self.position);
                let mut buf = std::mem::take(&mut self.ahead);
                self.used = 0;
                buf.clear();
                buf.reserve(AHEAD);
                Box::pin(async move { Ok(file.read_at(buf, at).await?.1) })
            });
            let read = ready!(reading.as_mut().poll(cx));
            self.reading = None;
            self.ahead = read.map_err(to_io)?;
        }
        Poll::Ready(Ok(&self.ahead[self.used..]))
    }

    /// Says that the first `n` bytes of them were read.
    pub(super) fn advance(&mut self, n: usize) {
        assert!(n <= self.ahead.len() - self.used, "more was consumed than had been read");
        self.used += n;
        self.position += n as u64;
    }

    /// Drops the bytes that were read ahead, because `position` has moved away from them.
    fn forget_ahead(&mut self) {
        self.reading = None;
        self.ahead.clear();
        self.used = 0;
    }

    /// Takes as much of `slices` as one write takes, and starts that write.
    pub(super) fn poll_write_from<'a>(
        &mut self,
        cx: &mut Context<'_>,
        slices: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_written(cx))?;
        if slices.clone().all(<[u8]>::is_empty) {
            return Poll::Ready(Ok(0));
        }
        self.forget_ahead();
        let copied = Copied::of(slices);
        let (n, file, at) = (copied.len(), self.file.clone(), self.position);
        self.position += n as u64;
        self.writing = Some(Box::pin(async move { Ok(file.write_all_at(copied, at).await.map(drop)?) }));
        // It is polled now, so that it leaves with this tick of the core.
        match self.poll_written(cx) {
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            _ => Poll::Ready(Ok(n)),
        }
    }

    /// Waits until the accepted bytes are written.
    pub(super) fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(writing) = &mut self.writing else { return Poll::Ready(Ok(())) };
        let written = ready!(writing.as_mut().poll(cx));
        self.writing = None;
        Poll::Ready(written.map_err(to_io))
    }

    /// Begins to move to another position. An earlier move that has not ended is forgotten.
    pub(super) fn seek_to(&mut self, to: SeekFrom) {
        let mut cursor = Cursor::at(self.file.clone(), self.position);
        self.seeking = Some((to, Box::pin(async move { cursor.seek(to).await })));
    }

    /// The target of the seek that was begun and has not ended.
    pub(super) fn seeks(&self) -> Option<SeekFrom> {
        self.seeking.as_ref().map(|(to, _)| *to)
    }

    /// Waits until the seek that was begun has ended, and returns the new position.
    pub(super) fn poll_sought(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        if self.seeking.is_some() {
            // The file's end is after the bytes that were written.
            ready!(self.poll_written(cx))?;
        }
        let Some((_, seeking)) = &mut self.seeking else { return Poll::Ready(Ok(self.position)) };
        let sought = ready!(seeking.as_mut().poll(cx));
        self.seeking = None;
        self.position = sought.map_err(to_io)?;
        self.forget_ahead();
        Poll::Ready(Ok(self.position))
    }
}

impl fmt::Debug for FileIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("FileIo");
        fields.field("file", &self.file).field("position", &self.position).finish_non_exhaustive()
    }
}
