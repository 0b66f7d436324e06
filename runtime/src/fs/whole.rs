//! Files that are read and written as a whole.

use std::path::Path;

use super::{File, OpenOptions};
use crate::buf::{BufError, IoBuf};
use crate::{Error, Result};

/// The least number of bytes by which a buffer grows where a file's size is not known (/proc, a file that
/// grows).
const STEP: usize = 32 << 10;

impl File {
    /// Appends the bytes from `offset` to the file's end to `buf`, and grows it as needed. Returns how many
    /// bytes came, and the buffer. Linux 5.6 (`pread(2)`).
    ///
    /// # Errors
    /// As for [`read_at`](Self::read_at); the buffer has what came.
    ///
    /// # Cancellation
    /// Safe: the buffer is dropped when the kernel no longer uses it.
    pub async fn read_to_end_at(
        &self,
        mut buf: Vec<u8>,
        offset: u64,
    ) -> Result<(usize, Vec<u8>), BufError<Vec<u8>>> {
        let before = buf.len();
        loop {
            if buf.spare_capacity_mut().is_empty() {
                buf.reserve(STEP.max(buf.len()));
            }
            let came = (buf.len() - before) as u64;
            let (n, back) = self.read_at(buf, offset.saturating_add(came)).await?;
            buf = back;
            if n == 0 {
                return Ok((buf.len() - before, buf));
            }
        }
    }
}

/// A file's content. Linux 5.6 (`pread(2)`).
///
/// ```
/// # annulus::Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?.run(|| async {
/// # let dir = annulus::fs::TempDir::new().await?;
/// # let path = dir.path().join("greeting");
/// use annulus::fs;
///
/// fs::write(&path, "hello").await?;
/// fs::append(&path, ", world").await?;
/// assert_eq!(fs::read(&path).await?, b"hello, world");
/// # annulus::Ok(())
/// # })?;
/// # annulus::Ok(())
/// ```
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason, naming the path.
///
/// # Cancellation
/// Safe.
pub async fn read(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let file = File::open(path, OpenOptions::new()).await?;
    let size = file.stat().await?.size;
    // One more byte, so that the end is seen without growing.
    let capacity = usize::try_from(size).unwrap_or(0).saturating_add(1);
    match file.read_to_end_at(Vec::with_capacity(capacity), 0).await {
        Ok((_, content)) => Ok(content),
        Err(e) => Err(of(path, "read", e.error)),
    }
}

/// A file's content as UTF-8.
///
/// # Errors
/// As for [`read`]; `InvalidData` when it is not UTF-8.
///
/// # Cancellation
/// Safe.
pub async fn read_to_string(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    String::from_utf8(read(path).await?).map_err(|e| {
        let e = std::io::Error::new(std::io::ErrorKind::InvalidData, e.utf8_error());
        Error::io(format!("cannot read {} as text", path.display()), e)
    })
}

/// Writes `buf` to a file, which is made, or emptied first, and gives the buffer back.
///
/// It is not atomic: a reader may see a part meanwhile. To replace a file atomically, write another one and
/// [`rename`](super::rename) it.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason, naming the path.
///
/// # Cancellation
/// The file may have been emptied, and a part written.
pub async fn write<B: IoBuf>(path: impl AsRef<Path>, buf: B) -> Result<B> {
    put(path.as_ref(), OpenOptions::new().read(false).write(true).create(true).truncate(true), buf).await
}

/// Adds `buf` at the end of a file, which is made if it is missing, and gives the buffer back (`O_APPEND`).
///
/// # Errors
/// As for [`write()`].
///
/// # Cancellation
/// A part may have been added.
pub async fn append<B: IoBuf>(path: impl AsRef<Path>, buf: B) -> Result<B> {
    put(path.as_ref(), OpenOptions::new().read(false).write(true).create(true).append(true), buf).await
}

async fn put<B: IoBuf>(path: &Path, options: OpenOptions, buf: B) -> Result<B> {
    let file = File::open(path, options).await?;
    file.write_all_at(buf, 0).await.map_err(|e| of(path, "write", e.error))
}

/// The error of a file, with its name.
fn of(path: &Path, what: &str, e: Error) -> Error {
    match e.io_error().and_then(std::io::Error::raw_os_error) {
        Some(errno) => {
            Error::io(format!("cannot {what} {}", path.display()), std::io::Error::from_raw_os_error(errno))
        }
        None => e,
    }
}
