//! One connection: its requests and their answers, until either side closes.

use std::cell::Cell;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use annulus::net::{Connection, Family};
use tracing::{Instrument, Span};

use super::client::{Client, Sent};
use super::deadline_timer::{DeadlineTimer, OnStop};
use super::deadlines::DeadlineArgs;
use super::send::send;
use super::{LAST_REQUEST_TIMEOUT, Site, Sites, clock, respond};
use crate::http::inbox::{Awaited, Inbox, Next};
use crate::http::method::Method;
use crate::http::request::{After, Request};
use crate::http::{Refusal, Status};
use crate::lifecycle::{self, Stage};
use crate::lingering_close::lingering_close;
use crate::listen::client::Client as Accepted;
use crate::listen::forwarded::Field;
use crate::listen::gate::Gate;
use crate::log::access;
use crate::metrics;
use crate::slow::{Answered, Watch};

/// How much of a request's name is told, in bytes.
const LONGEST_ID: usize = 128;

/// How much of a slow request's target is told, in bytes.
const LONGEST_TARGET: usize = 1024;

/// Serves one connection to its end.
///
/// The future holds what a connection needs while it waits, once: what an async function is handed stays
/// where it came in, so all is made before.
pub(crate) fn run<F: Family, W: Watch>(
    accepted: Accepted<F>,
    sites: Rc<Sites>,
    gate: Rc<Gate>,
) -> impl Future<Output = ()> {
    // A line about a client that has gone cannot ask for its address, nor can the access log.
    let asks = sites.last().access.is_on()
        || gate.reads_requests()
        || W::IS_ON
        || tracing::enabled!(tracing::Level::INFO);
    let known = (asks || accepted.declared.is_some()).then(|| accepted.address());
    // Where all requests have one answer, nothing of a head is kept but for the logs.
    let keeps = sites.last().access.is_on() || sites.differ() || gate.reads_requests() || W::IS_ON;
    let mut inbox = Inbox::new(keeps);
    if let Some(chunk) = &accepted.first {
        inbox.hold(chunk);
    }
    let deadlines = Rc::clone(&sites.last().deadlines);
    let timer = DeadlineTimer::new(Duration::from_secs(deadlines.lifetime));
    let peer = known.filter(|_| gate.reads_requests()).map(Box::new);
    let watch = W::new(&accepted.stream);
    let (stream, sent) = (accepted.stream, Sent::default());
    let mut client = Client { stream, timer, deadlines, known: Cell::new(known), peer, sent };
    async move {
        let gently = match serve_requests(&mut client, &mut inbox, &sites, &gate, watch).await {
            Ok(mode) => matches!(mode, CloseMode::Gently),
            Err(error) => {
                tracing::debug!(client = %client.address(), %error, "the connection broke off");
                false
            }
        };
        if gently {
            Box::pin(lingering_close(client.stream)).await;
        }
    }
}

/// Tells a client that has too many connections to come back, and closes.
pub(crate) async fn turn_away<F: Family>(stream: Connection<F>) {
    const ANSWER: &str = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n\
        Content-Type: text/plain; charset=utf-8\r\nContent-Length: 48\r\n\r\n503 Service Unavailable: too many connections.\r\n";
    let sending = annulus::time::timeout(Duration::from_secs(1), stream.send_all(ANSWER));
    if matches!(sending.await, Ok(Ok(_))) {
        lingering_close(stream).await;
    }
}

/// Counts the last request and what it was answered, and logs it if there is an access log.
fn note<F: Family>(
    client: &Client<F>,
    site: &Site,
    inbox: &Inbox,
    method: Option<Method>,
    began: Option<Instant>,
) {
    let elapsed = began.map(|began| began.elapsed());
    metrics::request(method, client.sent.status, client.sent.bytes, elapsed);
    let Some(record) = inbox.record() else { return };
    site.access.request(&access::Request {
        client: client.address(),
        method: record.method(),
        target: record.target(),
        version: record.version(),
        host: record.host(),
        status: client.sent.status,
        bytes: client.sent.bytes,
        referer: record.referer(),
        user_agent: record.user_agent(),
        elapsed: elapsed.unwrap_or_default(),
        request_id: record.request_id(),
    });
}

/// Tells where the time of the last request went, if it is watched and was slow.
fn tell<F: Family, W: Watch>(client: &Client<F>, inbox: &Inbox, watch: &mut W) {
    if !W::IS_ON {
        return;
    }
    watch.answered(client.address(), || {
        let text =
            |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST_TARGET)]).into_owned();
        let (method, target) =
            inbox.record().map(|record| (record.method(), record.target())).unwrap_or_default();
        Answered {
            method: text(method),
            target: text(target),
            status: client.sent.status,
            bytes: client.sent.bytes,
        }
    });
}

/// Lines about the last request carry the name that it came with, so that they are found beside other
/// programs' lines.
fn span_of(inbox: &Inbox) -> Span {
    let id = inbox.record().map(|record| record.request_id()).unwrap_or_default();
    let id = String::from_utf8_lossy(&id[..id.len().min(LONGEST_ID)]);
    // The span has the highest level: then it stands with every line that is logged.
    tracing::error_span!("request", ?id)
}

/// How to close.
enum CloseMode {
    /// The peer has gone, or has said that this was its last request.
    AtOnce,
    /// The peer may still be sending: see [`lingering_close`].
    Gently,
}

/// What the peer did.
enum Arrival {
    Request(Request),
    Refused(Refusal),
    /// It closed, or said nothing for too long.
    Gone,
}

async fn serve_requests<F: Family, W: Watch>(
    client: &mut Client<F>,
    inbox: &mut Inbox,
    sites: &Sites,
    gate: &Gate,
    mut watch: W,
) -> annulus::Result<CloseMode> {
    watch.begins();
    let mut first = true;
    loop {
        // In a block, so that what arrived is not held beside the request that it becomes.
        let (site, request, began) = {
            let behind = W::IS_ON && !first && !inbox.is_empty();
            let arrived = arrival(client, inbox, first).await?;
            watch.arrived(&client.stream, behind);
            let (site, arrived) = asked(client, gate, sites, inbox, arrived);
            let began = if site.access.is_timed() { Some(Instant::now()) } else { metrics::clock() };
            client.sent = Sent::default();
            match arrived {
                Arrival::Request(request) => (site, request, began),
                Arrival::Gone => return Ok(CloseMode::AtOnce),
                Arrival::Refused(refusal) => {
                    let refused = Box::pin(refuse(client, site, inbox, refusal, began)).await;
                    tell(client, inbox, &mut watch);
                    return refused;
                }
            }
        };
        let is_last = annulus::cores::is_stopping()
            || client.timer.is_over()
            || sites.is_superseded()
            || lifecycle::stage() > Stage::Ready;
        let after = if is_last { After::Close } else { request.after };
        let answered = if request.has_id {
            let span = span_of(inbox);
            Box::pin(respond::answer(client, site, &request, after).instrument(span)).await
        } else {
            respond::answer(client, site, &request, after).await
        };
        if let Ok(Some(bytes)) = answered {
            client.sent.bytes = bytes;
        }
        note(client, site, inbox, Some(request.method), began);
        tell(client, inbox, &mut watch);
        answered?;
        if after == After::Close {
            let silent = request.after == After::Close && !request.unread && inbox.is_empty();
            return Ok(if silent { CloseMode::AtOnce } else { CloseMode::Gently });
        }
        Inbox::reuse(request);
        first = false;
    }
}

/// Answers what is not a request.
async fn refuse<F: Family>(
    client: &mut Client<F>,
    site: &Site,
    inbox: &Inbox,
    refusal: Refusal,
    began: Option<Instant>,
) -> annulus::Result<CloseMode> {
    tracing::debug!(client = %client.address(), status = refusal.status.line(), why = refusal.why, "refused");
    let refused = respond::refuse(client, site, refusal).await;
    note(client, site, inbox, None, began);
    refused.map(|()| CloseMode::Gently)
}

/// Learns which client a request is for, and refuses it where that client is not allowed.
fn named<F: Family>(client: &mut Client<F>, gate: &Gate, inbox: &Inbox, arrival: Arrival) -> Arrival {
    let (Arrival::Request(_), Some(record)) = (&arrival, inbox.record()) else { return arrival };
    let lines = match gate.field() {
        Field::XForwardedFor => record.x_forwarded_for(),
        Field::Forwarded => record.forwarded(),
    };
    let peer = client.peer.as_deref().copied().unwrap_or_else(|| client.address());
    match gate.forwarded(peer, lines) {
        Some(from) => {
            client.known.set(Some(from));
            arrival
        }
        None => Arrival::Refused(Refusal::new(Status::Forbidden, "the lists do not allow this client")),
    }
}

/// The site that answers, and to what. `arrival` goes through here, so that the caller holds it once only.
fn asked<'s, F: Family>(
    client: &mut Client<F>,
    gate: &Gate,
    sites: &'s Sites,
    inbox: &Inbox,
    arrival: Arrival,
) -> (&'s Site, Arrival) {
    let arrival = if gate.reads_requests() { named(client, gate, inbox, arrival) } else { arrival };
    let site = match (&arrival, inbox.record()) {
        (Arrival::Request(request), Some(record)) if sites.differ() => {
            sites.of(record.authority(), request.target.path().as_os_str().as_bytes())
        }
        _ => sites.last(),
    };
    (site, arrival)
}

/// Waits for the next request; `first` if none has come on this connection yet.
async fn arrival<F: Family>(
    client: &mut Client<F>,
    inbox: &mut Inbox,
    first: bool,
) -> annulus::Result<Arrival> {
    let mut next = inbox.next();
    let mut deadline = Deadline::default();
    loop {
        match next {
            Next::Request(request) => return Ok(Arrival::Request(request)),
            Next::Refused(refusal) => return Ok(Arrival::Refused(refusal)),
            // RFC 9110 10.1.1. It is small, and the client waits for it.
            Next::Continue => Box::pin(send(client, &b"HTTP/1.1 100 Continue\r\n\r\n"[..])).await?,
            Next::More => {}
        }
        let idle = inbox.is_empty();
        let limit = deadline.limit(inbox.awaited(), &client.deadlines, clock::instant);
        let on_stop = match (idle, first) {
            (false, _) => OnStop::Wait,
            (true, true) => OnStop::WaitFor(LAST_REQUEST_TIMEOUT),
            (true, false) => OnStop::Leave,
        };
        // Bytes that have already come are taken, even when they are late.
        next = match client.timer.wait(limit, on_stop, client.stream.recv()).await {
            Some(received) => match received? {
                Some(chunk) => inbox.push(&chunk),
                None => return Ok(Arrival::Gone),
            },
            None if !idle => {
                let why = "the request did not arrive in time";
                return Ok(Arrival::Refused(Refusal::new(Status::RequestTimeout, why)));
            }
            None => return Ok(Arrival::Gone),
        }
    }
}

/// When the awaited head or body has to be complete, however slowly its bytes come.
#[derive(Default)]
struct Deadline {
    /// What it is for, and when.
    set: Option<(Awaited, Instant)>,
}

impl Deadline {
    /// How long to wait for the next bytes of what is `awaited`. Each thing has its own time, from when it
    /// was first awaited.
    fn limit(&mut self, awaited: Awaited, args: &DeadlineArgs, now: impl FnOnce() -> Instant) -> Duration {
        let limit = match awaited {
            Awaited::Nothing => {
                self.set = None;
                return args.idle();
            }
            Awaited::Head => args.head(),
            Awaited::Body => args.body(),
        };
        let now = now();
        let (_, at) = match self.set {
            Some(set) if set.0 == awaited => set,
            _ => *self.set.insert((awaited, now.checked_add(limit).unwrap_or(now + YEAR))),
        };
        at.saturating_duration_since(now)
    }
}

/// The deadline where the clock cannot represent the one that was asked for.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail: with one deadline for body and head, the head had what the body had left, 1 s.
    #[test]
    fn a_head_has_its_time_whatever_was_awaited_before() {
        let args = DeadlineArgs { header_timeout: 10, idle_timeout: 60, lifetime: 0, min_rate: 1 << 20 };
        let (idle, head, body) = (args.idle(), args.head(), args.body());
        let start = Instant::now();
        let at = |seconds: u64| move || start + Duration::from_secs(seconds);
        let mut deadline = Deadline::default();
        let mut limit = |awaited, seconds| deadline.limit(awaited, &args, at(seconds));
        assert_eq!(limit(Awaited::Body, 0), body);
        assert_eq!(limit(Awaited::Body, 4), body - Duration::from_secs(4));
        // The body's end and a head's beginning in one segment.
        assert_eq!(limit(Awaited::Head, 9), head);
        assert_eq!(limit(Awaited::Head, 18), head - Duration::from_secs(9));
        assert_eq!(limit(Awaited::Head, 30), Duration::ZERO);

        assert_eq!(limit(Awaited::Nothing, 31), idle);
        assert_eq!(limit(Awaited::Body, 45), body);
        assert_eq!(limit(Awaited::Nothing, 46), idle);
        assert_eq!(limit(Awaited::Head, 70), head);
    }

    /// The bytes of an idle connection. The runtime's own memory is not counted.
    ///
    /// Seen to fail: with answers that are not in memory of their own; with functions in place of
    /// [`Wait`](super::super::deadline_timer::Wait), which hold what they are handed twice.
    #[test]
    fn a_connection_is_small() {
        fn size<A, B, C, T: Future>(_: impl FnOnce(A, B, C) -> T) -> usize {
            size_of::<T>()
        }
        let size = size(run::<annulus::net::Tcp, crate::slow::Unwatched>);
        assert!(size <= 640, "{size} bytes");
    }
}
