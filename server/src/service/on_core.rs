//! The root task of a core: opens its listeners, accepts from all of them, ends in order.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use annulus::net::{Connection, Family, Listener, TcpListener};
use futures_util::future::select;

use super::Service;
use super::generation::Generation;
use super::overload::{self, UnderWay};
use crate::allocator;
use crate::descriptors;
use crate::exit::{Failure, Kind};
use crate::limits::{LimitArgs, Limits, Place};
use crate::listen::accept::{Closing, accept};
use crate::listen::client::peer_of;
use crate::listen::connection_count::ConnectionCount;
use crate::listen::endpoint::{AnyListener, Endpoint, EndpointId};
use crate::log::access::{AccessLog, Client};
use crate::proxy::Sessions;
use crate::{log, metrics};

/// What the cores of a process have in common when they start.
pub(crate) struct Start {
    generation: Arc<Generation>,
    /// How many cores listen already.
    listening: AtomicUsize,
    /// Called once every core accepts from every listener.
    when_all_listen: Box<dyn Fn() + Send + Sync>,
}

impl Start {
    /// With `generation`; `when_all_listen` is called on a core.
    pub(crate) fn new(
        generation: Arc<Generation>,
        when_all_listen: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Start { generation, listening: AtomicUsize::new(0), when_all_listen: Box::new(when_all_listen) }
    }
}

/// A listener's place on this core.
struct Entrance {
    id: EndpointId,
    /// What is done with the next connection.
    service: RefCell<Rc<Service>>,
    closing: Closing,
    limits: Rc<Limits>,
    /// What new connections inherit from, where they do, and its port. The task that accepts has it.
    socket: Option<(Weak<TcpListener>, u16)>,
    /// It accepts nothing more. It goes with the next reload.
    is_over: Cell<bool>,
    /// Those of the datagrams that come there.
    sessions: Option<Rc<Sessions>>,
}

/// At the end, how often it is checked whether a connection is still on its way from core to core.
const UNTIL_ARRIVED: Duration = Duration::from_millis(1);

/// What a core has open.
struct CoreState {
    access: Rc<AccessLog>,
    entrances: RefCell<Vec<Rc<Entrance>>>,
    connections: Rc<ConnectionCount>,
    accepting: Rc<Accepting>,
    /// A generation that is ready to be gone over to.
    prepared: RefCell<Option<Prepared>>,
}

/// A generation with its services, of which no connection has been served yet.
struct Prepared {
    generation: Arc<Generation>,
    services: Vec<Rc<Service>>,
}

thread_local! {
    /// What this thread's core has open. The root task keeps it.
    static CURRENT: RefCell<Weak<CoreState>> = const { RefCell::new(Weak::new()) };
}

/// The root task of one core.
///
/// # Errors
/// What a listener or a service needs and cannot have; accepting that fails for good.
pub(crate) async fn on_core(start: Arc<Start>) -> Result<(), Failure> {
    log::on_core();
    metrics::on_core();
    let state = Rc::new(CoreState {
        access: Rc::new(AccessLog::on_core()),
        entrances: RefCell::default(),
        connections: Rc::default(),
        accepting: Rc::default(),
        prepared: RefCell::default(),
    });
    CURRENT.with(|current| current.replace(Rc::downgrade(&state)));
    state.prepare(Arc::clone(&start.generation)).await?;
    state.commit()?;
    let _giving_back = annulus::spawn(give_back(Rc::clone(&state.connections)));
    if start.listening.fetch_add(1, Ordering::AcqRel) + 1 == annulus::cores::count() {
        descriptors::must_do_for_clients(annulus::cores::count())?;
        (start.when_all_listen)();
    }
    state.accepting.ended().await?;
    while overload::are_under_way() {
        annulus::time::sleep(UNTIL_ARRIVED).await;
    }
    state.connections.gone().await;
    Ok(())
}

/// Gives memory back to the system whenever most of many connections have gone, for ever.
async fn give_back(connections: Rc<ConnectionCount>) {
    loop {
        connections.most_gone().await;
        if let Err(error) = annulus::spawn_blocking(allocator::trim).await {
            tracing::debug!(%error, "memory is not given back");
        }
    }
}

impl Entrance {
    /// Has `service` serve new connections from now on.
    ///
    /// # Errors
    /// They cannot be given what they are to have.
    fn serve_by(&self, service: Rc<Service>) -> Result<(), Failure> {
        let socket = self.socket.as_ref().and_then(|(socket, port)| Some((socket.upgrade()?, *port)));
        let options = socket.map(|(socket, port)| service.socket_options(port).give_to(&*socket));
        if let Some(sessions) = &self.sessions {
            service.take_over(sessions);
        }
        let before = self.service.replace(service);
        before.supersede();
        options.unwrap_or(Ok(()))
    }
}

/// Makes ready to go over to `generation`, on the current core.
///
/// # Errors
/// What a service of it needs and cannot have: nothing has changed.
pub(crate) async fn prepare(generation: Arc<Generation>) -> Result<(), Failure> {
    current()?.prepare(generation).await
}

/// Goes over to what was prepared, on the current core.
///
/// # Errors
/// A new listener cannot be opened. All else is in force.
pub(crate) fn commit() -> Result<(), Failure> {
    current()?.commit()
}

/// Forgets what was prepared, on the current core.
pub(crate) fn abandon() {
    if let Ok(state) = current() {
        drop(state.prepared.take());
    }
}

fn current() -> Result<Rc<CoreState>, Failure> {
    let state = CURRENT.with(|current| current.borrow().upgrade());
    state.ok_or_else(|| Failure::new(Kind::Failed, "the core has come to its end"))
}

impl CoreState {
    /// Makes the services of a generation.
    async fn prepare(&self, generation: Arc<Generation>) -> Result<(), Failure> {
        let road = generation.config.program.ring.road;
        let mut services = Vec::new();
        for listener in &generation.config.listeners {
            services.push(Rc::new(Service::new(listener, road, &self.access, &generation.roots).await?));
        }
        drop(self.prepared.replace(Some(Prepared { generation, services })));
        Ok(())
    }

    /// Goes over to the generation that was prepared: new connections of listeners that stay are served by
    /// it, new listeners are opened, those that have gone are closed, and what the kernel had accepted for
    /// them is served as before.
    fn commit(self: &Rc<Self>) -> Result<(), Failure> {
        let Some(Prepared { generation, services }) = self.prepared.take() else { return Ok(()) };
        let over: Vec<Rc<Entrance>> =
            self.entrances.borrow_mut().extract_if(.., |it| it.is_over.get()).collect();
        drop(over);
        let mut result = Ok(());
        for ((service, ids), listener) in
            services.into_iter().zip(&generation.ids).zip(&generation.config.listeners)
        {
            // All endpoints of a listener count under one number: that of one that stays, where there is one.
            let known = ids.iter().find_map(|id| self.entrance(*id));
            let number = known.map_or(ids[0].0, |entrance| entrance.limits.listener());
            for id in ids {
                if let Some(entrance) = self.entrance(*id) {
                    entrance.limits.set(listener.args.limits, number);
                    result = result.and(entrance.serve_by(Rc::clone(&service)));
                } else if let Some(endpoint) = generation.new.get(id) {
                    let limits = (number, listener.args.limits);
                    result = result.and(self.open(*id, endpoint, &service, limits));
                }
            }
        }
        let gone = |entrance: &&Rc<Entrance>| !generation.ids.iter().flatten().any(|id| *id == entrance.id);
        let gone: Vec<Rc<Entrance>> = self.entrances.borrow().iter().filter(gone).cloned().collect();
        gone.iter().for_each(|entrance| entrance.closing.set());
        result
    }

    fn entrance(&self, id: EndpointId) -> Option<Rc<Entrance>> {
        self.entrances.borrow().iter().find(|entrance| entrance.id == id).cloned()
    }

    /// Accepts from an endpoint from now on.
    fn open(
        self: &Rc<Self>,
        id: EndpointId,
        endpoint: &Endpoint,
        service: &Rc<Service>,
        (number, limits): (u64, LimitArgs),
    ) -> Result<(), Failure> {
        let listener = endpoint.listener()?;
        let (mut tcp, mut unix, mut sessions) = (None, None, None);
        match listener {
            AnyListener::Tcp(listener) => {
                service.socket_options(listener.local_addr().port()).give_to(&listener)?;
                tcp = Some(Rc::new(listener));
            }
            AnyListener::Unix(listener) => unix = Some(Rc::new(listener)),
            AnyListener::Udp(socket) => sessions = service.datagrams(socket),
        }
        let socket = tcp.as_ref().map(|tcp| (Rc::downgrade(tcp), tcp.local_addr().port()));
        let entrance = Rc::new(Entrance {
            id,
            service: RefCell::new(Rc::clone(service)),
            closing: Closing::default(),
            limits: Limits::new(limits, number),
            socket,
            is_over: Cell::new(false),
            sessions,
        });
        self.entrances.borrow_mut().push(Rc::clone(&entrance));
        match (tcp, unix) {
            (Some(tcp), _) => self.spawn_accepting(tcp, entrance),
            (_, Some(unix)) => self.spawn_accepting(unix, entrance),
            (None, None) => self.spawn_relaying(entrance),
        }
        Ok(())
    }

    /// Relays datagrams until the runtime is told to stop or the entrance is closed.
    fn spawn_relaying(self: &Rc<Self>, entrance: Rc<Entrance>) {
        let state = Rc::clone(self);
        let guard = state.accepting.begin();
        annulus::spawn(async move {
            if let Some(sessions) = entrance.sessions.clone() {
                let (stopping, closed) = (pin!(annulus::cores::stopping()), pin!(entrance.closing.wait()));
                sessions.run_until(select(stopping, closed)).await;
            }
            state.entrances.borrow_mut().retain(|other| !Rc::ptr_eq(other, &entrance));
            guard.end(Ok(()));
        })
        .detach();
    }

    /// Serves a connection here, if its client may have one more.
    fn serve<F: Family>(&self, entrance: &Entrance, stream: Connection<F>, mut place: Place) {
        if entrance.limits.ask_for_client()
            && let Client::Tcp(peer) = peer_of(&stream)
            && !place.claim(peer.ip())
        {
            tracing::debug!(client = %peer, "refused: the client has as many connections as it may have");
            return entrance.service.borrow().turn_away(stream);
        }
        let service = Rc::clone(&entrance.service.borrow());
        service.serve(stream, (ConnectionCount::enter(&self.connections), place));
    }

    fn spawn_accepting<F: Family>(self: &Rc<Self>, listener: Rc<Listener<F>>, entrance: Rc<Entrance>) {
        let state = Rc::clone(self);
        let guard = state.accepting.begin();
        annulus::spawn(async move {
            let result = accept(listener, &entrance.closing, &entrance.limits, |stream, place| {
                match overload::whom_to_ask() {
                    Some(core) => {
                        // A place is the core's that serves.
                        drop(place);
                        annulus::spawn(hand_on(Rc::clone(&state), Rc::clone(&entrance), stream, core))
                            .detach();
                    }
                    None => state.serve(&entrance, stream, place),
                }
            })
            .await;
            // What is on its way here from another core is still served.
            entrance.is_over.set(true);
            guard.end(result.map_err(Failure::from));
        })
        .detach();
    }
}

/// Gives a connection to another core, and serves it here where that one cannot.
async fn hand_on<F: Family>(
    state: Rc<CoreState>,
    entrance: Rc<Entrance>,
    stream: Connection<F>,
    (core, under_way): (usize, UnderWay),
) {
    // This core does not end meanwhile either.
    let _present = ConnectionCount::enter(&state.connections);
    let id = entrance.id;
    let handed = stream.hand_over(core, async move |stream| {
        // No core ends while it is on its way, and each keeps the listeners that it had until the next
        // reload.
        let Some((state, entrance)) = current().ok().and_then(|it| Some((Rc::clone(&it), it.entrance(id)?)))
        else {
            return stream.reset();
        };
        let _present = ConnectionCount::enter(&state.connections);
        drop(under_way);
        let place = entrance.limits.place().await;
        state.serve(&entrance, stream, place);
    });
    if let Err(failed) = handed.await {
        tracing::debug!(error = %failed.error, core, "a connection stays");
        if let Some(stream) = failed.connection {
            let place = entrance.limits.place().await;
            state.serve(&entrance, stream, place);
        }
    }
}

/// How many listeners of the core accept, and the first that failed.
#[derive(Default)]
struct Accepting {
    open: Cell<usize>,
    failure: RefCell<Option<Failure>>,
    waiting: RefCell<Option<Waker>>,
}

/// One listener's part in it. Dropped before its end has been told, its task has panicked.
struct AcceptingGuard(Option<Rc<Accepting>>);

impl Accepting {
    fn begin(self: &Rc<Self>) -> AcceptingGuard {
        self.open.set(self.open.get() + 1);
        AcceptingGuard(Some(Rc::clone(self)))
    }

    fn end(&self, result: Result<(), Failure>) {
        self.open.set(self.open.get() - 1);
        if let Err(failure) = result {
            self.failure.borrow_mut().get_or_insert(failure);
        }
        let waiting = self.waiting.borrow_mut().take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    /// Waits until the runtime is told to stop and no listener accepts any more, or one has failed.
    async fn ended(&self) -> Result<(), Failure> {
        let mut stopping = annulus::cores::stopping();
        poll_fn(|cx| {
            let failure = self.failure.borrow_mut().take();
            if let Some(failure) = failure {
                return Poll::Ready(Err(failure));
            }
            // Set first, so that whoever ends meanwhile wakes this.
            drop(self.waiting.replace(Some(cx.waker().clone())));
            let is_stopping = Pin::new(&mut stopping).poll(cx).is_ready();
            if is_stopping && self.open.get() == 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }
}

impl AcceptingGuard {
    fn end(mut self, result: Result<(), Failure>) {
        if let Some(accepting) = self.0.take() {
            accepting.end(result);
        }
    }
}

impl Drop for AcceptingGuard {
    fn drop(&mut self) {
        if let Some(accepting) = self.0.take() {
            accepting.end(Err(Failure::new(Kind::Failed, "the task of a listener broke off; report this")));
        }
    }
}
