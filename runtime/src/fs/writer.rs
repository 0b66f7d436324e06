//! A file written in larger pieces than it is given.

use std::rc::Rc;

use super::{Cursor, File};
use crate::Result;

/// Bytes that are gathered before they are written.
const CAPACITY: usize = 64 << 10;

/// A file that is written through a buffer: what is given is copied, and written when 64 KiB have come
/// together, or on [`flush`](Self::flush). What was not flushed is lost when this is dropped.
///
/// ```
/// # annulus::Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?.run(|| async {
/// # let dir = annulus::fs::TempDir::new().await?;
/// # let path = dir.path().join("log");
/// use annulus::fs::{self, BufWriter, File};
///
/// let mut log = BufWriter::new(File::create(&path).await?);
/// for i in 0..1000 {
///     log.write_all(format!("line {i}\n").as_bytes()).await?;
/// }
/// log.flush().await?;
/// assert!(fs::read_to_string(&path).await?.ends_with("line 999\n"));
/// # annulus::Ok(())
/// # })?;
/// # annulus::Ok(())
/// ```
#[derive(Debug)]
pub struct BufWriter {
    file: File,
    /// Where in the file the first byte goes that is not written.
    position: u64,
    /// What is being written. Kept until it is: a write that was dropped is begun anew at the same place.
    out: Option<Rc<Vec<u8>>>,
    /// What comes behind it.
    buf: Vec<u8>,
    capacity: usize,
}

impl BufWriter {
    /// Writes `file` from its beginning on; one that was opened to append to, at its end.
    pub fn new(file: File) -> Self {
        Self::with_capacity(CAPACITY, Cursor::new(file))
    }

    /// Writes from where `cursor` stands, `capacity` bytes at a time.
    pub fn with_capacity(capacity: usize, cursor: Cursor) -> Self {
        let position = cursor.position();
        Self { file: cursor.into_inner(), position, out: None, buf: Vec::new(), capacity }
    }

    /// The file. It does not have yet what was not flushed.
    pub fn get_ref(&self) -> &File {
        &self.file
    }

    /// Takes all of `bytes`, after what it has was written if they do not fit behind it.
    ///
    /// # Errors
    /// As for [`File::write_all_at`], of bytes that were taken before: they are kept, and nothing of `bytes`
    /// was taken.
    ///
    /// # Cancellation
    /// Safe: nothing of `bytes` was taken.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        if !self.buf.is_empty() && self.buf.len() + bytes.len() > self.capacity {
            self.flush().await?;
        }
        self.buf.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes what was taken. It is with the kernel then; [`File::sync_data`] brings it to the disk.
    ///
    /// # Errors
    /// As for [`File::write_all_at`]. What was taken is kept, and the next flush begins anew at the same
    /// place.
    ///
    /// # Cancellation
    /// Safe, but in a file that was opened to append to: a part may stand there twice. Else the next flush
    /// writes the same bytes to the same place.
    pub async fn flush(&mut self) -> Result<()> {
        loop {
            if self.out.is_none() {
                if self.buf.is_empty() {
                    return Ok(());
                }
                self.out = Some(Rc::new(std::mem::take(&mut self.buf)));
            }
            let Some(out) = &self.out else { continue };
            let written = self.file.write_all_at(Rc::clone(out), self.position).await;
            let back = written.map_err(|e| e.error)?;
            self.position += back.len() as u64;
            self.out = None;
            // Its memory serves again, unless a write that was dropped still has it.
            if let Ok(mut memory) = Rc::try_unwrap(back)
                && self.buf.is_empty()
            {
                memory.clear();
                self.buf = memory;
            }
        }
    }

    /// Flushes, and gives the file.
    ///
    /// # Errors
    /// As for [`flush`](Self::flush). What was not written is lost.
    ///
    /// # Cancellation
    /// What was not written is lost.
    pub async fn into_inner(mut self) -> Result<File> {
        self.flush().await?;
        Ok(self.file)
    }
}
