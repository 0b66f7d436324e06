use super::*;

fn parse(bytes: &[u8]) -> Parsed {
    super::parse(bytes, &mut Vec::new())
}

/// Parses a whole head; `HOST` is short for a good Host line.
fn read(text: &str) -> Result<Request, Refusal> {
    let text = text.replace("HOST", "Host: localhost\r\n");
    match parse(text.as_bytes()) {
        Parsed::Complete(request, taken) => {
            assert_eq!(taken, text.len(), "{text:?}");
            Ok(request)
        }
        Parsed::Partial => panic!("not enough: {text:?}"),
        Parsed::Refused(refusal) => Err(refusal),
    }
}

fn status(text: &str) -> Status {
    match read(text) {
        Ok(request) => panic!("{text:?} was taken as {request:?}"),
        Err(refusal) => refusal.status,
    }
}

fn get(path: &str) -> Ask {
    Ask::Get(Resource::File(path.into()))
}

#[test]
fn plain_requests() {
    let request = read("GET /a.txt HTTP/1.1\r\nHOST\r\n").unwrap();
    assert_eq!(request, Request { ask: get("a.txt"), after: After::Keep, body: 0, part: None });
    let request = read("\r\n\r\nHEAD /a HTTP/1.1\r\nhOsT:localhost\r\nX-Y:  \t z \t\r\n\r\n").unwrap();
    assert_eq!(request.ask, Ask::Head(Resource::File("a".into())));
    assert_eq!(read("GET http://other/a HTTP/1.1\r\nHOST\r\n").unwrap().ask, get("a"));
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
fn other_methods_are_well_formed_but_not_allowed() {
    for head in [
        "POST /../x HTTP/1.1\r\nHOST\r\n",
        "OPTIONS * HTTP/1.1\r\nHOST\r\n",
        "get /a HTTP/1.1\r\nHOST\r\n",
        "M-SEARCH * HTTP/1.1\r\nHOST\r\n",
    ] {
        let request = read(head).unwrap();
        assert_eq!((request.ask, request.after), (Ask::Other, After::Keep), "{head:?}");
    }
    // Their body is not read, so the connection cannot go on after one.
    for head in [
        "POST /a HTTP/1.1\r\nHOSTContent-Length: 9999999999\r\n\r\n",
        "POST /a HTTP/1.1\r\nHOSTTransfer-Encoding: chunked\r\n\r\n",
        "PUT /a HTTP/1.1\r\nHOSTContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
    ] {
        let request = read(head).unwrap();
        assert_eq!((request.ask, request.after), (Ask::Other, After::Close), "{head:?}");
    }
}

#[test]
fn bodies_of_get_are_thrown_away_or_end_the_connection() {
    let request = read("GET /a HTTP/1.1\r\nHOSTContent-Length: 65536\r\n\r\n").unwrap();
    assert_eq!((request.after, request.body), (After::Keep, 65536));
    let request = read("GET /a HTTP/1.1\r\nHOSTContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n").unwrap();
    assert_eq!((request.after, request.body), (After::Close, 1));
    assert_eq!(status("GET /a HTTP/1.1\r\nHOSTContent-Length: 65537\r\n\r\n"), Status::ContentTooLarge);
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
        "GET /a HTTP/1.1\r\nHOSTTransfer-Encoding: chunked\r\n\r\n",
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
    assert_eq!(read(&format!("GET /a HTTP/1.1\r\nHOST{some}\r\n")).unwrap().ask, get("a"));
    assert_eq!(
        parse("\r\n".repeat(MAX_HEAD).as_bytes()),
        Parsed::Refused(Refusal::bad("nothing but empty lines"))
    );
    // RFC 9112 3: at least 8000 bytes of request line.
    let long = "a".repeat(8000);
    assert_eq!(read(&format!("GET /{long} HTTP/1.1\r\nHOST\r\n")).unwrap().ask, get(&long));
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
