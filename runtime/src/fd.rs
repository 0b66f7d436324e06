//! Waiting until any other descriptor is ready.
//!
//! It is for descriptors that `poll(2)` knows and that have no type here: inotify, eventfd, timerfd, pidfd, a
//! device, a socket of another kind, libraries that show their socket (libpq, librdkafka, libcurl).
//! [`compat::FdIo`](crate::compat::FdIo) makes a stream of a descriptor, for the traits of other crates.

use std::fmt;
use std::io;
use std::ops::BitOr;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use crate::core::ask::ask;
use crate::op::poll::PollEvents;
use crate::{Error, Result, task};

/// What to wait for. Errors and hang-ups are always included.
///
/// ```
/// use annulus::fd::Interest;
/// let both = Interest::READABLE | Interest::WRITABLE;
/// # assert_ne!(both, Interest::READABLE);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interest(u32);

impl Interest {
    /// Something can be read, or the end of it (`POLLIN`, `POLLRDHUP`).
    pub const READABLE: Self = Self(libc::POLLIN as u32 | libc::POLLRDHUP as u32);
    /// Something can be written (`POLLOUT`).
    pub const WRITABLE: Self = Self(libc::POLLOUT as u32);
    /// An exceptional condition (`POLLPRI`): urgent data of a socket, a change of a sysfs attribute, of
    /// `/proc/self/mounts`, of a group's `memory.pressure`.
    pub const PRIORITY: Self = Self(libc::POLLPRI as u32);
}

impl BitOr for Interest {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a descriptor is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Readiness(u32);

impl Readiness {
    fn has(self, events: libc::c_short) -> bool {
        self.0 & events as u32 != 0
    }

    /// Something can be read, or its end (`POLLIN`, `POLLRDHUP`, `POLLHUP`).
    pub fn is_readable(self) -> bool {
        self.has(libc::POLLIN | libc::POLLRDHUP | libc::POLLHUP)
    }

    /// Something can be written (`POLLOUT`).
    pub fn is_writable(self) -> bool {
        self.has(libc::POLLOUT)
    }

    /// An exceptional condition (`POLLPRI`).
    pub fn is_priority(self) -> bool {
        self.has(libc::POLLPRI)
    }

    /// An error (`POLLERR`): of a socket, or a pipe whose readers have gone.
    pub fn is_error(self) -> bool {
        self.has(libc::POLLERR)
    }

    /// The other side has closed (`POLLHUP`).
    pub fn is_hung_up(self) -> bool {
        self.has(libc::POLLHUP)
    }
}

/// A descriptor of any kind, and the waits for it. It is not `Send`. If `T` closes it, that happens with the
/// last clone and the last wait.
///
/// ```
/// # annulus::Runtime::builder().most_cores(1).pool_bytes(1 << 20).build()?.run(|| async {
/// use annulus::fd::{AsyncFd, Interest};
/// use rustix::event::{EventfdFlags, eventfd};
///
/// let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(std::io::Error::from)?;
/// let event = AsyncFd::new(event);
/// let signal = event.clone();
/// annulus::spawn(async move {
///     let count = 3_u64.to_ne_bytes();
///     signal.io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, &count)?)).await
/// })
/// .detach();
///
/// let mut count = [0; 8];
/// event.io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut count)?)).await?;
/// assert_eq!(u64::from_ne_bytes(count), 3);
/// # annulus::Ok(())
/// # })?;
/// # annulus::Ok(())
/// ```
pub struct AsyncFd<T: AsFd + 'static> {
    inner: Rc<T>,
}

impl<T: AsFd + 'static> AsyncFd<T> {
    /// Wraps `inner`, and changes nothing of it. Calls on it must not block once it is ready, so it should be
    /// non-blocking (`O_NONBLOCK`).
    pub fn new(inner: T) -> Self {
        Self { inner: Rc::new(inner) }
    }

    /// The wrapped descriptor.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// Waits until the descriptor is ready for something of `interest`, and returns for what. It asks the
    /// kernel each time (`poll(2)`; Linux 5.1), so there is no state to clear, and it returns at once if the
    /// descriptor is ready already.
    ///
    /// A regular file is always ready.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the system's reason. An error of the descriptor itself
    /// counts as readiness: the next call on the descriptor returns it.
    ///
    /// # Cancellation
    /// Safe: nothing is lost.
    pub async fn ready(&self, interest: Interest) -> Result<Readiness> {
        let polled = ask(PollEvents { fd: Shared(Rc::clone(&self.inner)), events: interest.0 }).await;
        polled.map(Readiness).map_err(|e| Error::io("cannot wait for a descriptor", e))
    }

    /// Waits until something can be read, or there is an end or an error: [`ready`](Self::ready).
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn readable(&self) -> Result<()> {
        self.ready(Interest::READABLE).await.map(drop)
    }

    /// Waits until something can be written, or there is an error: [`ready`](Self::ready).
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn writable(&self) -> Result<()> {
        self.ready(Interest::WRITABLE).await.map(drop)
    }

    /// Calls `attempt` until it does not return [`WouldBlock`](io::ErrorKind::WouldBlock), and waits for
    /// `interest` each time that it does. The first call comes before any wait. An interrupted attempt is
    /// repeated.
    ///
    /// # Errors
    /// The error of `attempt`, as [`ErrorKind::Io`](crate::ErrorKind::Io), and those of
    /// [`ready`](Self::ready).
    ///
    /// # Cancellation
    /// Safe: the result of a successful attempt is returned at once.
    pub async fn io<R>(&self, interest: Interest, mut attempt: impl FnMut(&T) -> io::Result<R>) -> Result<R> {
        // This comes before an attempt, because after a successful one there must be no await that could drop
        // its result.
        task::consume_budget().await;
        loop {
            match attempt(&self.inner) {
                Ok(done) => return Ok(done),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => drop(self.ready(interest).await?),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl<T: AsFd + 'static> Clone for AsyncFd<T> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<T: AsFd + 'static> AsFd for AsyncFd<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<T: AsFd + fmt::Debug + 'static> fmt::Debug for AsyncFd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncFd").field(&self.inner).finish()
    }
}

/// A descriptor that an operation keeps open.
pub(crate) struct Shared<T>(pub(crate) Rc<T>);

impl<T: AsFd> AsFd for Shared<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
