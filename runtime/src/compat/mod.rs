//! Other crates' traits for connections and descriptors. Each set of traits has a cargo feature of its name.
//!
//! | feature | gives |
//! |---|---|
//! | `tokio` | `AsyncRead`, `AsyncBufRead` and `AsyncWrite` of tokio, for [`Io`], [`FdIo`] and, with `AsyncSeek`, [`FileIo`]; nothing of its runtime is built |
//! | `futures-io` | the same of the crate futures-io |
//! | `hyper` | `hyper::rt::{Read, Write}` for [`Io`]; `HyperTimer` and `HyperExecutor` |
//! | `hyper` with `tokio` or `futures-io` | `HyperOverTokio` and `HyperOverFutures`: hyper over what was made of an `Io`, such as TLS |
//! | `bytes` | `bytes::Bytes` and `BytesMut` as [buffers](crate::buf) |
//!
//! With the traits of tokio come tokio-rustls, tokio-tungstenite, `Framed` of tokio-util, and whatever else
//! takes a stream and brings no reactor:
//!
//! ```
//! # annulus::Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?.run(|| async {
//! use annulus::{compat::Io, net::UnixStream};
//! use futures_util::{SinkExt, StreamExt};
//! use tokio_util::codec::{Framed, LinesCodec};
//!
//! let (a, b) = UnixStream::pair()?;
//! let mut a = Framed::new(Io::new(a), LinesCodec::new());
//! let mut b = Framed::new(Io::new(b), LinesCodec::new());
//! a.send("ping").await.map_err(annulus::Error::other)?;
//! let line = b.next().await.transpose().map_err(annulus::Error::other)?;
//! assert_eq!(line.as_deref(), Some("ping"));
//! # annulus::Ok(())
//! # })?;
//! # annulus::Ok(())
//! ```
//!
//! Traits that borrow a buffer for the length of a poll cannot lend it to the kernel, so they cost a copy in
//! each direction. Reading copies out of the leases that the core's receive fills anyway, or, through
//! `AsyncBufRead`, not at all.
//!
//! For interfaces that ask for `Send` there is [`OnCore`]. [A page of the guide](crate::guide::tls) has TLS,
//! HTTP/2, axum and WebSocket.

mod fd;
mod file;
#[cfg(feature = "futures-io")]
mod futures_io;
#[cfg(feature = "hyper")]
mod hyper;
#[cfg(all(feature = "hyper", any(feature = "futures-io", feature = "tokio")))]
mod hyper_over;
mod io;
mod on_core;
#[cfg(feature = "tokio")]
mod tokio;

pub use self::fd::FdIo;
pub use self::file::FileIo;
#[cfg(feature = "hyper")]
pub use self::hyper::{HyperExecutor, HyperTimer};
#[cfg(all(feature = "hyper", feature = "futures-io"))]
pub use self::hyper_over::HyperOverFutures;
#[cfg(all(feature = "hyper", feature = "tokio"))]
pub use self::hyper_over::HyperOverTokio;
pub use self::io::Io;
pub use self::on_core::OnCore;
