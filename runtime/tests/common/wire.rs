//! Connections and what goes over them, for the tests of sends.

use std::io::Read;
use std::net::{SocketAddr, TcpStream as Std};
use std::thread;

use annulus::Result;
use annulus::buf::Block;
use annulus::net::{TcpListener, TcpStream};
use rustix::net::sockopt;

/// A connection of this core, and its peer.
pub(crate) async fn connected() -> Result<(TcpStream, Std)> {
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let listener = TcpListener::bind(any)?;
    let client = Std::connect(listener.local_addr()).unwrap();
    Ok((listener.accept().await?, client))
}

/// Everything that a peer sends until its end, and a thread that fetches it.
pub(crate) fn reader(mut client: Std) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        got
    })
}

pub(crate) fn pattern(from: usize, len: usize) -> Vec<u8> {
    let cycle: Vec<u8> = (0..251).collect();
    cycle.repeat(len / 251 + 2)[from % 251..][..len].to_vec()
}

pub(crate) fn block(from: usize, len: usize) -> Block {
    let mut block = Block::take().expect("a block is free");
    assert_eq!(block.extend_from_slice(&pattern(from, len)), len);
    block
}

pub(crate) fn free_blocks() -> usize {
    let blocks: Vec<_> = std::iter::from_fn(Block::take).collect();
    blocks.len()
}

/// A connection whose peer has no room for another byte, while ours has room to take one: what is sent now
/// without a copy stays with the network until the peer reads. And how many bytes lie before it.
pub(crate) async fn jammed() -> Result<(TcpStream, Std, usize)> {
    let (stream, client) = connected().await?;
    sockopt::set_socket_send_buffer_size(&stream, 16 << 10).unwrap();
    let mut before = 0;
    while let Ok(n) = rustix::io::write(&stream, &[0; 1 << 14]) {
        before += n;
    }
    // What an unprivileged user may have is far more than a block.
    sockopt::set_socket_send_buffer_size(&stream, 200 << 10).unwrap();
    Ok((stream, client, before))
}
