//! One connection: requests in, answers out, until either side has had enough.

use std::rc::Rc;
use std::time::Instant;

use annulus::net::TcpStream;

use super::patience::{OnStop, Patience};
use super::{HEADER_TIMEOUT, KEEP_ALIVE_TIMEOUT, LAST_REQUEST_TIMEOUT, Site, respond};
use crate::http::inbox::{Inbox, Next};
use crate::http::request::{After, Ask, Request};
use crate::http::{Refusal, Status};
use crate::parting::part;

/// Serves one connection to its end.
pub(super) async fn run(stream: TcpStream, site: Rc<Site>) {
    let mut client = Client { stream, patience: Patience::new() };
    match converse(&mut client, &site).await {
        Ok(Parting::AtOnce) => {}
        Ok(Parting::Gently) => part(client.stream).await,
        Err(error) => {
            tracing::debug!(peer = ?client.stream.peer_addr().ok(), %error, "the connection broke off")
        }
    }
}

/// Who asks, and how long we wait for them.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    pub(super) patience: Patience,
}

/// How to close.
enum Parting {
    /// The peer has gone, or has said that this was its last request.
    AtOnce,
    /// The peer may still be sending: see [`part`].
    Gently,
}

/// What the peer did.
enum Arrival {
    Request(Request),
    Refused(Refusal),
    /// It closed, or said nothing for too long.
    Gone,
}

async fn converse(client: &mut Client, site: &Site) -> annulus::Result<Parting> {
    let mut inbox = Inbox::default();
    let mut first = true;
    loop {
        match arrival(client, &mut inbox, first).await? {
            Arrival::Gone => return Ok(Parting::AtOnce),
            Arrival::Refused(refusal) => {
                tracing::debug!(status = refusal.status.line(), why = refusal.why, "refused");
                respond::refuse(client, site, refusal).await?;
                return Ok(Parting::Gently);
            }
            Arrival::Request(request) => {
                let after = if annulus::core::is_stopping() { After::Close } else { request.after };
                respond::answer(client, site, &request, after).await?;
                if after == After::Close {
                    let silent = request.after == After::Close
                        && request.body == 0
                        && request.ask != Ask::Other
                        && inbox.is_empty();
                    return Ok(if silent { Parting::AtOnce } else { Parting::Gently });
                }
                inbox.reuse(request);
            }
        }
        first = false;
    }
}

/// Waits for the next request; `first` if none has come on this connection yet.
async fn arrival(client: &mut Client, inbox: &mut Inbox, first: bool) -> annulus::Result<Arrival> {
    let mut next = inbox.next();
    let mut deadline = None;
    loop {
        match next {
            Next::Request(request) => return Ok(Arrival::Request(request)),
            Next::Refused(refusal) => return Ok(Arrival::Refused(refusal)),
            Next::More => {}
        }
        let idle = inbox.is_empty();
        let limit = if idle {
            KEEP_ALIVE_TIMEOUT
        } else {
            let now = Instant::now();
            deadline.get_or_insert(now + HEADER_TIMEOUT).saturating_duration_since(now)
        };
        let on_stop = match (idle, first) {
            (false, _) => OnStop::Wait,
            (true, true) => OnStop::WaitFor(LAST_REQUEST_TIMEOUT),
            (true, false) => OnStop::Leave,
        };
        // What has already come is taken, even when it is late.
        next = match client.patience.wait(limit, on_stop, client.stream.recv()).await {
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
