//! What is done with connections, on one core.

pub(crate) mod generation;
pub(crate) mod on_core;
pub(crate) mod on_cores;
pub(crate) mod reload;
pub(crate) mod times;

use std::rc::Rc;

use annulus::net::{Connection, Family};
use annulus::transfer::Road;

use crate::config::ServiceConfig;
use crate::exit::Failure;
use crate::limits::Place;
use crate::listen::client::Client;
use crate::listen::connection_count::ConnectionGuard;
use crate::listen::endpoint::AnyListener;
use crate::log::access::AccessLog;
use crate::metrics::{self, OpenConnection};
use crate::{proxy, serve};

/// What is done with the connections of a listener, on the current core.
pub(crate) enum Service {
    /// Files are served.
    Files(Rc<serve::Sites>),
    /// They are relayed.
    Relay(Rc<proxy::Relay>),
}

impl Service {
    /// As `config` has it, on the current core.
    ///
    /// # Errors
    /// What it needs and cannot have.
    pub(crate) async fn new(
        config: &ServiceConfig,
        road: Road,
        access: &Rc<AccessLog>,
    ) -> Result<Self, Failure> {
        let access = Rc::clone(access);
        Ok(match config {
            ServiceConfig::Files(sites) => {
                Service::Files(Rc::new(serve::Sites::open(sites, road, &access).await?))
            }
            ServiceConfig::Relay(args) => Service::Relay(Rc::new(proxy::Relay::new(args, road, access))),
        })
    }

    /// What the listening socket is to have, for its connections to have it too.
    pub(crate) fn prepare(&self, listener: &AnyListener) -> Result<(), Failure> {
        match (self, listener) {
            (Service::Relay(relay), AnyListener::Tcp(listener)) => relay.prepare(listener),
            _ => Ok(()),
        }
    }

    /// Another one has taken its place for new connections: those that it has shall not stay for ever.
    pub(crate) fn supersede(&self) {
        match self {
            Service::Files(sites) => sites.supersede(),
            // A relayed connection is its two ends' own.
            Service::Relay(_) => {}
        }
    }

    /// Serves a connection to its end, as a task of this core.
    pub(crate) fn serve<F: Family>(&self, stream: Connection<F>, guard: (ConnectionGuard, Place)) {
        let client = Client::new(stream);
        // A task for each kind, so that each connection has the memory of its own kind only.
        match self {
            Service::Files(sites) => {
                let serving = serve::connection::run(client, Rc::clone(sites));
                spawn(serving, (guard, metrics::connection(metrics::Kind::Files)));
            }
            Service::Relay(relay) => {
                let serving = proxy::carry(Rc::clone(relay), client);
                spawn(serving, (guard, metrics::connection(metrics::Kind::Relay)));
            }
        }
    }
}

fn spawn(serving: impl Future<Output = ()> + 'static, guard: ((ConnectionGuard, Place), OpenConnection)) {
    annulus::spawn(async move {
        serving.await;
        drop(guard);
    })
    .detach();
}
