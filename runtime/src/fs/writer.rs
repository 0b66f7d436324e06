//! A file that is written in larger pieces than it is given.

use std::rc::Rc;

use super::{Cursor, File};
use crate::Result;

/// How many bytes are gathered before they are written.
const CAPACITY: usize = 64 << 10;

/// A file that is written through a buffer. Bytes are copied, and written when there are 64 KiB of them, or
/// on [`flush`](Self::flush). Bytes that were not flushed are lost when this is dropped.
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
    /// The offset in the file of the first byte that is not written.
    position: u64,
    /// The bytes that are being written. They are kept until that is done: a write that was dropped is begun
    /// again at the same offset.
    out: Option<Rc<Vec<u8>>>,
    /// The bytes that come after them.
    buf: Vec<u8>,
    capacity: usize,
}

impl BufWriter {
    /// Writes `file` from its beginning on. A file that was opened for appending is written at its end.
    pub fn new(file: File) -> Self {
        Self::with_capacity(CAPACITY, Cursor::new(file))
    }

    /// Writes from the position of `cursor`, `capacity` bytes at a time.
    pub fn with_capacity(capacity: usize, cursor: Cursor) -> Self {
        let position = cursor.position();
        Self { file: cursor.into_inner(), position, out: None, buf: Vec::new(), capacity }
    }

    /// The file. It lacks the bytes that were not flushed.
    pub fn get_ref(&self) -> &File {
        &self.file
    }

    /// Takes all of `bytes`. If they do not fit into the buffer, the buffer is written first.
    ///
    /// # Errors
    /// As for [`File::write_all_at`], for bytes that were taken before. Those are kept, and nothing of
    /// `bytes` was taken.
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

    /// Writes the bytes that were taken. The kernel has them then; [`File::sync_data`] writes them to the
    /// disk.
    ///
    /// # Errors
    /// As for [`File::write_all_at`]. The bytes are kept, and the next flush begins again at the same offset.
    ///
    /// # Cancellation
    /// Safe, unless the file was opened for appending: a part may then be in it twice. In other files the
    /// next flush writes the same bytes to the same offset.
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
            // The memory is used again, unless a write that was dropped still has it.
            if let Ok(mut memory) = Rc::try_unwrap(back)
                && self.buf.is_empty()
            {
                memory.clear();
                self.buf = memory;
            }
        }
    }

    /// Flushes, and returns the file.
    ///
    /// # Errors
    /// As for [`flush`](Self::flush). Bytes that were not written are lost.
    ///
    /// # Cancellation
    /// What was not written is lost.
    pub async fn into_inner(mut self) -> Result<File> {
        self.flush().await?;
        Ok(self.file)
    }
}
