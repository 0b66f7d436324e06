//! What is done with connections, on one core.

pub(crate) mod alive;
pub(crate) mod generation;
pub(crate) mod on_core;
pub(crate) mod on_cores;
mod overload;
pub(crate) mod reload;
pub(crate) mod times;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use annulus::net::{Connection, Family, UdpSocket};
use annulus::transfer::Road;
use annulus::waits::watched;
use pin_project_lite::pin_project;

use crate::config::{Listener, ServiceConfig};
use crate::exit::Failure;
use crate::limits::Place;
use crate::listen::client::Client;
use crate::listen::connection_count::ConnectionGuard;
use crate::listen::gate::Gate;
use crate::listen::socket_options::SocketOptions;
use crate::log::access::AccessLog;
use crate::metrics::{self, OpenConnection};
use crate::slow::{self, Unwatched, Watched};
use crate::{proxy, serve};

/// What is done with the connections of a listener, on the current core.
pub(crate) struct Service {
    gate: Rc<Gate>,
    work: Work,
}

/// What is done with those that come in.
enum Work {
    /// Files are served.
    Files(Rc<serve::Sites>),
    /// They are relayed.
    Relay(Rc<proxy::Relay>),
}

impl Service {
    /// Of `listener`, on the current core.
    ///
    /// # Errors
    /// What it needs and cannot have.
    pub(crate) async fn new(
        listener: &Listener,
        road: Road,
        access: &Rc<AccessLog>,
        roots: &serve::roots::Roots,
    ) -> Result<Self, Failure> {
        let access = Rc::clone(access);
        let work = match &listener.service {
            ServiceConfig::Files(sites) => {
                Work::Files(Rc::new(serve::Sites::open(sites, road, &access, roots).await?))
            }
            ServiceConfig::Relay(args) => Work::Relay(Rc::new(proxy::Relay::new(args, road, access))),
        };
        Ok(Service { gate: Rc::new(listener.args.gate()), work })
    }

    /// What the connections of a listening socket on `port` are to have.
    pub(crate) fn socket_options(&self, port: u16) -> SocketOptions {
        match &self.work {
            Work::Files(_) => SocketOptions::default(),
            Work::Relay(relay) => relay.socket_options(port),
        }
    }

    /// What relays the datagrams that come on `socket`, if it does.
    pub(crate) fn datagrams(&self, socket: UdpSocket) -> Option<Rc<proxy::Sessions>> {
        match &self.work {
            Work::Files(_) => None,
            Work::Relay(relay) => relay.datagrams(socket),
        }
    }

    /// Has `sessions`, which another one has made, go on as this one says.
    pub(crate) fn take_over(&self, sessions: &proxy::Sessions) {
        if let Work::Relay(relay) = &self.work {
            relay.take_over(sessions);
        }
    }

    /// Another service has replaced it for new connections. Those that it has are closed after the request
    /// that they are at.
    pub(crate) fn supersede(&self) {
        match &self.work {
            Work::Files(sites) => sites.supersede(),
            // Relayed connections go on.
            Work::Relay(_) => {}
        }
    }

    /// Refuses a connection: its client has as many as it may have.
    pub(crate) fn turn_away<F: Family>(&self, stream: Connection<F>) {
        match &self.work {
            Work::Files(_) => annulus::spawn(serve::connection::turn_away(stream)).detach(),
            Work::Relay(_) => stream.reset(),
        }
    }

    /// Serves a connection to its end, as a task of this core.
    pub(crate) fn serve<F: Family>(&self, stream: Connection<F>, guard: (ConnectionGuard, Place)) {
        let gate = Rc::clone(&self.gate);
        // A task for each kind, so that each connection has the memory of its own kind only.
        match &self.work {
            Work::Files(sites) => {
                let (sites, at) = (Rc::clone(sites), Rc::clone(&gate));
                let guard = (guard, metrics::connection(metrics::Kind::Files));
                if slow::is_on() {
                    let serve = |client| watched(serve::connection::run::<F, Watched>(client, sites, at));
                    return spawn(gate, stream, guard, serve);
                }
                let serve = |client| serve::connection::run::<F, Unwatched>(client, sites, at);
                spawn(gate, stream, guard, serve);
            }
            Work::Relay(relay) => {
                let relay = Rc::clone(relay);
                let guard = (guard, metrics::connection(metrics::Kind::Relay));
                if slow::is_on() {
                    let carry = |client| watched(proxy::carry::<F, Watched>(relay, client));
                    return spawn(gate, stream, guard, carry);
                }
                let carry = |client| proxy::carry::<F, Unwatched>(relay, client);
                spawn(gate, stream, guard, carry);
            }
        }
    }
}

pin_project! {
    /// A connection that is served, and what counts it until that is over. A type of its own, because an
    /// async block would hold what it is handed twice.
    struct Counted<S> {
        #[pin]
        serving: S,
        guard: Option<((ConnectionGuard, Place), OpenConnection)>,
    }
}

impl<S: Future<Output = ()>> Future for Counted<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        ready!(this.serving.poll(cx));
        drop(this.guard.take());
        Poll::Ready(())
    }
}

/// Serves a connection that the gate lets in, as a task of this core.
fn spawn<F: Family, S: Future<Output = ()> + 'static>(
    gate: Rc<Gate>,
    stream: Connection<F>,
    guard: ((ConnectionGuard, Place), OpenConnection),
    serve: impl FnOnce(Client<F>) -> S + 'static,
) {
    let guard = Some(guard);
    if gate.is_open() {
        annulus::spawn(Counted { serving: serve(Client::new(stream)), guard }).detach();
        return;
    }
    let serving = Box::pin(async move {
        if let Some(client) = gate.admit(stream).await {
            serve(client).await;
        }
    });
    annulus::spawn(Counted { serving, guard }).detach();
}
