//! One connection: requests in, answers out, until either side has had enough.

use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use annulus::net::{Connection, Family};
use tracing::{Instrument, Span};

use super::deadline_timer::{DeadlineTimer, OnStop};
use super::send::send;
use super::{HEADER_TIMEOUT, KEEP_ALIVE_TIMEOUT, LAST_REQUEST_TIMEOUT, Site, Sites, respond};
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

/// How much of a request's name is told, in bytes.
const LONGEST_ID: usize = 128;

/// Serves one connection to its end.
pub(crate) async fn run<F: Family>(accepted: Accepted<F>, sites: Rc<Sites>, gate: Rc<Gate>) {
    let address = accepted.address();
    // Where all requests have one answer, nothing of a head is kept but for the access log.
    let mut inbox = Inbox::new(sites.last().access.is_on() || sites.differ() || gate.reads_requests());
    if let Some(chunk) = &accepted.first {
        inbox.hold(chunk);
    }
    let timer = DeadlineTimer::new();
    let mut client = Client { stream: accepted.stream, timer, address, sent: Sent::default() };
    match serve_requests(&mut client, inbox, &sites, &gate).await {
        Ok(CloseMode::AtOnce) => {}
        Ok(CloseMode::Gently) => lingering_close(client.stream).await,
        Err(error) => {
            tracing::debug!(client = %client.address, %error, "the connection broke off")
        }
    }
}

/// Who asks, and how long we wait for them.
pub(super) struct Client<F: Family> {
    pub(super) stream: Connection<F>,
    pub(super) timer: DeadlineTimer,
    /// Where they are.
    pub(super) address: access::Client,
    /// What the last answer was.
    pub(super) sent: Sent,
}

/// What was sent for a request, for the access log.
#[derive(Default)]
pub(super) struct Sent {
    /// The status code; 0 before there is any.
    pub(super) status: u16,
    /// Bytes of the body.
    pub(super) bytes: u64,
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
        client: client.address,
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

/// What is told of the last request is told with the name that it came with, so that it is found in the logs of others too.
fn span_of(inbox: &Inbox) -> Span {
    let id = inbox.record().map(|record| record.request_id()).unwrap_or_default();
    let id = String::from_utf8_lossy(&id[..id.len().min(LONGEST_ID)]);
    // As high as can be: it is there for the least of the log's lines.
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

async fn serve_requests<F: Family>(
    client: &mut Client<F>,
    mut inbox: Inbox,
    sites: &Sites,
    gate: &Gate,
) -> annulus::Result<CloseMode> {
    let peer = client.address;
    let mut first = true;
    loop {
        let arrival = arrival(client, &mut inbox, first).await?;
        let arrival =
            if gate.reads_requests() { named(client, gate, peer, &inbox, arrival) } else { arrival };
        let site = asked(sites, &inbox, &arrival);
        let began = if site.access.is_timed() { Some(Instant::now()) } else { metrics::clock() };
        client.sent = Sent::default();
        match arrival {
            Arrival::Gone => return Ok(CloseMode::AtOnce),
            Arrival::Refused(refusal) => {
                tracing::debug!(client = %client.address, status = refusal.status.line(), why = refusal.why, "refused");
                let refused = respond::refuse(client, site, refusal).await;
                note(client, site, &inbox, None, began);
                refused?;
                return Ok(CloseMode::Gently);
            }
            Arrival::Request(request) => {
                let is_last = annulus::cores::is_stopping()
                    || sites.is_superseded()
                    || lifecycle::stage() > Stage::Ready;
                let after = if is_last { After::Close } else { request.after };
                let span = if request.has_id { span_of(&inbox) } else { Span::none() };
                let answered = respond::answer(client, site, &request, after).instrument(span).await;
                note(client, site, &inbox, Some(request.method), began);
                answered?;
                if after == After::Close {
                    let silent = request.after == After::Close && !request.unread && inbox.is_empty();
                    return Ok(if silent { CloseMode::AtOnce } else { CloseMode::Gently });
                }
                inbox.reuse(request);
            }
        }
        first = false;
    }
}

/// Learns from a request of whom it is, when it came from `peer`, and refuses it where that client may not come.
fn named<F: Family>(
    client: &mut Client<F>,
    gate: &Gate,
    peer: access::Client,
    inbox: &Inbox,
    arrival: Arrival,
) -> Arrival {
    let (Arrival::Request(_), Some(record)) = (&arrival, inbox.record()) else { return arrival };
    let lines = match gate.field() {
        Field::XForwardedFor => record.x_forwarded_for(),
        Field::Forwarded => record.forwarded(),
    };
    match gate.forwarded(peer, lines) {
        Some(from) => {
            client.address = from;
            arrival
        }
        None => Arrival::Refused(Refusal::new(Status::Forbidden, "the lists do not allow this client")),
    }
}

/// What is to answer.
fn asked<'s>(sites: &'s Sites, inbox: &Inbox, arrival: &Arrival) -> &'s Site {
    match (arrival, inbox.record()) {
        (Arrival::Request(request), Some(record)) if sites.differ() => {
            sites.of(record.authority(), request.target.path().as_os_str().as_bytes())
        }
        _ => sites.last(),
    }
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
            Next::Continue => send(client, &b"HTTP/1.1 100 Continue\r\n\r\n"[..], false).await?,
            Next::More => {}
        }
        let idle = inbox.is_empty();
        let limit = deadline.limit(inbox.awaited(), Instant::now);
        let on_stop = match (idle, first) {
            (false, _) => OnStop::Wait,
            (true, true) => OnStop::WaitFor(LAST_REQUEST_TIMEOUT),
            (true, false) => OnStop::Leave,
        };
        // What has already come is taken, even when it is late.
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

/// Until when what is awaited has to be there, however slowly it drips.
#[derive(Default)]
struct Deadline {
    /// What it is for, and when.
    set: Option<(Awaited, Instant)>,
}

impl Deadline {
    /// How long to wait for the next bytes of what is `awaited`. Each thing has its own time, from when it was first awaited.
    fn limit(&mut self, awaited: Awaited, now: impl FnOnce() -> Instant) -> Duration {
        if awaited == Awaited::Nothing {
            self.set = None;
            return KEEP_ALIVE_TIMEOUT;
        }
        let now = now();
        let (_, at) = match self.set {
            Some(set) if set.0 == awaited => set,
            _ => *self.set.insert((awaited, now + HEADER_TIMEOUT)),
        };
        at.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail: with one deadline for body and head, the head had what the body had left, 1 s.
    #[test]
    fn a_head_has_its_time_whatever_was_awaited_before() {
        let start = Instant::now();
        let at = |seconds: u64| move || start + Duration::from_secs(seconds);
        let mut deadline = Deadline::default();
        assert_eq!(deadline.limit(Awaited::Body, at(0)), HEADER_TIMEOUT);
        assert_eq!(deadline.limit(Awaited::Body, at(4)), HEADER_TIMEOUT - Duration::from_secs(4));
        // The body's end and a head's beginning in one segment.
        assert_eq!(deadline.limit(Awaited::Head, at(9)), HEADER_TIMEOUT);
        assert_eq!(deadline.limit(Awaited::Head, at(18)), HEADER_TIMEOUT - Duration::from_secs(9));
        assert_eq!(deadline.limit(Awaited::Head, at(30)), Duration::ZERO);

        let mut deadline = Deadline::default();
        deadline.limit(Awaited::Body, at(0));
        assert_eq!(deadline.limit(Awaited::Nothing, at(1)), KEEP_ALIVE_TIMEOUT);
        assert_eq!(deadline.limit(Awaited::Body, at(15)), HEADER_TIMEOUT);
        assert_eq!(deadline.limit(Awaited::Nothing, at(16)), KEEP_ALIVE_TIMEOUT);
        assert_eq!(deadline.limit(Awaited::Head, at(40)), HEADER_TIMEOUT);
    }
}
