use super::*;

fn parse(bytes: &[u8]) -> Parsed {
    super::parse(bytes, &mut Vec::new())
}

/// Parses a whole head; `HOST` is short for a good Host line.
fn whole(text: &str) -> Result<Whole, Refusal> {
    let text = text.replace("HOST", "Host: localhost\r\n");
    match parse(text.as_bytes()) {
        Parsed::Complete(whole) => {
            assert_eq!(whole.head, text.len(), "{text:?}");
            Ok(whole)
        }
        Parsed::Partial => panic!("not enough: {text:?}"),
        Parsed::Refused(refusal) => Err(refusal),
    }
}

fn read(text: &str) -> Result<Request, Refusal> {
    whole(text).map(|whole| whole.request)
}

fn status(text: &str) -> Status {
    match read(text) {
        Ok(request) => panic!("{text:?} was taken as {request:?}"),
        Err(refusal) => refusal.status,
    }
}

/// The method and the path of a request.
fn asked(text: &str) -> (Method, String) {
    let request = read(text).unwrap();
    (request.method, request.target.path().display().to_string())
}

fn get(path: &str) -> (Method, String) {
    (Method::Get, path.to_owned())
}

#[test]
fn plain_requests() {
    let request = read("GET /a.txt HTTP/1.1\r\nHOST\r\n").unwrap();
    assert_eq!((request.after, request.unread, &request.conditions), (After::Keep, false, &None));
    assert_eq!(asked("GET /a.txt HTTP/1.1\r\nHOST\r\n"), get("a.txt"));
    let head = asked("\r\n\r\nHEAD /a HTTP/1.1\r\nhOsT:localhost\r\nX-Y:  \t z \t\r\n\r\n");
    assert_eq!(head, (Method::Head, "a".to_owned()));
    assert_eq!(asked("GET http://other/a HTTP/1.1\r\nHOST\r\n"), get("a"));
    // A later minor version is read as 1.1 (RFC 9110 2.5), an empty Host is allowed (RFC 9112 3.2).
    assert_eq!(read("GET /a HTTP/1.9\r\nHost:\r\n\r\n").unwrap().after, After::Keep);
}

#[test]
fn persistence() {
    for (head, after) in [
        ("GET /a HTTP/1.1\r\nHOST\r\n", After::Keep),
        ("GET /a HTTP/1.1\r\nHOSTConnection: close\r\n\r\n", After::Close),
        ("GET /a HTTP/1.1\r\nHOSTConnection: keep-alive, Close\r\n\r\n", After::Close),
        ("GET /a HTTP/1.1\r\nHOSTConnection: keep-alive\r\nConnection: ,close\r\n\r\n", After::Close),
        ("GET /a HTTP/1.1\r\nHOSTConnection: not-close\r\n\r\n", After::Keep),
        ("GET /a HTTP/1.1\r\nHOSTConnection: keep-alive\r\n\r\n", After::Keep),
        ("GET /a HTTP/1.0\r\n\r\n", After::Close),
        ("GET /a HTTP/1.0\r\nHOST\r\n", After::Close),
        ("GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", After::KeepAndSay),
        ("GET /a HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", After::Close),
        ("CONNECT a:443 HTTP/1.1\r\nHOST\r\n", After::Close),
    ] {
        assert_eq!(read(head).unwrap().after, after, "{head:?}");
    }
}

#[test]
fn methods_and_their_targets() {
    for (line, method) in [
        ("POST /x", Method::NotAllowed),
        ("OPTIONS *", Method::Options),
        ("OPTIONS /x", Method::Options),
        ("get /a", Method::Unknown),
        ("M-SEARCH /x", Method::Unknown),
        ("CONNECT [::1]:1", Method::Connect),
    ] {
        let request = read(&format!("{line} HTTP/1.1\r\nHOST\r\n")).unwrap();
        assert_eq!(request.method, method, "{line}");
    }
    for line in [
        "POST /../x",
        "M-SEARCH *",
        "DELETE a",
        "OPTIONS **",
        "POST /%00",
        "X /%zz",
        "CONNECT /a",
        "CONNECT u@h:1",
    ] {
        assert_eq!(status(&format!("{line} HTTP/1.1\r\nHOST\r\n")), Status::BadRequest, "{line}");
    }
}

#[test]
fn bodies_of_any_method_are_thrown_away_up_to_a_limit() {
    for method in ["GET", "HEAD", "OPTIONS", "POST", "X"] {
        let with = |fields: &str| format!("{method} /a HTTP/1.1\r\nHOST{fields}\r\n\r\n");
        let read = whole(&with("Content-Length: 1048576")).unwrap();
        assert_eq!((read.request.after, read.body), (After::Keep, Body::Sized(1 << 20)), "{method}");
        assert_eq!(whole(&with("Content-Length: 0")).unwrap().body, Body::None, "{method}");
        let read = whole(&with("Transfer-Encoding: chunked")).unwrap();
        assert_eq!(
            (read.request.after, read.body),
            (After::Keep, Body::Chunked(Chunked::default())),
            "{method}"
        );
        assert_eq!(status(&with("Content-Length: 1048577")), Status::ContentTooLarge, "{method}");
        assert_eq!(status(&with("Transfer-Encoding: gzip, chunked")), Status::NotImplemented, "{method}");
        for broken in ["gzip", "chunked, chunked", "chunked, gzip", "chunked\r\nTransfer-Encoding: chunked"] {
            let status = status(&with(&format!("Transfer-Encoding: {broken}")));
            assert_eq!(status, Status::BadRequest, "{method} {broken}");
        }
    }
}

#[test]
fn who_expects_to_be_told_to_go_on_is_told_so_or_refused() {
    let with = |method: &str, expect: &str| {
        format!("{method} /a HTTP/1.1\r\nHOSTContent-Length: 1\r\nExpect: {expect}\r\n\r\n")
    };
    let served = whole(&with("GET", "100-Continue")).unwrap();
    assert_eq!((served.expects, served.request.after, served.body), (true, After::Keep, Body::Sized(1)));
    // Its body may come or not.
    let refused = whole(&with("PUT", "100-continue")).unwrap();
    assert_eq!((refused.expects, refused.request.after, refused.request.unread), (false, After::Close, true));
    for unknown in ["200-ok", "100-continue, x"] {
        assert_eq!(status(&with("GET", unknown)), Status::ExpectationFailed);
    }
    let old = whole("GET /a HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n").unwrap();
    assert_eq!((old.expects, old.body), (false, Body::Sized(1)));
    assert!(!whole("GET /a HTTP/1.1\r\nHOSTExpect: 100-continue\r\n\r\n").unwrap().expects);
}

#[test]
fn conditions_are_gathered_from_all_lines() {
    let request = read(
        "GET /a HTTP/1.1\r\nHOSTIf-None-Match: \"a\"\r\nif-none-match: \"b\"\r\nRange: bytes=0-1\r\nIf-Range: \"c\"\r\n\
         Accept-Encoding: gzip\r\naccept-encoding: br\r\nAccept: application/json\r\n\r\n",
    )
    .unwrap();
    let conditions = request.conditions.unwrap();
    assert_eq!(conditions.if_none_match.as_deref(), Some(&b"\"a\", \"b\""[..]));
    assert!(conditions.ranges.is_some() && request.wants_json);
    assert_eq!(request.encodings.in_order().count(), 2);
    let twice = read("GET /a HTTP/1.1\r\nHOSTRange: bytes=0-1\r\nRange: bytes=3-4\r\n\r\n").unwrap();
    assert_eq!(twice.conditions.unwrap().ranges, None);
}

#[test]
fn lines_that_are_not_http_are_refused() {
    for head in [
        // Line ends.
        "GET /a HTTP/1.1\nHost: x\n\n",
        "GET /a HTTP/1.1\r\nHost: x\n\r\n",
        "GET /a HTTP/1.1\r\nHOST\n",
        "\nGET /a HTTP/1.1\r\nHOST\r\n",
        "GET /a HTTP/1.1\rX: y\r\nHOST\r\n",
        "GET /a HTTP/1.1\r\nHOSTX: a\rb\r\n\r\n",
        // Request line.
        "GET  /a HTTP/1.1\r\nHOST\r\n",
        "GET /a  HTTP/1.1\r\nHOST\r\n",
        " GET /a HTTP/1.1\r\nHOST\r\n",
        "GET\t/a HTTP/1.1\r\nHOST\r\n",
        "GET /a HTTP/1.1 \r\nHOST\r\n",
        "GET /a b HTTP/1.1\r\nHOST\r\n",
        "GET /a\r\nHOST\r\n",
        "GET  HTTP/1.1\r\nHOST\r\n",
        "GET /a http/1.1\r\nHOST\r\n",
        "GET /a HTTP/1.10\r\nHOST\r\n",
        "GET /a HTTP/11\r\nHOST\r\n",
        "GET /a HTTP/x.1\r\nHOST\r\n",
        "G(T /a HTTP/1.1\r\nHOST\r\n",
        "GET /a\0 HTTP/1.1\r\nHOST\r\n",
        "GET /a\x7f HTTP/1.1\r\nHOST\r\n",
        "GET /a#f HTTP/1.1\r\nHOST\r\n",
        "GET a HTTP/1.1\r\nHOST\r\n",
        "GET * HTTP/1.1\r\nHOST\r\n",
        "GET /../a HTTP/1.1\r\nHOST\r\n",
        "GET /%00 HTTP/1.1\r\nHOST\r\n",
        "HELLO\r\n\r\n",
        // Header lines.
        "GET /a HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET /a HTTP/1.1\r\nHOSTX: a\r\n b\r\n\r\n",
        "GET /a HTTP/1.1\r\n X: a\r\nHOST\r\n",
        "GET /a HTTP/1.1\r\nHOSTno-colon\r\n\r\n",
        "GET /a HTTP/1.1\r\nHOST: empty-name\r\n\r\n",
        "GET /a HTTP/1.1\r\nHOSTX[y]: a\r\n\r\n",
        "GET /a HTTP/1.1\r\nHOSTX\x01: a\r\n\r\n",
        "GET /a HTTP/1.1\r\nHOSTX: a\0b\r\n\r\n",
        "GET /a HTTP/1.1\r\nHOSTX: a\x1bb\r\n\r\n",
        "GET /a HTTP/1.1\r\nHOSTX\u{ed}: a\r\n\r\n",
        // Host.
        "GET /a HTTP/1.1\r\n\r\n",
        "GET /a HTTP/1.1\r\nHOSTHOST\r\n",
        "GET /a HTTP/1.0\r\nHOSTHOST\r\n",
        "GET /a HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: u@h\r\n\r\n",
        // Framing.
        "GET /a HTTP/1.1\r\nHOSTContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        "POST /a HTTP/1.1\r\nHOSTContent-Length: 1\r\ncontent-length: 2\r\n\r\n",
        "POST /a HTTP/1.1\r\nHOSTContent-Length: 1, 1\r\n\r\n",
        "GET /a HTTP/1.1\r\nHOSTContent-Length: +1\r\n\r\n",
        "GET /a HTTP/1.1\r\nHOSTContent-Length: 0x1\r\n\r\n",
        "GET /a HTTP/1.1\r\nHOSTContent-Length:\r\n\r\n",
        "GET /a HTTP/1.1\r\nHOSTContent-Length: 99999999999999999999\r\n\r\n",
        "HEAD /a HTTP/1.1\r\nHOSTTransfer-Encoding: identity\r\n\r\n",
        "POST /a HTTP/1.1\r\nHOSTTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        "POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        assert_eq!(status(head), Status::BadRequest, "{head:?}");
    }
}

#[test]
fn other_major_versions() {
    for head in [
        "PRI * HTTP/2.0\r\n\r\n",
        "GET /a HTTP/2.0\r\nHOST\r\n",
        "GET /a HTTP/3.0\r\nHOST\r\n",
        "GET /a HTTP/0.9\r\nHOST\r\n",
    ] {
        assert_eq!(status(head), Status::VersionNotSupported, "{head:?}");
    }
}

#[test]
fn limits() {
    let long = "a".repeat(MAX_REQUEST_LINE);
    assert_eq!(status(&format!("GET /{long} HTTP/1.1\r\nHOST\r\n")), Status::UriTooLong);
    assert_eq!(status(&format!("{long} /a HTTP/1.1\r\nHOST\r\n")), Status::BadRequest);
    let long = "a".repeat(MAX_HEAD);
    assert_eq!(status(&format!("GET /a HTTP/1.1\r\nHOSTX: {long}\r\n\r\n")), Status::HeadersTooLarge);
    let many = "X: y\r\n".repeat(MAX_FIELDS);
    assert_eq!(status(&format!("GET /a HTTP/1.1\r\nHOST{many}\r\n")), Status::HeadersTooLarge);
    let some = "X: y\r\n".repeat(MAX_FIELDS - 1);
    assert_eq!(asked(&format!("GET /a HTTP/1.1\r\nHOST{some}\r\n")), get("a"));
    assert_eq!(
        parse("\r\n".repeat(MAX_HEAD).as_bytes()),
        Parsed::Refused(Refusal::bad("nothing but empty lines"))
    );
    // RFC 9112 3: at least 8000 bytes of request line.
    let long = "a".repeat(8000);
    assert_eq!(asked(&format!("GET /{long} HTTP/1.1\r\nHOST\r\n")), get(&long));
}

#[test]
fn what_cannot_become_a_request_is_refused_before_its_end() {
    for beginning in [
        &b"\x16\x03\x01\x02"[..],
        b"GET /a HTTP/2.0\r\n",
        b"GARBAGE\r\n",
        b" GET",
        b"GET /a HTTP/1.1\r\nHost: x\n",
        b"\n",
        b"\rG",
        b"0123456789012345678901234567890123",
    ] {
        assert!(matches!(parse(beginning), Parsed::Refused(_)), "{}", beginning.escape_ascii());
    }
    for beginning in [
        &b""[..],
        b"\r",
        b"\r\n",
        b"\r\n\r",
        b"GET",
        b"GET ",
        b"GET /a HTTP/1.1\r",
        b"GET /a HTTP/1.1\r\nHost",
    ] {
        assert_eq!(parse(beginning), Parsed::Partial, "{}", beginning.escape_ascii());
    }
}
