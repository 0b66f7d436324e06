//! The way in, the same for server and proxy: bind on every core, say so once, accept, end in order.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};

use annulus::net::{ListenOptions, TcpListener, TcpStream};

use crate::exit::{Failure, say};
use crate::first_of::{First, first_of};
use crate::processes::Address;
use crate::processes::member::Member;

/// Which core a connection comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Steer {
    /// Spread by a hash of the addresses.
    Hash,
    /// The core of the CPU that its packets arrive on.
    Cpu,
}

/// Where to listen, and what to say when every core does. Shared by all cores.
#[derive(Debug)]
pub(crate) struct AcceptLoop {
    address: Address,
    /// The process is one of several: it was given its sockets, and another says where they listen.
    member: Option<Arc<Member>>,
    /// How many cores listen already.
    open: AtomicUsize,
}

impl AcceptLoop {
    /// A listener that no core has opened yet.
    pub(crate) fn new(address: Address, member: Option<Arc<Member>>) -> Self {
        Self { address, member, open: AtomicUsize::new(0) }
    }

    /// Opens this core's listener; the last core to do so announces the address on stderr.
    pub(crate) fn open(&self) -> Result<TcpListener, Failure> {
        crate::log::on_core();
        let Address { listen, before, after, steer_by_cpu, .. } = &self.address;
        let listener = match &self.member {
            Some(member) => member.listener()?,
            None => TcpListener::bind_with(listen, &ListenOptions::new().steer_by_cpu(*steer_by_cpu))?,
        };
        if self.open.fetch_add(1, Ordering::AcqRel) + 1 == annulus::cores::count() {
            match &self.member {
                Some(member) => member.is_ready(),
                None => say(&format!("listening on {before}{}{after}", listener.local_addr())),
            }
        }
        Ok(listener)
    }
}

/// Accepts until the runtime is told to stop and runs `serve` for each connection as a task of this core; returns
/// when the last of them has ended.
///
/// # Errors
/// When accepting fails for good. Running out of file descriptors does not: the runtime rests and tries again.
pub(crate) async fn accept<F, Fut>(listener: TcpListener, serve: F) -> Result<(), Failure>
where
    F: Fn(TcpStream) -> Fut,
    Fut: Future<Output = ()> + 'static,
{
    let connections = Rc::new(ConnectionCount::default());
    let welcome = |stream: TcpStream| {
        let guard = ConnectionCount::enter(&connections);
        let serving = serve(stream);
        annulus::spawn(async move {
            serving.await;
            drop(guard);
        })
        .detach();
    };
    while let First::A(accepted) = first_of(listener.accept(), annulus::cores::stopping()).await {
        welcome(accepted?);
    }
    // What the kernel has already accepted for us would be reset with the listener.
    listener.drain().await.into_iter().for_each(welcome);
    connections.gone().await;
    Ok(())
}

/// Counts the connections of a core, and tells the one who waits when the last has gone.
#[derive(Debug, Default)]
struct ConnectionCount {
    present: Cell<usize>,
    waiting: RefCell<Option<Waker>>,
}

/// One connection's part in the count, taken back when dropped, also by a panic or an abort.
#[derive(Debug)]
struct ConnectionGuard(Rc<ConnectionCount>);

impl ConnectionCount {
    fn enter(connections: &Rc<Self>) -> ConnectionGuard {
        connections.present.set(connections.present.get() + 1);
        ConnectionGuard(Rc::clone(connections))
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

impl Drop for ConnectionGuard {
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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::AtomicBool;
    use std::task::{Context, Wake};

    use super::*;

    #[derive(Default)]
    struct Bell(AtomicBool);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_last_guest_to_leave_wakes_the_one_who_waits() {
        let connections = Rc::new(ConnectionCount::default());
        let (first, second) = (ConnectionCount::enter(&connections), ConnectionCount::enter(&connections));
        let bell = Arc::new(Bell::default());
        let waker = Arc::clone(&bell).into();
        let mut cx = Context::from_waker(&waker);
        let mut gone = pin!(connections.gone());
        assert!(gone.as_mut().poll(&mut cx).is_pending());
        drop(first);
        assert!(!bell.0.load(Ordering::Relaxed));
        drop(second);
        assert!(bell.0.load(Ordering::Relaxed));
        assert!(gone.as_mut().poll(&mut cx).is_ready());
    }
}
