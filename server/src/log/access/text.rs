//! Lines of the common and the combined format, and the like for relayed connections.

use super::clock::Clock;
use super::{Client, Connection, Request, display, escape, ip, number, seconds};

/// Appends `CLIENT - - [TIME] "METHOD TARGET VERSION" STATUS BYTES`, and with `combined` ` "REFERER"
/// "USER-AGENT"`: what log readers know as CLF and as combined. What is not there is `-`.
pub(super) fn request(out: &mut Vec<u8>, clock: &Clock, request: &Request<'_>, combined: bool) {
    match request.client {
        Client::Tcp(address) => ip(out, address.ip()),
        client => display(out, client),
    }
    out.extend_from_slice(b" - - [");
    out.extend_from_slice(clock.common().as_bytes());
    out.extend_from_slice(b"] \"");
    if request.method.is_empty() {
        or_dash(out, request.target);
    } else {
        escape::text(out, request.method);
        out.push(b' ');
        escape::text(out, request.target);
        out.push(b' ');
        escape::text(out, request.version);
    }
    out.extend_from_slice(b"\" ");
    number(out, request.status);
    out.push(b' ');
    number(out, request.bytes);
    if combined {
        for field in [request.referer, request.user_agent] {
            out.extend_from_slice(b" \"");
            or_dash(out, field);
            out.push(b'"');
        }
    }
}

/// Appends `CLIENT [TIME] TCP "UPSTREAM" up=BYTES down=BYTES seconds=TIME road=ROAD end="HOW"`.
pub(super) fn connection(out: &mut Vec<u8>, clock: &Clock, connection: &Connection<'_>) {
    display(out, connection.client);
    out.extend_from_slice(b" [");
    out.extend_from_slice(clock.common().as_bytes());
    out.extend_from_slice(b"] TCP \"");
    display(out, connection.upstream.unwrap_or(Client::Unknown));
    out.extend_from_slice(b"\" up=");
    number(out, connection.up);
    out.extend_from_slice(b" down=");
    number(out, connection.down);
    out.extend_from_slice(b" seconds=");
    seconds(out, connection.elapsed);
    out.extend_from_slice(b" road=");
    out.extend_from_slice(connection.road.as_bytes());
    out.extend_from_slice(b" end=\"");
    escape::text(out, connection.end.as_bytes());
    out.push(b'"');
}

fn or_dash(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_empty() { out.push(b'-') } else { escape::text(out, bytes) }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;

    pub(in super::super) fn clock() -> Clock {
        let mut clock = Clock::default();
        clock.set(Duration::from_millis(784_111_777_123));
        clock
    }

    pub(in super::super) fn sample() -> Request<'static> {
        Request {
            client: Client::Tcp("[2001:db8::1]:4711".parse().unwrap()),
            method: b"GET",
            target: b"/a\"b",
            version: b"HTTP/1.1",
            host: b"example.org",
            status: 206,
            bytes: 1024,
            referer: b"",
            user_agent: b"curl\n",
            elapsed: Duration::from_micros(150),
            request_id: b"7",
        }
    }

    pub(in super::super) fn relayed() -> Connection<'static> {
        Connection {
            client: Client::Tcp("192.0.2.1:4711".parse().unwrap()),
            upstream: Some(Client::Tcp("10.0.0.1:80".parse().unwrap())),
            up: 7,
            down: 9,
            elapsed: Duration::from_millis(1500),
            end: "closed",
            road: "inline",
        }
    }

    fn line(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn requests() {
        let common = r#"2001:db8::1 - - [06/Nov/1994:08:49:37 +0000] "GET /a\x22b HTTP/1.1" 206 1024"#;
        assert_eq!(line(|out| request(out, &clock(), &sample(), false)), common);
        let combined = format!(r#"{common} "-" "curl\x0A""#);
        assert_eq!(line(|out| request(out, &clock(), &sample(), true)), combined);
        let v4 = Request { client: Client::Tcp("192.0.2.10:1".parse().unwrap()), ..sample() };
        assert!(line(|out| request(out, &clock(), &v4, false)).starts_with("192.0.2.10 - - ["));
        let garbage = Request { method: b"", target: b"\x16\x03\x01", client: Client::Unix, ..sample() };
        let text = line(|out| request(out, &clock(), &garbage, false));
        assert!(text.starts_with("unix: - - [") && text.contains(r#""\x16\x03\x01" "#), "{text}");
    }

    #[test]
    fn connections() {
        assert_eq!(
            line(|out| connection(out, &clock(), &relayed())),
            r#"192.0.2.1:4711 [06/Nov/1994:08:49:37 +0000] TCP "10.0.0.1:80" up=7 down=9 seconds=1.500000 road=inline end="closed""#
        );
    }
}
