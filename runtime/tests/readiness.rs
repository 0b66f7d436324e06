//! Descriptors of any kind: waiting until they are ready.

mod common;

use std::cell::Cell;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnix;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use annulus::ErrorKind;
use annulus::fd::{AsyncFd, Interest};
use annulus::time::timeout;
use common::{on_one_core, once_without_budget};
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

#[test]
fn an_event_is_waited_for_each_time_anew() {
    on_one_core(|| async {
        let event = AsyncFd::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
        event.writable().await?;
        let add = |n: u64| rustix::io::write(event.get_ref(), &n.to_ne_bytes()).unwrap();
        let waits = annulus::spawn({
            let event = event.clone();
            async move { event.readable().await }
        });
        annulus::yield_now().await;
        assert!(!waits.is_finished());
        add(1);
        waits.await.unwrap()?;
        // It is readable still: nobody has read.
        event.readable().await?;
        let mut count = [0; 8];
        event.io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut count)?)).await?;
        assert!(timeout(Duration::from_millis(5), event.readable()).await.is_err());
        add(5);
        let readiness = event.ready(Interest::READABLE | Interest::WRITABLE).await?;
        assert!(readiness.is_readable() && readiness.is_writable());
        assert!(!readiness.is_priority() && !readiness.is_error() && !readiness.is_hung_up());
        Ok(())
    });
}

/// Many waits on one descriptor, some of which are dropped.
#[test]
fn many_wait_for_the_same_and_each_is_told() {
    on_one_core(|| async {
        let (ours, mut theirs) = StdUnix::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = AsyncFd::new(ours);
        let waits: Vec<_> = (0..100)
            .map(|_| {
                let ours = ours.clone();
                annulus::spawn(async move { ours.readable().await })
            })
            .collect();
        annulus::yield_now().await;
        let (dropped, kept): (Vec<_>, Vec<_>) = waits.into_iter().enumerate().partition(|(i, _)| i % 3 == 0);
        drop(dropped);
        theirs.write_all(b"x").unwrap();
        for (_, wait) in kept {
            wait.await.unwrap()?;
        }
        drop(theirs);
        let readiness = ours.ready(Interest::READABLE).await?;
        assert!(readiness.is_hung_up() && readiness.is_readable());
        Ok(())
    });
}

/// A library's way: a call that would wait, a wait, the call again. An interruption is no end, an error is.
///
/// Seen to fail: without the look at the budget.
#[test]
fn an_attempt_is_repeated_until_it_does_not_wait() {
    on_one_core(|| async {
        let event = AsyncFd::new(eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
        let mut attempts = 0;
        let came = event.io(Interest::READABLE, |_| {
            attempts += 1;
            match attempts {
                1 => Err(std::io::ErrorKind::WouldBlock.into()),
                2 => Err(std::io::ErrorKind::Interrupted.into()),
                n => Ok(n),
            }
        });
        assert_eq!(came.await?, 3);
        let failed = event.io(Interest::READABLE, |_| Err::<(), _>(std::io::ErrorKind::NotFound.into()));
        assert_eq!(failed.await.unwrap_err().kind(), ErrorKind::Io);
        let mut attempts = 0;
        once_without_budget(event.io(Interest::READABLE, |_| {
            attempts += 1;
            Ok(())
        }))
        .await;
        assert_eq!(attempts, 0, "what is dropped has done nothing");
        Ok(())
    });
}

#[test]
#[expect(clippy::zombie_processes, reason = "it is waited for by its pidfd")]
fn a_child_that_ends_makes_its_pidfd_readable() {
    on_one_core(|| async {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = AsyncFd::new(pidfd_open(pid, PidfdFlags::NONBLOCK).unwrap());
        let waits = annulus::spawn(async move {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            pidfd
                .io(Interest::READABLE, |fd| {
                    let status = waitid(WaitId::PidFd(fd.as_fd()), options)?;
                    status.ok_or_else(|| std::io::ErrorKind::WouldBlock.into())
                })
                .await
        });
        annulus::yield_now().await;
        assert!(!waits.is_finished());
        drop(child.stdin.take());
        assert_eq!(waits.await.unwrap()?.exit_status(), Some(0));
        Ok(())
    });
}

fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// The calls that an application makes on a descriptor are its own code.
#[test]
fn an_attempt_may_use_its_core_and_panic() {
    on_one_core(|| async {
        let event = AsyncFd::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
        let (other, mut attempts) = (event.clone(), 0);
        let came = event.io(Interest::READABLE, |fd| {
            annulus::spawn(annulus::yield_now()).detach();
            assert!(poll_once(&mut Box::pin(other.readable())) || attempts > 0);
            attempts += 1;
            if attempts == 1 {
                rustix::io::write(fd, &1_u64.to_ne_bytes())?;
                return Err(std::io::ErrorKind::WouldBlock.into());
            }
            Ok(rustix::io::read(fd, &mut [0; 8])?)
        });
        assert_eq!((came.await?, attempts), (8, 2));
        let panics = event.clone();
        let panics =
            async move { panics.io(Interest::READABLE, |_| -> std::io::Result<()> { panic!() }).await };
        assert!(annulus::spawn(panics).await.is_err());
        rustix::io::write(event.get_ref(), &1_u64.to_ne_bytes()).unwrap();
        event.readable().await?;
        Ok(())
    });
}

#[test]
fn a_descriptor_is_dropped_with_its_last_wait() {
    struct Counted(OwnedFd, Rc<Cell<u32>>);
    impl AsFd for Counted {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.set(self.1.get() + 1);
        }
    }
    on_one_core(|| async {
        let dropped = Rc::new(Cell::new(0));
        let (ours, _theirs) = StdUnix::pair().unwrap();
        let fd = AsyncFd::new(Counted(ours.into(), Rc::clone(&dropped)));
        let mut waits = Box::pin({
            let fd = fd.clone();
            async move { fd.readable().await }
        });
        assert!(poll_once(&mut waits));
        drop(fd);
        for _ in 0..10 {
            annulus::yield_now().await;
        }
        assert_eq!(dropped.get(), 0, "the kernel looks at it");
        drop(waits);
        while dropped.get() == 0 {
            annulus::yield_now().await;
        }
        Ok(())
    });
}
