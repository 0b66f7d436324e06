//! The status codes that this server sends, and refusals with their reasons.

/// A status code with its reason phrase (RFC 9110 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// 200
    Ok,
    /// 204
    NoContent,
    /// 206
    PartialContent,
    /// 301
    MovedPermanently,
    /// 304
    NotModified,
    /// 400
    BadRequest,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 408
    RequestTimeout,
    /// 412
    PreconditionFailed,
    /// 413
    ContentTooLarge,
    /// 414
    UriTooLong,
    /// 416
    RangeNotSatisfiable,
    /// 417
    ExpectationFailed,
    /// 431
    HeadersTooLarge,
    /// 500
    InternalServerError,
    /// 501
    NotImplemented,
    /// 505
    VersionNotSupported,
}

impl Status {
    /// The code alone.
    pub(crate) fn code(self) -> u16 {
        self.line().as_bytes()[..3].iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'))
    }

    /// Code and reason phrase as they stand in the status line.
    pub(crate) fn line(self) -> &'static str {
        match self {
            Status::Ok => "200 OK",
            Status::NoContent => "204 No Content",
            Status::PartialContent => "206 Partial Content",
            Status::MovedPermanently => "301 Moved Permanently",
            Status::NotModified => "304 Not Modified",
            Status::BadRequest => "400 Bad Request",
            Status::Forbidden => "403 Forbidden",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed => "405 Method Not Allowed",
            Status::RequestTimeout => "408 Request Timeout",
            Status::PreconditionFailed => "412 Precondition Failed",
            Status::ContentTooLarge => "413 Content Too Large",
            Status::UriTooLong => "414 URI Too Long",
            Status::RangeNotSatisfiable => "416 Range Not Satisfiable",
            Status::ExpectationFailed => "417 Expectation Failed",
            Status::HeadersTooLarge => "431 Request Header Fields Too Large",
            Status::InternalServerError => "500 Internal Server Error",
            Status::NotImplemented => "501 Not Implemented",
            Status::VersionNotSupported => "505 HTTP Version Not Supported",
        }
    }
}

/// A request that is malformed or not allowed. It is answered with `status`, and the connection is closed,
/// because the beginning of the next request is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What the client is told.
    pub(crate) status: Status,
    /// What was wrong, for the log and for the body of the answer.
    pub(crate) why: &'static str,
}

impl Refusal {
    /// A refusal with any status.
    pub(crate) const fn new(status: Status, why: &'static str) -> Self {
        Refusal { status, why }
    }

    /// 400, the most frequent one.
    pub(crate) const fn bad(why: &'static str) -> Self {
        Refusal::new(Status::BadRequest, why)
    }
}
