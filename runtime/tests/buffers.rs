//! What may be lent to the kernel: the buffers of others and of one's own.

mod common;

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use annulus::Result;
use annulus::buf::{Filled, IoBuf, Owned};
use annulus::fs::{File, OpenOptions};
use annulus::net::{UdpSocket, UnixStream};
use annulus::pipe::pipe;
use bytes::{Bytes, BytesMut};
use common::wire::pattern;
use common::{Scratch, on_one_core};

async fn sent_and_received(a: &UnixStream, b: &UnixStream, buf: impl IoBuf) -> Result<()> {
    let expected = buf.bytes().to_vec();
    let back = a.send_all(buf).await?;
    assert_eq!(back.bytes(), expected, "the buffer comes back as it was");
    let mut came = Vec::new();
    while came.len() < expected.len() {
        came.extend_from_slice(&b.recv().await?.expect("more is sent"));
    }
    assert!(came == expected);
    Ok(())
}

/// A type of the application's.
struct Line(Rc<String>);

impl AsRef<[u8]> for Line {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[test]
fn every_kind_of_buffer_is_sent_and_comes_back() {
    on_one_core(|| async {
        let (a, b) = UnixStream::pair()?;
        let long = || pattern(3, 10_000);
        let text = || "a line of text".repeat(100);
        sent_and_received(&a, &b, long()).await?;
        sent_and_received(&a, &b, text()).await?;
        sent_and_received(&a, &b, b"static").await?;
        sent_and_received(&a, &b, "static").await?;
        sent_and_received(&a, &b, Box::new([7_u8; 300])).await?;
        sent_and_received(&a, &b, long().into_boxed_slice()).await?;
        sent_and_received(&a, &b, text().into_boxed_str()).await?;
        sent_and_received(&a, &b, Rc::<[u8]>::from(long())).await?;
        sent_and_received(&a, &b, Arc::<[u8]>::from(long())).await?;
        sent_and_received(&a, &b, Rc::<str>::from(text())).await?;
        sent_and_received(&a, &b, Arc::<str>::from(text())).await?;
        sent_and_received(&a, &b, Rc::new([1_u8; 20])).await?;
        sent_and_received(&a, &b, Arc::new([1_u8; 20])).await?;
        sent_and_received(&a, &b, Rc::new(long())).await?;
        sent_and_received(&a, &b, Arc::new(long())).await?;
        sent_and_received(&a, &b, Rc::new(text())).await?;
        sent_and_received(&a, &b, Arc::new(text())).await?;
        sent_and_received(&a, &b, Cow::Borrowed(&b"borrowed"[..])).await?;
        sent_and_received(&a, &b, Cow::<[u8]>::Owned(long())).await?;
        sent_and_received(&a, &b, Cow::Borrowed("borrowed")).await?;
        sent_and_received(&a, &b, Bytes::from(long())).await?;
        sent_and_received(&a, &b, Bytes::from_static(b"static").slice(1..4)).await?;
        // An owner whose bytes lie in itself.
        sent_and_received(&a, &b, Bytes::from_owner([9_u8; 40])).await?;
        sent_and_received(&a, &b, BytesMut::from(&long()[..])).await?;
        sent_and_received(&a, &b, Owned::new(Line(Rc::new(text())))).await?;
        // Bytes that lie in the value itself.
        sent_and_received(&a, &b, Owned::new([5_u8; 40])).await?;
        Ok(())
    });
}

#[test]
fn what_is_read_comes_behind_what_a_buffer_holds() {
    on_one_core(|| async {
        let scratch = Scratch::new("buffers");
        let path = scratch.0.join("file");
        std::fs::write(&path, pattern(0, 1000)).unwrap();
        let file = File::open(&path, OpenOptions::new()).await?;

        let mut buf = BytesMut::with_capacity(400);
        buf.extend_from_slice(b"head");
        let (n, buf) = file.read_at(buf, 0).await?;
        assert!(n >= 396 && buf.len() == 4 + n, "{n} bytes came, and there are {}", buf.len());
        assert!(&buf[..4] == b"head" && buf[4..] == pattern(0, n));

        let (n, buf) = file.read_at(Filled::new(vec![0; 600].into_boxed_slice()), 500).await?;
        assert!(n == 500 && *buf == pattern(500, 500));
        let (n, mut buf) = file.read_at(buf, 0).await?;
        assert!(n == 100 && buf[..500] == pattern(500, 500) && buf[500..] == pattern(0, 100));
        assert_eq!(file.read_at(buf, 0).await?.0, 0, "no room is left");
        buf = Filled::new(vec![1; 8].into_boxed_slice());
        buf.clear();
        let (n, buf) = file.read_at(buf, 996).await?;
        assert_eq!((n, &buf.into_inner()[4..]), (4, &[0; 4][..]), "what was not filled is zero");
        Ok(())
    });
}

#[test]
fn what_was_filled_is_sent_on() {
    on_one_core(|| async {
        let (reader, writer) = pipe()?;
        writer.write_all(Bytes::from_static(b"through a pipe")).await?;
        let (_, array) = reader.read(Filled::new([0; 64])).await?;
        let (a, b) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        a.send_to(array, b.local_addr()?).await?;
        assert_eq!(&*b.recv().await?, b"through a pipe");
        Ok(())
    });
}
