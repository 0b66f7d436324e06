//! What is done with connections, on one core.

pub(crate) mod generation;
pub(crate) mod on_core;
pub(crate) mod on_cores;
pub(crate) mod reload;
pub(crate) mod times;

use std::rc::Rc;

use annulus::net::{Connection, Family};
use annulus::transfer::Road;

use crate::config::{Listener, ServiceConfig};
use crate::exit::Failure;
use crate::limits::Place;
use crate::listen::client::Client;
use crate::listen::connection_count::ConnectionGuard;
use crate::listen::endpoint::AnyListener;
use crate::listen::gate::Gate;
use crate::log::access::AccessLog;
use crate::metrics::{self, OpenConnection};
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
    ) -> Result<Self, Failure> {
        let access = Rc::clone(access);
        let work = match &listener.service {
            ServiceConfig::Files(sites) => {
                Work::Files(Rc::new(serve::Sites::open(sites, road, &access).await?))
            }
            ServiceConfig::Relay(args) => Work::Relay(Rc::new(proxy::Relay::new(args, road, access))),
        };
        Ok(Service { gate: Rc::new(listener.args.gate()), work })
    }

    /// Gives the listening socket what its connections are to have too, and begins what goes on beside it
    /// until it is dropped.
    pub(crate) fn prepare(&self, listener: &AnyListener) -> Result<Option<annulus::JoinHandle<()>>, Failure> {
        match (&self.work, listener) {
            (Work::Relay(relay), AnyListener::Tcp(listener)) => {
                relay.prepare(listener)?;
                relay.relay_datagrams(listener)
            }
            _ => Ok(None),
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
                let serving = come_in(gate, stream, |client| serve::connection::run(client, sites, at));
                spawn(serving, (guard, metrics::connection(metrics::Kind::Files)));
            }
            Work::Relay(relay) => {
                let relay = Rc::clone(relay);
                let serving = come_in(gate, stream, |client| proxy::carry(relay, client));
                spawn(serving, (guard, metrics::connection(metrics::Kind::Relay)));
            }
        }
    }
}

/// Serves a connection that the gate lets in.
async fn come_in<F: Family, S: Future<Output = ()>>(
    gate: Rc<Gate>,
    stream: Connection<F>,
    serve: impl FnOnce(Client<F>) -> S,
) {
    let client = if gate.is_open() { Some(Client::new(stream)) } else { gate.admit(stream).await };
    if let Some(client) = client {
        serve(client).await;
    }
}

fn spawn(serving: impl Future<Output = ()> + 'static, guard: ((ConnectionGuard, Place), OpenConnection)) {
    annulus::spawn(async move {
        serving.await;
        drop(guard);
    })
    .detach();
}
