//! Connecting by name, and Unix sockets whose messages keep their edges.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use annulus::ErrorKind;
use annulus::fs::TempDir;
use annulus::net::{TcpListener, TcpStream, UnixDatagram, UnixSeqpacket, UnixSeqpacketListener, lookup_host};
use annulus::time::timeout;
use common::on_one_core;
use common::wire::pattern;

/// `localhost` may have two addresses, of which one refuses.
#[test]
fn a_name_is_connected_to_at_the_address_that_answers() {
    on_one_core(|| async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr().port();
        for _ in 0..2 {
            let by_text = TcpStream::connect(format!("localhost:{port}")).await?;
            let by_parts = TcpStream::connect(("localhost", port)).await?;
            let by_address = TcpStream::connect(listener.local_addr()).await?;
            for stream in [by_text, by_parts, by_address] {
                listener.accept().await?.send_all("x").await?;
                assert_eq!(&*stream.recv().await?.unwrap(), b"x");
            }
        }
        drop(listener);
        let refused = TcpStream::connect(("localhost", port)).await.unwrap_err();
        assert_eq!(refused.io_error().and_then(std::io::Error::raw_os_error), Some(libc::ECONNREFUSED));
        assert!(refused.to_string().contains(&format!("localhost:{port}")), "{refused}");
        assert_eq!(TcpStream::connect("localhost").await.unwrap_err().kind(), ErrorKind::Input);
        let address: SocketAddr = "192.0.2.1:9".parse().unwrap();
        assert_eq!(lookup_host(address).await?, [address]);
        // RFC 6761: never a host. Where nobody answers, the deadline ends it.
        let nowhere = timeout(Duration::from_secs(2), lookup_host(("nowhere.invalid", 80))).await;
        if let Ok(found) = nowhere {
            assert!(found.unwrap_err().to_string().contains("nowhere.invalid"));
        }
        Ok(())
    });
}

/// Seen to fail: with an unconnected send that fails where a receiver is full.
#[test]
fn datagrams_keep_their_edges_and_a_full_receiver_is_waited_for() {
    on_one_core(|| async {
        let dir = TempDir::new().await?;
        let (at, from) = (dir.path().join("receiver"), dir.path().join("sender"));
        let receiver = UnixDatagram::bind(&at).await?;
        assert!(UnixDatagram::bind(&at).await.unwrap_err().to_string().contains("receiver"));
        let named = UnixDatagram::bind(&from).await?;
        let connected = UnixDatagram::connect(&at).await?;
        // More than a queue holds (`net.unix.max_dgram_qlen`).
        let sends = annulus::spawn({
            let at = at.clone();
            async move {
                for i in 0..300_u32 {
                    let message = i.to_le_bytes().repeat(1 + i as usize % 50);
                    if i % 2 == 0 {
                        named.send_to(message, &at).await?;
                    } else {
                        connected.send(message).await?;
                    }
                }
                annulus::Ok(())
            }
        });
        annulus::time::sleep(Duration::from_millis(1)).await;
        for i in 0..300_u32 {
            let packet = receiver.recv(Vec::with_capacity(4096)).await?;
            assert_eq!(packet.buf, i.to_le_bytes().repeat(1 + i as usize % 50));
            let source = packet.source.as_ref().and_then(|source| source.as_pathname());
            assert_eq!(source, (i % 2 == 0).then_some(from.as_path()));
        }
        sends.await.unwrap()?;
        let (a, b) = UnixDatagram::pair()?;
        a.send(pattern(0, 100)).await?;
        let cut = b.recv(Vec::with_capacity(10)).await?;
        assert!(cut.len == 10 && cut.full_len == 100 && cut.buf == pattern(0, 10));
        a.send("").await?;
        assert_eq!(b.recv(vec![b'h'; 1]).await?.full_len, 0);
        let gone = UnixDatagram::unbound()?.send_to("x", dir.path().join("nobody")).await.unwrap_err();
        assert_eq!(gone.error.io_error().and_then(std::io::Error::raw_os_error), Some(libc::ENOENT));
        Ok(())
    });
}

#[test]
fn packets_of_a_connection_keep_their_edges_their_order_and_their_end() {
    on_one_core(|| async {
        let dir = TempDir::new().await?;
        let path = dir.path().join("listener");
        let listener = UnixSeqpacketListener::bind(&path).await?;
        let client = annulus::spawn(async move {
            let client = UnixSeqpacket::connect(&path).await?;
            for i in 0..1000 {
                client.send(pattern(i, 1 + i)).await?;
            }
            annulus::Ok(())
        });
        let server = listener.accept().await?;
        assert_eq!(server.peer_cred()?.pid, std::process::id() as i32);
        for i in 0..1000 {
            let packet = server.recv(Vec::with_capacity(2000)).await?;
            assert!(packet.buf == pattern(i, 1 + i) && packet.source.is_none());
        }
        client.await.unwrap()?;
        assert_eq!(server.recv(Vec::with_capacity(10)).await?.len, 0);
        let gone = server.send("x").await.unwrap_err();
        assert_eq!(gone.error.io_error().and_then(std::io::Error::raw_os_error), Some(libc::EPIPE));
        // A deadline around a receive loses nothing.
        let (a, b) = UnixSeqpacket::pair()?;
        assert!(timeout(Duration::from_millis(2), b.recv(Vec::with_capacity(10))).await.is_err());
        a.send("late").await?;
        assert_eq!(b.recv(Vec::with_capacity(10)).await?.buf, b"late");
        Ok(())
    });
}
