//! hyper's traits for streams that wrap ours: TLS, compression, a recorder.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};

/// A stream of tokio's traits (feature `tokio`) under hyper's: for example the stream that tokio-rustls makes
/// of an [`Io`](super::Io).
///
/// ```
/// # async fn serve(stream: annulus::net::TcpStream) -> Result<(), Box<dyn std::error::Error>> {
/// use annulus::compat::{HyperOverTokio, Io};
/// # use hyper::{body::Incoming, server::conn::http1, service::service_fn, Request, Response};
/// # fn tls<T>(stream: T) -> T { stream }
/// # let service = service_fn(|_: Request<Incoming>| async {
/// #     Ok::<_, std::convert::Infallible>(Response::new(http_body_util::Empty::<bytes::Bytes>::new()))
/// # });
///
/// let stream = HyperOverTokio(tls(Io::new(stream)));
/// http1::Builder::new().serve_connection(stream, service).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Cancellation
/// As that of the stream.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub struct HyperOverTokio<T>(pub T);

#[cfg(feature = "tokio")]
impl<T: tokio::io::AsyncRead + Unpin> Read for HyperOverTokio<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // SAFETY: the cursor's memory goes into a `ReadBuf`, which makes nothing of it uninitialised.
        let mut buf = tokio::io::ReadBuf::uninit(unsafe { cursor.as_mut() });
        let begin = buf.filled().as_ptr();
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buf))?;
        assert_eq!(
            begin,
            buf.filled().as_ptr(),
            "the stream has put another buffer in the place of the one it was given"
        );
        let n = buf.filled().len();
        // SAFETY: the bytes that a `ReadBuf` counts as filled are initialised, and lie in the cursor's
        // memory.
        unsafe { cursor.advance(n) };
        Poll::Ready(Ok(()))
    }
}

#[cfg(feature = "tokio")]
impl<T: tokio::io::AsyncWrite + Unpin> Write for HyperOverTokio<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}

/// How much is read at a time where hyper's memory, which may be uninitialised, cannot be lent.
#[cfg(feature = "futures-io")]
const CHUNK: usize = 8 << 10;

/// A stream of futures-io's traits (feature `futures-io`) under hyper's. Bytes that are read are copied once
/// more, 8 KiB at a time, because hyper's memory cannot be lent to those traits.
///
/// # Cancellation
/// As that of the stream.
#[cfg(feature = "futures-io")]
#[derive(Debug)]
pub struct HyperOverFutures<T>(pub T);

#[cfg(feature = "futures-io")]
impl<T: futures_io::AsyncRead + Unpin> Read for HyperOverFutures<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut chunk = [0; CHUNK];
        let most = cursor.remaining().min(CHUNK);
        let n = ready!(Pin::new(&mut self.0).poll_read(cx, &mut chunk[..most]))?;
        cursor.put_slice(&chunk[..n]);
        Poll::Ready(Ok(()))
    }
}

#[cfg(feature = "futures-io")]
impl<T: futures_io::AsyncWrite + Unpin> Write for HyperOverFutures<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}
