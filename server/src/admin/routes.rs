//! What operators can ask for, and the answers.

use rustix::process::{Signal, getpid, kill_process};

use super::request::Request;
use crate::lifecycle::{self, Stage};
use crate::metrics::exposition::expose;
use crate::metrics::format::Format;
use crate::metrics::overview::Overview;
use crate::metrics::status::Status;
use crate::metrics::upstreams;
use crate::signals::upgrade_signal;
use crate::upgrade::outcome::{self, Outcome};

/// The page for people. Everything in it is in this one file, and it asks for nothing but `/status`.
const PAGE: &str = include_str!("page.html");

/// The status, and the figures of it that the page shows.
#[derive(serde::Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    status: &'a Status,
    overview: Overview,
}

impl<'a> Whole<'a> {
    fn of(status: &'a Status) -> Self {
        Whole { status, overview: Overview::of(status) }
    }
}

/// An answer, before it is bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    status: u16,
    content_type: &'static str,
    allow: Option<&'static str>,
    body: String,
}

impl Response {
    /// A line of text.
    pub(super) fn text(status: u16, text: &str) -> Self {
        let content_type = "text/plain; charset=utf-8";
        Response { status, content_type, allow: None, body: format!("{text}\n") }
    }

    fn json(status: u16, value: &impl serde::Serialize) -> Self {
        // Numbers, texts and maps with text keys: nothing of this can fail.
        let mut body = serde_json::to_string(value).unwrap_or_default();
        body.push('\n');
        Response { status, content_type: "application/json", allow: None, body }
    }

    /// Head and body; the head alone for HEAD.
    pub(super) fn bytes(&self, with_body: bool) -> Vec<u8> {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            413 => "Content Too Large",
            431 => "Request Header Fields Too Large",
            500 => "Internal Server Error",
            503 => "Service Unavailable",
            _ => "Error",
        };
        let allow = self.allow.map(|allow| format!("Allow: {allow}\r\n")).unwrap_or_default();
        // No answer may be stored. The page runs its own script, and none from elsewhere.
        let head = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}Cache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; \
             script-src 'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'\r\n\
             Connection: close\r\n\r\n",
            self.status,
            self.content_type,
            self.body.len(),
        );
        let body = if with_body { self.body.as_bytes() } else { b"" };
        [head.as_bytes(), body].concat()
    }
}

/// The answer to a request that is answered at once; `None` where others have to be asked, which
/// [`after_asking`] does. `is_local`: it came by a Unix socket.
pub(super) fn at_once(request: &Request, is_local: bool) -> Option<Response> {
    let is_read = matches!(request.method.as_str(), "GET" | "HEAD");
    Some(match request.path.as_str() {
        "/" | "/metrics" | "/healthz" | "/readyz" | "/status" | "/upstreams" if !is_read => {
            not_allowed("GET, HEAD")
        }
        "/metrics" | "/status" | "/upstreams" => return None,
        "/" => Response {
            status: 200,
            content_type: "text/html; charset=utf-8",
            allow: None,
            body: PAGE.to_owned(),
        },
        // An answer says that the process lives. The status says whether a core is stuck.
        "/healthz" => Response::text(200, "ok"),
        "/readyz" => match lifecycle::stage() {
            Stage::Ready => Response::text(200, "ready"),
            Stage::Starting => Response::text(503, "starting: not every core listens yet"),
            Stage::Leaving | Stage::Draining => Response::text(503, "draining: no new clients, please"),
        },
        "/reload" => match request.method.as_str() {
            "POST" => may_order(request, is_local).unwrap_or_else(order_reload),
            _ => not_allowed("POST"),
        },
        "/upgrade" => match request.method.as_str() {
            "GET" | "HEAD" => Response::json(200, &told(&outcome::get())),
            "POST" => may_order(request, is_local).unwrap_or_else(order_upgrade),
            _ => not_allowed("GET, HEAD, POST"),
        },
        _ => match (upstream_of(request), request.method.as_str()) {
            (None, _) => nothing_there(),
            (Some(_), "POST") => return may_order(request, is_local),
            (Some(_), _) => not_allowed("POST"),
        },
    })
}

/// The answer to a request for which others are asked: the status of all processes, and orders to them.
/// `status` asks for it.
pub(super) fn after_asking<'a>(request: &Request, status: impl FnOnce() -> &'a Status) -> Response {
    match request.path.as_str() {
        "/metrics" => {
            let format = Format::for_accept(&request.accept);
            let body = expose(status(), format);
            Response { status: 200, content_type: format.content_type(), allow: None, body }
        }
        "/status" => Response::json(200, &Whole::of(status())),
        "/upstreams" => Response::json(200, &status().upstreams),
        _ => match upstream_of(request) {
            Some((address, in_service)) => order_upstream(address, in_service),
            None => nothing_there(),
        },
    }
}

/// The upstream that a request is about, and whether it is to be in service.
fn upstream_of(request: &Request) -> Option<(&str, bool)> {
    match request.path.strip_prefix("/upstreams/")?.rsplit_once('/')? {
        (address, word @ ("in" | "out")) => Some((address, word == "in")),
        _ => None,
    }
}

fn nothing_there() -> Response {
    Response::text(404, "there are /, /metrics, /healthz, /readyz, /status, /upstreams, /reload, /upgrade")
}

fn not_allowed(allow: &'static str) -> Response {
    Response { allow: Some(allow), ..Response::text(405, "this is not done here") }
}

/// Why an order is refused: pages of other sites must not give orders through an operator's browser. A page
/// that is loaded from here has this server as its origin. A page whose own DNS points its name here (DNS
/// rebinding) does not use this server's address.
fn may_order(request: &Request, is_local: bool) -> Option<Response> {
    let host = request.host.rsplit_once(':').map_or(request.host.as_str(), |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { request.host.as_str() }
    });
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let is_address = address.parse::<std::net::IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost");
    let is_ours =
        |origin: &String| origin.strip_prefix("http://").is_some_and(|origin| origin == request.host);
    let is_page_of_ours = request.origin.as_ref().is_none_or(is_ours);
    if is_page_of_ours && (is_local || is_address) {
        return None;
    }
    Some(Response::text(403, "orders are taken by the address of this server, and from its own page only"))
}

fn order_upstream(address: &str, in_service: bool) -> Response {
    let address = percent_encoding::percent_decode_str(address).decode_utf8_lossy();
    if !upstreams::set_in_service(&address, in_service) {
        return Response::text(404, "there is no such upstream; /upstreams has them all");
    }
    let word = if in_service { "in service" } else { "out of service" };
    tracing::warn!(upstream = %address, "an operator has put an upstream {word}");
    Response::text(200, word)
}

/// The same as SIGHUP, without the process's number.
fn order_reload() -> Response {
    match kill_process(getpid(), Signal::HUP) {
        Ok(()) => Response::text(200, "reading anew; what comes of it is told on standard error"),
        Err(errno) => Response::text(500, &format!("cannot ask for it: {errno}")),
    }
}

/// How far the last upgrade of this process has come, and which process it is.
fn told(outcome: &Outcome) -> serde_json::Value {
    let (word, why) = match outcome {
        Outcome::None => ("none", None),
        Outcome::UnderWay => ("under way", None),
        Outcome::Failed(why) => ("failed", Some(why)),
        Outcome::Done(_) => ("done", None),
    };
    serde_json::json!({"pid": std::process::id(), "upgrade": word, "why": why})
}

/// The same as the signal, for whoever does not know the process's number. What comes of it, GET says.
fn order_upgrade() -> Response {
    match kill_process(getpid(), upgrade_signal()) {
        Ok(()) => Response::text(200, "starting the new program; GET /upgrade says what comes of it"),
        Err(errno) => Response::text(500, &format!("cannot ask for it: {errno}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::status::tests::sample;

    fn ask(method: &str, path: &str, host: &str, origin: Option<&str>) -> Response {
        let request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            host: host.to_owned(),
            accept: String::new(),
            origin: origin.map(str::to_owned),
        };
        let sample = sample();
        at_once(&request, false).unwrap_or_else(|| after_asking(&request, || &sample))
    }

    #[test]
    fn answers() {
        for (method, path, status) in [
            ("GET", "/", 200),
            ("GET", "/metrics", 200),
            ("HEAD", "/metrics", 200),
            ("GET", "/healthz", 200),
            ("GET", "/status", 200),
            ("GET", "/upstreams", 200),
            ("GET", "/upstreams/a:1/out", 405),
            ("POST", "/upstreams/a:1/out", 404),
            ("POST", "/upstreams/a:1/up", 404),
            ("POST", "/metrics", 405),
            ("GET", "/reload", 405),
            ("GET", "/upgrade", 200),
            ("PUT", "/upgrade", 405),
            ("GET", "/favicon.ico", 404),
        ] {
            assert_eq!(ask(method, path, "127.0.0.1:9", None).status, status, "{method} {path}");
        }
        let status = ask("GET", "/status", "h", None).body;
        assert_eq!(serde_json::from_str::<Status>(&status).unwrap(), sample());
        let told: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(told["overview"], serde_json::to_value(Overview::of(&sample())).unwrap());
    }

    /// Seen to fail: with `open` in `Overview` under another name.
    #[test]
    fn the_page_names_only_figures_that_there_are() {
        let overview = serde_json::to_value(Overview::of(&sample())).unwrap();
        for used in PAGE.split("overview.").skip(1) {
            let name: String = used.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            assert!(overview.get(&name).is_some(), "{name}: {overview}");
        }
    }

    /// Seen to fail: with orders from whoever asks.
    #[test]
    fn orders_come_from_nobody_elses_page() {
        let order = |host: &str, origin: Option<&str>| ask("POST", "/upstreams/a:1/out", host, origin).status;
        for host in ["127.0.0.1:9", "127.0.0.1", "[::1]:9", "localhost:9", "10.0.0.1:9"] {
            assert_eq!(order(host, None), 404, "{host}");
            assert_eq!(order(host, Some(&format!("http://{host}"))), 404, "{host}");
            assert_eq!(order(host, Some("http://evil.example")), 403, "{host}");
        }
        assert_eq!(order("evil.example:9", Some("http://evil.example:9")), 403);
        assert_eq!(order("evil.example", None), 403);
        assert_eq!(order("", None), 403);
    }

    #[test]
    fn the_page_asks_for_nothing_from_elsewhere() {
        for word in ["http://", "https://", "src=", "@import", "url("] {
            let found = PAGE
                .match_indices(word)
                .find(|(at, _)| !PAGE[*at..].starts_with("http://www.w3.org/2000/svg"));
            assert!(found.is_none(), "{word}: {:?}", found.map(|(at, _)| &PAGE[at..PAGE.len().min(at + 60)]));
        }
    }
}
