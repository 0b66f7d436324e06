//! Makes the active health checks: a connection, or a request and the status of its answer.

use std::sync::Weak;
use std::time::Duration;

use annulus::net::{Connection, Family};

use super::address::Target;
use super::check::{Check, Status, StatusRange, status};
use super::connect::{Server, connect_to};
use super::upstreams::{Upstream, Upstreams};

/// Checks an upstream for as long as anybody uses it, as a task of one core.
pub(super) async fn keep(upstreams: Weak<Upstreams>, place: usize) {
    loop {
        let Some(all) = upstreams.upgrade() else { return };
        let (upstream, args) = (&all.list()[place], all.args());
        let limit = Duration::from_secs(args.check_timeout);
        let (interval, what) = (Duration::from_secs(args.check_interval), args.check.clone());
        let found = match (
            &what,
            annulus::time::timeout(limit, attempt(upstream, what.as_ref(), args.check_status)).await,
        ) {
            (None, _) => return,
            (_, Ok(found)) => found,
            (_, Err(_)) => Err(format!("no answer in {} s", limit.as_secs())),
        };
        match found {
            Ok(()) => upstream.checked(&all, true, ""),
            Err(why) => upstream.checked(&all, false, &why),
        }
        drop(all);
        annulus::time::sleep(interval).await;
    }
}

async fn attempt(upstream: &Upstream, check: Option<&Check>, wanted: StatusRange) -> Result<(), String> {
    let server = connect_to(upstream, None, None).await.map_err(|error| error.to_string())?;
    let Some(Check::Http(path)) = check else {
        // A reset leaves no TIME_WAIT behind (RFC 9293, 3.6.1), and there is nothing to be lost.
        server.reset();
        return Ok(());
    };
    let host = match upstream.target() {
        Target::Unix(_) => "localhost".to_owned(),
        target => target.to_string(),
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: annulus-check\r\nConnection: close\r\n\r\n"
    );
    let status = match &server {
        Server::Tcp(stream) => ask(stream, request).await,
        Server::Unix(stream) => ask(stream, request).await,
    }?;
    if wanted.contains(status) { Ok(()) } else { Err(format!("status {status}")) }
}

/// Sends a request and reads as far as the status.
async fn ask<F: Family>(stream: &Connection<F>, request: String) -> Result<u16, String> {
    stream.send_all(request.into_bytes()).await.map_err(|failed| failed.error.to_string())?;
    let mut head = Vec::new();
    while let Some(chunk) = stream.recv().await.map_err(|error| error.to_string())? {
        head.extend_from_slice(&chunk);
        match status(&head) {
            Status::Is(code) => return Ok(code),
            Status::NotYet => {}
            Status::Never => break,
        }
    }
    Err("no answer by HTTP/1".to_owned())
}
