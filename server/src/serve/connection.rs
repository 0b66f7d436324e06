//! One connection: requests in, answers out, until either side has had enough.

use std::rc::Rc;
use std::time::{Duration, Instant};

use annulus::buf::Lease;
use annulus::net::TcpStream;

use super::{HEADER_TIMEOUT, KEEP_ALIVE_TIMEOUT, LAST_REQUEST_TIMEOUT, Site, respond};
use crate::http::inbox::{Inbox, Next};
use crate::http::request::{After, Ask, Request};
use crate::http::{Refusal, Status};
use crate::parting::part;
use crate::race::{First, race};

/// Serves one connection to its end.
pub(super) async fn run(stream: TcpStream, site: Rc<Site>) {
    match converse(&stream, &site).await {
        Ok(Parting::AtOnce) => {}
        Ok(Parting::Gently) => part(stream).await,
        Err(error) => tracing::debug!(peer = ?stream.peer_addr().ok(), %error, "the connection broke off"),
    }
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

async fn converse(stream: &TcpStream, site: &Site) -> annulus::Result<Parting> {
    let mut inbox = Inbox::default();
    let mut first = true;
    loop {
        match arrival(stream, &mut inbox, first).await? {
            Arrival::Gone => return Ok(Parting::AtOnce),
            Arrival::Refused(refusal) => {
                tracing::debug!(status = refusal.status.line(), why = refusal.why, "refused");
                respond::refuse(stream, site, refusal).await?;
                return Ok(Parting::Gently);
            }
            Arrival::Request(request) => {
                let after = if annulus::core::is_stopping() { After::Close } else { request.after };
                respond::answer(stream, site, &request.ask, after).await?;
                if after == After::Close {
                    let silent = request.after == After::Close
                        && request.body == 0
                        && request.ask != Ask::Other
                        && inbox.is_empty();
                    return Ok(if silent { Parting::AtOnce } else { Parting::Gently });
                }
            }
        }
        first = false;
    }
}

/// Waits for the next request; `first` if none has come on this connection yet.
async fn arrival(stream: &TcpStream, inbox: &mut Inbox, first: bool) -> annulus::Result<Arrival> {
    let mut next = inbox.next();
    let mut deadline = None;
    loop {
        match next {
            Next::Request(request) => return Ok(Arrival::Request(request)),
            Next::Refused(refusal) => return Ok(Arrival::Refused(refusal)),
            Next::More => {}
        }
        let idle = inbox.is_empty();
        let patience = if idle {
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
        next = match receive(stream, patience, on_stop).await? {
            Received::Chunk(chunk) => inbox.push(&chunk),
            Received::TooLate if !idle => {
                let why = "the request did not arrive in time";
                return Ok(Arrival::Refused(Refusal::new(Status::RequestTimeout, why)));
            }
            Received::End | Received::TooLate => return Ok(Arrival::Gone),
        }
    }
}

/// What to do about the end of the server while waiting for bytes.
enum OnStop {
    /// Keep waiting: a request is on its way.
    Wait,
    /// Wait this long at most.
    WaitFor(Duration),
    /// Stop waiting: nothing is on its way.
    Leave,
}

/// What came.
enum Received {
    Chunk(Lease),
    /// The peer closed its direction.
    End,
    /// Nothing, for as long as one was prepared to wait.
    TooLate,
}

async fn receive(stream: &TcpStream, patience: Duration, on_stop: OnStop) -> annulus::Result<Received> {
    let give_up = async {
        let sleep = annulus::time::sleep(patience);
        if matches!(on_stop, OnStop::Wait) {
            sleep.await;
            return;
        }
        if let First::B(()) = race(sleep, annulus::core::stopping()).await
            && let OnStop::WaitFor(limit) = on_stop
        {
            annulus::time::sleep(limit).await;
        }
    };
    // What has already come is taken, even when it is late: recv is asked first.
    Ok(match race(stream.recv(), give_up).await {
        First::A(chunk) => chunk?.map_or(Received::End, Received::Chunk),
        First::B(()) => Received::TooLate,
    })
}
