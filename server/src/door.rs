//! The way in, the same for server and proxy: bind on every core, say so once, accept, end in order.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use annulus::net::{TcpListener, TcpStream};

use crate::exit::{Failure, Kind, say};
use crate::race::{First, race};

/// How long a core that ends waits for one more connection before it closes its listener: what the kernel has
/// already completed for us arrives at once, and closing the listener would reset it.
const DRAIN_PAUSE: Duration = Duration::from_millis(20);

/// The most connections that a core still takes while it ends, so that a steady stream of them cannot keep it open.
const DRAIN_LIMIT: usize = 4096;

/// Where to listen, and what to say when every core does. Shared by all cores.
#[derive(Debug)]
pub(crate) struct Door {
    /// The address as the user gave it; port 0 asks for a free one, the same for all cores.
    pub(crate) listen: SocketAddr,
    /// Goes before the address in the line on stderr, for example `http://`.
    pub(crate) before: &'static str,
    /// Goes after it.
    pub(crate) after: String,
    /// How many cores listen already.
    pub(crate) open: AtomicUsize,
}

impl Door {
    /// Opens this core's listener; the last core to do so announces the address on stderr.
    pub(crate) fn open(&self) -> Result<TcpListener, Failure> {
        let listener = TcpListener::bind(self.listen).map_err(|error| self.refused(&error))?;
        let address = listener.local_addr()?;
        if self.open.fetch_add(1, Ordering::AcqRel) + 1 == annulus::core::count() {
            say(&format!("listening on {}{address}{}", self.before, self.after));
        }
        Ok(listener)
    }

    /// Why it is not to be had, and what to do.
    fn refused(&self, error: &annulus::Error) -> Failure {
        let remedy = match error.io_error().map(io::Error::kind) {
            Some(io::ErrorKind::AddrInUse) => {
                "another program listens there; stop it, or choose another address with --listen (port 0 takes a free one)"
            }
            Some(io::ErrorKind::AddrNotAvailable) => {
                "this machine has no such address; choose one of its own with --listen, such as 127.0.0.1 or 0.0.0.0"
            }
            Some(io::ErrorKind::PermissionDenied) => {
                "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one with --listen"
            }
            _ => return Failure::new(Kind::of(error), format!("cannot listen on {}: {error}", self.listen)),
        };
        let cause = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
        Failure::new(Kind::Input, format!("cannot listen on {}: {cause}: {remedy}", self.listen))
    }
}

/// Accepts until the runtime is told to stop and runs `serve` for each connection as a task of this core; returns
/// when the last of them has ended.
///
/// # Errors
/// When accepting fails for good. Running out of file descriptors does not: the runtime waits and tries again.
pub(crate) async fn accept<F, Fut>(listener: TcpListener, serve: F) -> Result<(), Failure>
where
    F: Fn(TcpStream, SocketAddr) -> Fut,
    Fut: Future<Output = ()> + 'static,
{
    let guests = Rc::new(Guests::default());
    let welcome = |stream: TcpStream, peer: SocketAddr| {
        let presence = Guests::enter(&guests);
        let serving = serve(stream, peer);
        annulus::spawn(async move {
            serving.await;
            drop(presence);
        })
        .detach();
    };
    while let First::A(accepted) = race(listener.accept(), annulus::core::stopping()).await {
        match accepted {
            Ok((stream, peer)) => welcome(stream, peer),
            Err(error) if is_one_connections_trouble(&error) => {
                tracing::debug!(%error, "a client was gone before it was accepted");
            }
            Err(error) => return Err(Failure::failed("cannot accept connections", error)),
        }
    }
    for _ in 0..DRAIN_LIMIT {
        match annulus::time::timeout(DRAIN_PAUSE, listener.accept()).await {
            Ok(Ok((stream, peer))) => welcome(stream, peer),
            Ok(Err(error)) => {
                tracing::debug!(%error, "while taking in the last clients");
                break;
            }
            Err(_elapsed) => break,
        }
    }
    drop(listener);
    guests.gone().await;
    Ok(())
}

/// accept(2): errors of the new connection that are handed to accept; the listener itself is well.
fn is_one_connections_trouble(error: &annulus::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
        PermissionDenied,
    };
    error.io_error().is_some_and(|error| {
        matches!(
            error.kind(),
            ConnectionAborted
                | ConnectionReset
                | HostUnreachable
                | Interrupted
                | NetworkDown
                | NetworkUnreachable
                | PermissionDenied
        )
    })
}

/// Counts the connections of a core, and tells the one who waits when the last has gone.
#[derive(Debug, Default)]
struct Guests {
    present: Cell<usize>,
    waiting: RefCell<Option<Waker>>,
}

/// One connection's part in the count, taken back when dropped, also by a panic or an abort.
#[derive(Debug)]
struct Presence(Rc<Guests>);

impl Guests {
    fn enter(guests: &Rc<Self>) -> Presence {
        guests.present.set(guests.present.get() + 1);
        Presence(Rc::clone(guests))
    }

    async fn gone(&self) {
        std::future::poll_fn(|cx| {
            if self.present.get() == 0 {
                return Poll::Ready(());
            }
            *self.waiting.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let left = self.0.present.get() - 1;
        self.0.present.set(left);
        if left == 0
            && let Some(waker) = self.0.waiting.borrow_mut().take()
        {
            waker.wake();
        }
    }
}
