//! A file that is read piece by piece.

use super::{Cursor, File};
use crate::{Error, Result};

/// How many bytes are read at a time.
const CAPACITY: usize = 64 << 10;

/// A file that is read through a buffer: by lines, up to a byte, piece by piece.
///
/// ```
/// # annulus::Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?.run(|| async {
/// # let dir = annulus::fs::TempDir::new().await?;
/// # let path = dir.path().join("names");
/// use annulus::fs::{self, BufReader, File, OpenOptions};
///
/// fs::write(&path, "one\ntwo\r\nthree").await?;
/// let mut names = BufReader::new(File::open(&path, OpenOptions::new()).await?);
/// let mut seen = Vec::new();
/// while let Some(name) = names.next_line().await? {
///     seen.push(name);
/// }
/// assert_eq!(seen, ["one", "two", "three"]);
/// # annulus::Ok(())
/// # })?;
/// # annulus::Ok(())
/// ```
#[derive(Debug)]
pub struct BufReader {
    cursor: Cursor,
    /// What was read, and how much of that was consumed.
    buf: Vec<u8>,
    consumed: usize,
    capacity: usize,
    /// The beginning of a line whose end has not been read.
    line: Vec<u8>,
}

impl BufReader {
    /// Reads `file` from its beginning, 64 KiB at a time.
    pub fn new(file: File) -> Self {
        Self::with_capacity(CAPACITY, Cursor::new(file))
    }

    /// Reads from the position of `cursor`, `capacity` bytes at a time, at least one.
    pub fn with_capacity(capacity: usize, cursor: Cursor) -> Self {
        Self { cursor, buf: Vec::new(), consumed: 0, capacity: capacity.max(1), line: Vec::new() }
    }

    /// The bytes that can be consumed. They are read from the file if there are none; at its end there are
    /// none.
    ///
    /// # Errors
    /// As for [`File::read_at`].
    ///
    /// # Cancellation
    /// Safe: no byte is lost.
    pub async fn fill_buf(&mut self) -> Result<&[u8]> {
        if self.consumed == self.buf.len() {
            let mut buf = std::mem::take(&mut self.buf);
            self.consumed = 0;
            buf.clear();
            buf.reserve(self.capacity);
            match self.cursor.read(buf).await {
                Ok((_, buf)) => self.buf = buf,
                Err(e) => return Err(e.error),
            }
        }
        Ok(&self.buf[self.consumed..])
    }

    /// Removes the first `n` bytes of what [`fill_buf`](Self::fill_buf) returned.
    ///
    /// # Panics
    /// When it returned fewer.
    pub fn consume(&mut self, n: usize) {
        assert!(n <= self.buf.len() - self.consumed, "more was consumed than had been read");
        self.consumed += n;
    }

    /// Appends the bytes up to and with the byte `end`, or to the file's end, to `into`. Returns how many
    /// bytes those are; 0 at the file's end.
    ///
    /// # Errors
    /// As for [`File::read_at`]; `into` has what came.
    ///
    /// # Cancellation
    /// Safe: `into` has what came, and the next call goes on after it.
    pub async fn read_until(&mut self, end: u8, into: &mut Vec<u8>) -> Result<usize> {
        let before = into.len();
        loop {
            let piece = self.fill_buf().await?;
            let at = piece.iter().position(|byte| *byte == end);
            let n = at.map_or(piece.len(), |at| at + 1);
            into.extend_from_slice(&piece[..n]);
            self.consume(n);
            if at.is_some() || n == 0 {
                return Ok(into.len() - before);
            }
        }
    }

    /// The next line, without its `\n` or `\r\n`; `None` at the file's end. A last line need not have an end.
    ///
    /// A line may be as long as the file, so a program that reads files of others should bound their length.
    ///
    /// # Errors
    /// As for [`File::read_at`]; `InvalidData` for a line that is not UTF-8; the next call goes on after it.
    ///
    /// # Cancellation
    /// Safe: what came of the line is kept.
    pub async fn next_line(&mut self) -> Result<Option<String>> {
        loop {
            let piece = self.fill_buf().await?;
            let at = piece.iter().position(|byte| *byte == b'\n');
            let n = at.map_or(piece.len(), |at| at + 1);
            let (from, to) = (self.consumed, self.consumed + n);
            self.line.extend_from_slice(&self.buf[from..to]);
            self.consume(n);
            if at.is_some() || n == 0 {
                break;
            }
        }
        let mut line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return Ok(None);
        }
        if line.pop_if(|last| *last == b'\n').is_some() {
            line.pop_if(|last| *last == b'\r');
        }
        let text = String::from_utf8(line).map_err(|e| {
            let e = std::io::Error::new(std::io::ErrorKind::InvalidData, e.utf8_error());
            Error::io("a line is no text", e)
        })?;
        Ok(Some(text))
    }
}
