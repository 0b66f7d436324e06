//! Request methods: those that are served, those that are known, and all others.

/// What a request wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// GET.
    Get,
    /// HEAD: the same answer without its body.
    Head,
    /// OPTIONS: what may be asked here.
    Options,
    /// A method of the registry that no file takes: 405.
    NotAllowed,
    /// CONNECT, which is not allowed either. Its target is an authority, and what follows it is no HTTP.
    Connect,
    /// Not in the registry: 501 (RFC 9110 9.1).
    Unknown,
}

/// What the field Allow says.
pub(crate) const ALLOWED: &str = "GET, HEAD, OPTIONS";

/// The methods of the IANA registry of HTTP methods that this server knows and does not serve.
const REGISTERED: &[&str] = &[
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "TRACE",
    "QUERY",
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "ORDERPATCH",
    "PRI",
    "PROPFIND",
    "PROPPATCH",
    "REBIND",
    "REPORT",
    "SEARCH",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

impl Method {
    /// Reads a method. Letters count as they are (RFC 9110 9.1).
    pub(crate) fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"OPTIONS" => Method::Options,
            b"CONNECT" => Method::Connect,
            other if REGISTERED.iter().any(|known| known.as_bytes() == other) => Method::NotAllowed,
            _ => Method::Unknown,
        }
    }

    /// Whether this server does it.
    pub(crate) fn is_served(self) -> bool {
        matches!(self, Method::Get | Method::Head | Method::Options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods() {
        assert_eq!(Method::of(b"GET"), Method::Get);
        assert_eq!(Method::of(b"POST"), Method::NotAllowed);
        assert_eq!(Method::of(b"PROPFIND"), Method::NotAllowed);
        for unknown in [&b"get"[..], b"GETS", b"", b"M-SEARCH"] {
            assert_eq!(Method::of(unknown), Method::Unknown);
        }
    }
}
