//! The futures of one send and one receive: dropped before and after they have asked, polled again when they
//! are done, and with a buffer that panics.

mod common;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use annulus::buf::IoBuf;
use annulus::{ErrorKind, cores, spawn, yield_now};
use common::on_one_core;
use common::wire::{connected, reader};

/// Polls it once, on behalf of this task.
async fn once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// Seen to fail: with the write side poisoned by a send whose turn has not come.
#[test]
fn a_send_that_was_not_polled_has_sent_nothing_and_takes_its_buffer_with_it() {
    on_one_core(|| async {
        let (stream, client) = connected().await?;
        let buf: Rc<[u8]> = Rc::from(*b"never");
        drop(stream.send_all(Rc::clone(&buf)));
        drop(stream.send_all_more(Rc::clone(&buf)));
        assert_eq!(Rc::strong_count(&buf), 1);
        stream.send_all("only this").await?;
        drop(stream);
        Ok(reader(client))
    })
    .join()
    .map(|got| assert_eq!(got, b"only this"))
    .unwrap();
}

/// Nobody has seen that it left whole. Seen to fail: with the write side left free (the second one is sent),
/// with nobody woken (it waits for ever), with what an operation leaves forgotten.
#[test]
fn a_send_that_is_dropped_after_all_has_left_poisons_and_tells_those_that_wait() {
    on_one_core(|| async {
        let (stream, client) = connected().await?;
        let stream = Rc::new(stream);
        let [first, second]: [Rc<[u8]>; 2] = [Rc::from(*b"first"), Rc::from(*b"other")];
        let mut sending = Box::pin(stream.send_all(Rc::clone(&first)));
        assert!(once(sending.as_mut()).await.is_pending());
        let (sender, lent) = (Rc::clone(&stream), Rc::clone(&second));
        let waits = spawn(async move { sender.send_all(lent).await });
        client.set_nonblocking(true).unwrap();
        while !matches!(client.peek(&mut [0; 8]), Ok(5)) {
            yield_now().await;
        }
        // Its answer is heard, and the other one waits.
        let tick = cores::tick();
        while cores::tick() < tick + 2 {
            yield_now().await;
        }
        drop(sending);
        assert_eq!(Rc::strong_count(&first), 1, "its buffer stays");
        let refused = waits.await.expect("no panic").expect_err("poisoned");
        assert_eq!(refused.error.kind(), ErrorKind::WritePoisoned);
        assert!(Rc::ptr_eq(&refused.buf, &second));
        let refused = stream.send_all("third").await.expect_err("poisoned");
        assert_eq!((refused.error.kind(), refused.buf), (ErrorKind::WritePoisoned, "third"));
        client.set_nonblocking(false).unwrap();
        drop(stream);
        Ok(reader(client))
    })
    .join()
    .map(|got| assert_eq!(got, b"first"))
    .unwrap();
}

/// What a future says that is polled once more than it may be.
async fn polled_again<F: Future>(future: F) -> String {
    let mut future = Box::pin(future);
    drop(future.as_mut().await);
    let cx = &mut Context::from_waker(Waker::noop());
    let again = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx).is_ready()));
    *again.expect_err("a panic").downcast().expect("formatted")
}

/// Seen to fail: with `recv` that begins anew, and with sends that wait.
#[test]
fn a_future_that_is_done_is_not_polled_again() {
    on_one_core(|| async {
        let (stream, mut client) = connected().await?;
        let (sent, received) = ("send polled after it was done", "recv polled after it was done");
        assert_eq!(polled_again(stream.send_all("something")).await, sent);
        assert_eq!(polled_again(stream.send_all("")).await, sent);
        client.read_exact(&mut [0; 9]).unwrap();
        let peer = annulus::net::TcpStream::from_std(client)?;
        peer.send_all("a").await?;
        assert_eq!(polled_again(stream.recv()).await, received);
        peer.send_all("b").await?;
        assert_eq!(&*stream.recv().await?.expect("bytes"), b"b");
        // Poisoned: dropped when it has been asked for.
        let mut dropped = Box::pin(stream.send_all("x"));
        assert!(once(dropped.as_mut()).await.is_pending());
        drop(dropped);
        assert_eq!(polled_again(stream.send_all("refused")).await, sent);
        // Its end, or an error.
        drop(peer);
        assert_eq!(polled_again(stream.recv()).await, received);
        Ok(())
    });
}

/// Gives its bytes so many times and then panics.
struct Panics {
    good: Cell<u32>,
    _seen: Rc<()>,
}

// SAFETY: the bytes are static, and the same each time.
unsafe impl IoBuf for Panics {
    fn bytes(&self) -> &[u8] {
        self.good.set(self.good.get().checked_sub(1).expect("good for another time"));
        b"unseen"
    }
}

/// Nothing has left. Seen to fail: with the stream poisoned by it, and with the buffer left in the
/// operation's cell.
#[test]
fn a_buffer_that_panics_costs_the_stream_nothing() {
    on_one_core(|| async {
        let (stream, client) = connected().await?;
        let (stream, seen) = (Rc::new(stream), Rc::new(()));
        // It is asked once to learn its length, and once for the kernel.
        for good in 0..2 {
            let (sender, buf) =
                (Rc::clone(&stream), Panics { good: Cell::new(good), _seen: Rc::clone(&seen) });
            let sending = spawn(async move { drop(sender.send_all(buf).await) });
            sending.await.expect_err("a panic");
            assert_eq!((Rc::strong_count(&seen), Rc::strong_count(&stream)), (1, 1));
            stream.send_all("sent").await?;
        }
        drop(stream);
        Ok(reader(client))
    })
    .join()
    .map(|got| assert_eq!(got, b"sentsent"))
    .unwrap();
}
