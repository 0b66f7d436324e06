use std::io::Write;
use std::net::TcpStream as Std;

use super::*;
use crate::net::{TcpListener, TcpStream};
use crate::{Result, Runtime};

async fn pair(listener: &TcpListener) -> Result<(TcpStream, Std)> {
    let mut client = Std::connect(listener.local_addr()).unwrap();
    client.write_all(b"x").unwrap();
    Ok((listener.accept().await?, client))
}

/// Seen to fail: with an entry for each time that it begins to wait, a stream that is quiesced again and again while there
/// is no buffer fills the queue.
#[test]
fn a_stream_stands_once_among_those_that_wait_for_a_buffer() {
    let first = crate::numa::thread::affinity_of_current().unwrap().first().unwrap();
    let builder = Runtime::builder().cores(first.to_string().parse().unwrap());
    let runtime = builder.pool_bytes(256 << 10).pool_limit(256 << 10).build().unwrap();
    let root = || async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut kept = Vec::new();
        let starves = loop {
            let (stream, client) = pair(&listener).await?;
            let starved = || Core::with(|core| core.shared.counters.recv_starved.get());
            let before = starved();
            let came = poll_fn(|cx| match Core::with(|core| stream.socket().poll_recv(core, cx)) {
                Poll::Pending if starved() > before => Poll::Ready(None),
                polled => polled.map(|came| Some(came.unwrap().expect("a byte"))),
            });
            match came.await {
                Some(lease) => kept.push((stream, client, lease)),
                None => break (stream, client),
            }
        };
        let socket = starves.0.socket();
        for _ in 0..100 {
            poll_fn(|cx| {
                Core::with(|core| {
                    assert!(socket.poll_recv(core, cx).is_pending());
                    socket.poll_quiet(core, cx)
                })
            })
            .await;
        }
        assert_eq!(Core::with(|core| core.bufs.queue_len()), 1);
        Ok(())
    };
    runtime.run(root).unwrap();
}
