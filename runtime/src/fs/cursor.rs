//! A file and a position in it.

use std::io::SeekFrom;

use super::File;
use crate::buf::{BufError, IoBuf, IoBufMut};
use crate::{Error, ErrorKind, Result};

/// A file that is read and written from where the last read or write ended. The position is the cursor's own,
/// and not the descriptor's: clones of the file and other cursors on it have theirs.
///
/// ```
/// # annulus::Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?.run(|| async {
/// use std::io::SeekFrom;
/// use annulus::fs::{Cursor, temp_file};
///
/// let mut file = Cursor::new(temp_file().await?);
/// file.write_all("one two three").await?;
/// file.seek(SeekFrom::Start(4)).await?;
/// let (n, word) = file.read(Vec::with_capacity(3)).await?;
/// assert_eq!((n, &word[..], file.position()), (3, &b"two"[..], 7));
/// let (n, rest) = file.read_to_end(Vec::new()).await?;
/// assert_eq!((n, &rest[..]), (6, &b" three"[..]));
/// # annulus::Ok(())
/// # })?;
/// # annulus::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct Cursor {
    file: File,
    position: u64,
}

impl Cursor {
    /// A cursor at the beginning of `file`.
    pub fn new(file: File) -> Self {
        Self::at(file, 0)
    }

    /// A cursor at `position` (bytes).
    pub fn at(file: File, position: u64) -> Self {
        Self { file, position }
    }

    /// Where the next read or write begins, in bytes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The file.
    pub fn get_ref(&self) -> &File {
        &self.file
    }

    /// The file.
    pub fn into_inner(self) -> File {
        self.file
    }

    /// Moves the cursor, and returns its new position in bytes. That may be beyond the file's end. Only
    /// [`SeekFrom::End`] asks the kernel ([`File::stat`]).
    ///
    /// # Errors
    /// [`ErrorKind::Input`] for a position before the beginning or beyond 2^63 - 1. The cursor stays then.
    ///
    /// # Cancellation
    /// Safe: the cursor stays.
    pub async fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let (base, by) = match to {
            SeekFrom::Start(position) => (position, 0),
            SeekFrom::Current(by) => (self.position, by),
            SeekFrom::End(by) => (self.file.stat().await?.size, by),
        };
        let position = base.checked_add_signed(by).filter(|position| i64::try_from(*position).is_ok());
        self.position = position.ok_or_else(|| {
            Error::new(ErrorKind::Input, format!("no file has a place {by} bytes from byte {base}"))
        })?;
        Ok(self.position)
    }

    /// Reads from the position into the free part of `buf`: [`File::read_at`].
    ///
    /// # Errors
    /// As there; the cursor stays.
    ///
    /// # Cancellation
    /// Safe: the cursor stays, and the buffer is lost.
    pub async fn read<B: IoBufMut>(&mut self, buf: B) -> Result<(usize, B), BufError<B>> {
        let (n, buf) = self.file.read_at(buf, self.position).await?;
        self.position += n as u64;
        Ok((n, buf))
    }

    /// Reads `len` bytes from the position into the free part of `buf`: [`File::read_exact_at`].
    ///
    /// # Errors
    /// As there; the cursor stays.
    ///
    /// # Cancellation
    /// As for [`read`](Self::read).
    pub async fn read_exact<B: IoBufMut>(&mut self, buf: B, len: usize) -> Result<B, BufError<B>> {
        let buf = self.file.read_exact_at(buf, len, self.position).await?;
        self.position += len as u64;
        Ok(buf)
    }

    /// Reads from the position to the end: [`File::read_to_end_at`].
    ///
    /// # Errors
    /// As there; the cursor stays.
    ///
    /// # Cancellation
    /// As for [`read`](Self::read).
    pub async fn read_to_end(&mut self, buf: Vec<u8>) -> Result<(usize, Vec<u8>), BufError<Vec<u8>>> {
        let (n, buf) = self.file.read_to_end_at(buf, self.position).await?;
        self.position += n as u64;
        Ok((n, buf))
    }

    /// Writes all of `buf` at the position: [`File::write_all_at`]. A file that was opened for appending gets
    /// it at its end, and the cursor moves by as many bytes as were written.
    ///
    /// # Errors
    /// As there; the cursor stays.
    ///
    /// # Cancellation
    /// The cursor stays, and an unknown prefix may have been written after it.
    pub async fn write_all<B: IoBuf>(&mut self, buf: B) -> Result<B, BufError<B>> {
        let buf = self.file.write_all_at(buf, self.position).await?;
        self.position += buf.bytes().len() as u64;
        Ok(buf)
    }
}
