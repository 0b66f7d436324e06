//! Operations that a crate outside adds.

mod common;

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use annulus::operation::io_uring::{opcode, squeue, types};
use annulus::operation::{Operation, ask};
use annulus::time::timeout;
use common::on_one_core;

/// A read into a buffer that it owns, and who counts its end.
struct Read {
    fd: Rc<OwnedFd>,
    buf: Vec<u8>,
    ended: Rc<Cell<u32>>,
}

// SAFETY: the entry points to the vector's own allocation, which only it has, and names a descriptor that the
// `Rc` keeps open; it has one completion.
unsafe impl Operation for Read {
    const NAME: &'static str = "a read of one's own";
    type Output = io::Result<Vec<u8>>;

    fn entry(&mut self) -> squeue::Entry {
        let room = self.buf.spare_capacity_mut();
        let (at, len) = (room.as_mut_ptr().cast(), room.len() as u32);
        opcode::Read::new(types::Fd(self.fd.as_raw_fd()), at, len).offset(u64::MAX).build()
    }

    fn complete(mut self, result: io::Result<u32>) -> Self::Output {
        self.ended.set(self.ended.get() + 1);
        let n = result?;
        // SAFETY: the kernel has filled so many bytes of the room behind none.
        unsafe { self.buf.set_len(n as usize) };
        Ok(self.buf)
    }
}

/// Makes a descriptor, which must not leak when it comes late.
struct Accept(Rc<OwnedFd>);

// SAFETY: the entry names a descriptor that the `Rc` keeps open and points to nothing; it has one completion.
unsafe impl Operation for Accept {
    const NAME: &'static str = "an accept of one's own";
    type Output = io::Result<OwnedFd>;

    fn entry(&mut self) -> squeue::Entry {
        let fd = types::Fd(self.0.as_raw_fd());
        opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).flags(libc::SOCK_CLOEXEC).build()
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        // SAFETY: the kernel has just made it, and nobody else has it.
        result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }
}

/// Seen to fail: with an operation that is completed for those that wait only.
#[test]
fn an_operation_of_ones_own_is_answered_cancelled_and_completed_late() {
    on_one_core(|| async {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let (reader, ended) = (Rc::new(reader), Rc::new(Cell::new(0)));
        let read =
            || ask(Read { fd: Rc::clone(&reader), buf: Vec::with_capacity(64), ended: Rc::clone(&ended) });
        rustix::io::write(&writer, b"once").unwrap();
        assert_eq!(read().await.unwrap(), b"once");
        drop(read());
        assert!(timeout(Duration::from_millis(5), read()).await.is_err());
        while ended.get() < 2 {
            annulus::yield_now().await;
        }
        // The buffer of the one that was cancelled is nobody's any more.
        rustix::io::write(&writer, b"twice").unwrap();
        assert_eq!(read().await.unwrap(), b"twice");
        drop(writer);
        assert_eq!((read().await.unwrap().len(), ended.get()), (0, 4));
        Ok(())
    });
}

#[test]
fn a_descriptor_that_comes_late_is_closed() {
    on_one_core(|| async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Rc::new(OwnedFd::from(listener));
        let mut accept = Box::pin(ask(Accept(Rc::clone(&listener))));
        std::future::poll_fn(|cx| {
            assert!(accept.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        annulus::yield_now().await;
        let client = annulus::net::TcpStream::connect(address).await?;
        drop(accept);
        drop(listener);
        // Its end, or a reset: whether it was taken from the backlog before the cancel or not.
        let end = client.recv().await;
        assert!(end.is_err() || end.is_ok_and(|chunk| chunk.is_none()));
        Ok(())
    });
}

/// `FUTEX_WAIT` (Linux 6.7): a core waits for a word that a thread changes.
struct FutexWait(std::sync::Arc<AtomicU32>);

// SAFETY: the entry points to the word of an `Arc`, which `self` holds and nobody frees, and which is changed
// by atomic stores only; it has one completion.
unsafe impl Operation for FutexWait {
    const NAME: &'static str = "futex";
    type Output = io::Result<()>;

    fn entry(&mut self) -> squeue::Entry {
        // FUTEX2_SIZE_U32 | FUTEX2_PRIVATE (linux/futex.h).
        opcode::FutexWait::new(self.0.as_ptr().cast_const(), 0, u64::from(u32::MAX), 2 | 128).build()
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        match result {
            // The word had changed before.
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => Ok(()),
            other => other.map(drop),
        }
    }
}

#[test]
fn a_core_waits_for_a_word_that_a_thread_changes() {
    on_one_core(|| async {
        let word = std::sync::Arc::new(AtomicU32::new(0));
        let theirs = std::sync::Arc::clone(&word);
        let thread = std::thread::spawn(move || {
            theirs.store(1, Ordering::Release);
            // SAFETY: the word is there; FUTEX_WAKE | FUTEX_PRIVATE_FLAG reads nothing else (futex(2)).
            unsafe { libc::syscall(libc::SYS_futex, theirs.as_ptr(), 1 | 128, 1) };
        });
        match ask(FutexWait(std::sync::Arc::clone(&word))).await {
            Ok(()) => assert_eq!(word.load(Ordering::Acquire), 1),
            // Linux before 6.7 does not know the operation.
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::EINVAL)),
        }
        annulus::spawn_blocking(move || thread.join().unwrap()).await?;
        Ok(())
    });
}

#[test]
fn a_sealed_ring_refuses_it() {
    let runtime = annulus::Runtime::builder()
        .cores(common::one_cpu().parse().unwrap())
        .pool_bytes(1 << 20)
        .seal_rings(true);
    let running = runtime.build().unwrap().start(|| async {
        let refused = ask(FutexWait(Default::default())).await.unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
        annulus::Ok(())
    });
    let running = running.unwrap();
    let report = running.report();
    assert!(report.cores.iter().all(|core| core.ring.sealed), "{report}");
    running.wait().unwrap();
}

/// Uses its core in both its methods, and panics in the one that it is told to.
struct Meddles {
    fd: Rc<OwnedFd>,
    called: Rc<Cell<u32>>,
    panics_in: Option<u32>,
}

impl Meddles {
    fn act(&self, method: u32) {
        annulus::spawn(annulus::yield_now()).detach();
        let waits = Read { fd: Rc::clone(&self.fd), buf: Vec::with_capacity(1), ended: Rc::default() };
        let mut waits = std::pin::pin!(ask(waits));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        self.called.set(self.called.get() + 1);
        assert!(self.panics_in != Some(method), "on purpose");
    }
}

// SAFETY: the entry names a descriptor that the `Rc` keeps open and points to nothing; it has one completion.
unsafe impl Operation for Meddles {
    const NAME: &'static str = "one that meddles";
    type Output = ();

    fn entry(&mut self) -> squeue::Entry {
        self.act(0);
        opcode::PollAdd::new(types::Fd(self.fd.as_raw_fd()), libc::POLLIN as u32).build()
    }

    fn complete(self, _: io::Result<u32>) -> Self::Output {
        self.act(1);
    }
}

/// Seen to fail: with the panic of a method that is called late not contained, it ends the core.
#[test]
fn the_methods_of_an_operation_may_use_their_core_and_panic() {
    on_one_core(|| async {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let (fd, called) = (Rc::new(reader), Rc::new(Cell::new(0)));
        let meddles = |panics_in| ask(Meddles { fd: Rc::clone(&fd), called: Rc::clone(&called), panics_in });
        // Nobody waits for its answer any more.
        assert!(timeout(Duration::from_millis(5), meddles(Some(1))).await.is_err());
        while called.get() < 2 {
            annulus::yield_now().await;
        }
        rustix::io::write(&writer, &[7; 100]).unwrap();
        meddles(None).await;
        assert_eq!(called.get(), 4);
        for (method, more) in [(0, 1), (1, 2)] {
            let before = called.get();
            let panicked = annulus::spawn(meddles(Some(method))).await.unwrap_err();
            assert!(panicked.to_string().contains("on purpose"), "{panicked}");
            assert_eq!(called.get(), before + more);
        }
        while Rc::strong_count(&fd) > 1 {
            annulus::yield_now().await;
        }
        Ok(())
    });
}
