//! Lines of JSON: one object each, with the same names in every line of a kind.

use super::clock::Clock;
use super::{Client, Connection, Request, display, escape, number, seconds};

/// Appends a request.
pub(super) fn request(out: &mut Vec<u8>, clock: &Clock, request: &Request<'_>) {
    begin(out, clock, request.client);
    for (name, value) in [
        ("method", request.method),
        ("target", request.target),
        ("version", request.version),
        ("host", request.host),
    ] {
        string(out, name, value);
    }
    key(out, "status");
    number(out, request.status);
    key(out, "bytes");
    number(out, request.bytes);
    key(out, "seconds");
    seconds(out, request.elapsed);
    for (name, value) in
        [("referer", request.referer), ("user_agent", request.user_agent), ("request_id", request.request_id)]
    {
        string(out, name, value);
    }
    out.push(b'}');
}

/// Appends a relayed connection.
pub(super) fn connection(out: &mut Vec<u8>, clock: &Clock, connection: &Connection<'_>) {
    begin(out, clock, connection.client);
    address(out, "upstream", connection.upstream);
    for (name, value) in [("bytes_up", connection.up), ("bytes_down", connection.down)] {
        key(out, name);
        number(out, value);
    }
    key(out, "seconds");
    seconds(out, connection.elapsed);
    string(out, "road", connection.road.as_bytes());
    string(out, "end", connection.end.as_bytes());
    out.push(b'}');
}

fn begin(out: &mut Vec<u8>, clock: &Clock, client: Client) {
    out.extend_from_slice(b"{\"time\":\"");
    clock.iso(out);
    out.push(b'"');
    address(out, "client", Some(client));
}

fn address(out: &mut Vec<u8>, name: &str, address: Option<Client>) {
    key(out, name);
    match address {
        Some(address) if address != Client::Unknown => {
            out.push(b'"');
            display(out, address);
            out.push(b'"');
        }
        _ => out.extend_from_slice(b"null"),
    }
}

/// What is empty is null, which readers of JSON tell from a value more easily.
fn string(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    key(out, name);
    if value.is_empty() {
        out.extend_from_slice(b"null");
    } else {
        escape::json(out, value);
    }
}

fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

#[cfg(test)]
mod tests {
    use super::super::text::tests::{clock, relayed, sample};
    use super::*;

    #[test]
    fn requests_and_connections() {
        let mut out = Vec::new();
        request(&mut out, &clock(), &sample());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"time":"1994-11-06T08:49:37.123Z","client":"[2001:db8::1]:4711","method":"GET","target":"/a\"b","version":"HTTP/1.1","host":"example.org","status":206,"bytes":1024,"seconds":0.000150,"referer":null,"user_agent":"curl\u000A","request_id":"7"}"#
        );
        let mut out = Vec::new();
        connection(&mut out, &clock(), &relayed());
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&line["upstream"], &line["bytes_down"]), (&"10.0.0.1:80".into(), &9.into()));
        let mut out = Vec::new();
        connection(&mut out, &clock(), &Connection { upstream: None, ..relayed() });
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert!(line["upstream"].is_null());
    }
}
