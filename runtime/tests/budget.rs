//! A task whose operations are always ready shares its core: a timer beside it fires all the same.
//!
//! Seen to fail: with `Budget::poll` always ready the first test never ends, nor do those of sends. The
//! others end even so, because sockets here run dry now and then; they show that real bytes spend the budget
//! without losing any.

mod common;

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream as Std;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use annulus::net::{TcpListener, TcpStream};
use annulus::transfer::{Road, relay};
use annulus::{ErrorKind, Result, spawn};
use common::on_one_core;

/// Lets `busy` run beside a timer of a few milliseconds, then tells it to stop.
async fn beside_a_timer<F: Future<Output = Result<()>> + 'static>(busy: impl FnOnce(Rc<Cell<bool>>) -> F) {
    let stop = Rc::new(Cell::new(false));
    let task = spawn(busy(Rc::clone(&stop)));
    for _ in 0..5 {
        annulus::time::sleep(Duration::from_millis(1)).await;
    }
    stop.set(true);
    task.await.expect("no panic").expect("no error");
}

async fn connected() -> Result<(TcpStream, Std)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = Std::connect(listener.local_addr()).unwrap();
    Ok((listener.accept().await?, client))
}

#[test]
fn a_socket_that_has_ended_is_always_ready() {
    on_one_core(|| async {
        let (stream, client) = connected().await?;
        drop(client);
        beside_a_timer(|stop| async move {
            while !stop.get() {
                assert!(stream.recv().await?.is_none());
            }
            Ok(())
        })
        .await;
        Ok(())
    });
}

#[test]
fn a_socket_that_is_always_full() {
    on_one_core(|| async {
        let (stream, mut client) = connected().await?;
        let writer = thread::spawn(move || while client.write_all(&[0; 1 << 16]).is_ok() {});
        beside_a_timer(|stop| async move {
            while !stop.get() {
                stream.recv().await?.expect("bytes without end");
            }
            Ok(())
        })
        .await;
        // Its end comes with the stream's, which the core closes in a later tick.
        Ok(writer)
    })
    .join()
    .unwrap();
}

/// Seen to fail, by never ending: with each way not spending, and with the one that has spent all ready all
/// the same.
#[test]
fn sends_of_nothing_are_always_ready() {
    on_one_core(|| async {
        let (stream, _client) = connected().await?;
        let stream = Rc::new(stream);
        for way in 0..3 {
            let sender = Rc::clone(&stream);
            beside_a_timer(|stop| async move {
                while !stop.get() {
                    match way {
                        0 => drop(sender.send_all(Vec::new()).await?),
                        1 => drop(sender.send_all_vectored(Vec::<Vec<u8>>::new()).await?),
                        _ => sender.send_zc(annulus::buf::Block::take().expect("a block is free")).await?,
                    }
                }
                Ok(())
            })
            .await;
        }
        Ok(())
    });
}

/// Seen to fail, by never ending: as above.
#[test]
fn sends_that_are_refused_are_always_ready() {
    on_one_core(|| async {
        let (stream, _client) = connected().await?;
        let sent = annulus::time::timeout(Duration::from_millis(1), stream.send_all(vec![1; 64 << 20])).await;
        assert!(sent.is_err(), "64 MiB fitted into socket buffers");
        let stream = Rc::new(stream);
        for way in 0..2 {
            let sender = Rc::clone(&stream);
            beside_a_timer(|stop| async move {
                while !stop.get() {
                    let refused = match way {
                        0 => sender.send_all("x").await.expect_err("poisoned").error,
                        _ => sender.send_all_vectored(["x"]).await.expect_err("poisoned").error,
                    };
                    assert_eq!(refused.kind(), ErrorKind::WritePoisoned);
                }
                Ok(())
            })
            .await;
        }
        Ok(())
    });
}

#[test]
fn a_relay_that_never_has_to_wait() {
    let threads = on_one_core(|| async {
        let ((from, mut source), (into, mut sink)) = (connected().await?, connected().await?);
        let writer = thread::spawn(move || while source.write_all(&[0; 1 << 20]).is_ok() {});
        let reader = thread::spawn(move || {
            let mut room = vec![0; 1 << 20];
            while matches!(sink.read(&mut room), Ok(1..)) {}
        });
        let task = spawn(relay(from, into, Road::Inline));
        annulus::time::sleep(Duration::from_millis(20)).await;
        drop(task);
        Ok([writer, reader])
    });
    for thread in threads {
        thread.join().unwrap();
    }
}
