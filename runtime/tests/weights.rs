//! What futures and handles weigh, in bytes: a server has one of some of them for each client.

mod common;

use std::mem::size_of_val;
use std::net::SocketAddr;
use std::time::Duration;

use annulus::buf::{Block, Lease};
use annulus::net::{TcpListener, TcpStream, UdpSocket, UnixStream};
use annulus::operation::{self, io_uring};
use annulus::{JoinHandle, Result, TaskTracker};
use common::on_one_core;

struct Nop;

// SAFETY: a nop points to nothing, and has one completion.
unsafe impl operation::Multishot for Nop {
    const NAME: &'static str = "nop";
    type Item = ();

    fn entry(&mut self) -> io_uring::squeue::Entry {
        io_uring::opcode::Nop::new().build()
    }

    fn item(&self, _: std::io::Result<u32>, _: u32) {}
}

/// They may become lighter: then the page `guide::weights` is to be changed with this. Seen to fail: with
/// bounds of 0.
#[test]
fn public_futures_weigh_no_more_than_the_page_says() {
    on_one_core(|| async {
        let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let listener = TcpListener::bind(address)?;
        let (a, b) = UnixStream::pair()?;
        let udp = UdpSocket::bind(address)?;
        let file = annulus::fs::temp_file().await?;
        let task: JoinHandle<()> = annulus::spawn(async {});
        let mut events = operation::stream(Nop);
        let weights = [
            ("recv", size_of_val(&a.recv()), 24),
            ("send_all of a Vec", size_of_val(&a.send_all(Vec::new())), 72),
            ("accept", size_of_val(&listener.accept()), 104),
            ("connect", size_of_val(&TcpStream::connect(address)), 728),
            ("datagram recv", size_of_val(&udp.recv()), 48),
            ("read_at into a Vec", size_of_val(&file.read_at(Vec::new(), 0)), 176),
            ("write_all_at of a Vec", size_of_val(&file.write_all_at(Vec::new(), 0)), 304),
            ("sleep", size_of_val(&annulus::time::sleep(Duration::ZERO)), 32),
            ("timeout of recv", size_of_val(&annulus::time::timeout(Duration::ZERO, b.recv())), 192),
            ("operation::Stream::next", size_of_val(&events.next()), 24),
            ("yield_now", size_of_val(&annulus::yield_now()), 16),
            ("stopping", size_of_val(&annulus::cores::stopping()), 16),
            ("JoinHandle", size_of_val(&task), 32),
            ("TaskTracker::all_ended", size_of_val(&TaskTracker::new().all_ended()), 24),
            ("a stream", size_of::<TcpStream>(), 8),
            ("a lease", size_of::<Lease>(), 24),
            ("a block", size_of::<Block>(), 24),
            ("a result of recv", size_of::<Result<Option<Lease>>>(), 56),
            ("an error", size_of::<annulus::Error>(), 56),
        ];
        let heavier: Vec<_> = weights.iter().filter(|(_, is, most)| is > most).collect();
        assert!(heavier.is_empty(), "{heavier:?}");
        task.await.unwrap();
        Ok(())
    });
}
