//! What clients ask for over HTTP, and what is due for it.

use super::files::{self, Choice, Picker};
use super::wrong;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// What an answer must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Due {
    /// Its status.
    pub(super) status: u16,
    /// Bytes of its body; if nothing, whatever the server says, in its own words.
    pub(super) len: Option<u64>,
    /// Where in the pattern the body begins.
    pub(super) offset: u64,
}

impl Due {
    /// The first `body` bytes of the pattern.
    pub(super) fn file(body: u64) -> Due {
        Due { status: 200, len: Some(body), offset: 0 }
    }
}

/// Answers without the content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// 304: the client has the file, and asks as browsers do, by its tag and its time.
    NotModified,
    /// 404.
    NotFound,
}

/// What is asked, request by request.
pub(super) enum Asks {
    /// The same again and again.
    One(Vec<u8>, Due),
    /// One of many files, by chance.
    Many(Vec<Vec<u8>>, Picker),
}

impl Asks {
    /// The file `path` of `body` bytes of the pattern.
    pub(super) fn file(server: SocketAddr, path: &str, body: u64) -> Asks {
        Asks::One(request(server, path, ""), Due::file(body))
    }

    /// Something that is answered without content.
    ///
    /// # Errors
    /// The server says neither tag nor time of a file that is to be asked for again.
    pub(super) fn told(server: SocketAddr, path: &str, told: Told) -> io::Result<Asks> {
        Ok(match told {
            Told::NotFound => {
                let due = Due { status: 404, len: None, offset: 0 };
                Asks::One(request(server, path, ""), due)
            }
            Told::NotModified => {
                let due = Due { status: 304, len: Some(0), offset: 0 };
                Asks::One(request(server, path, &conditions(server, path)?), due)
            }
        })
    }

    /// Files of [`files`].
    pub(super) fn many(server: SocketAddr, choice: Choice) -> Asks {
        let requests = (0..files::COUNT).map(|file| request(server, &files::path(file), ""));
        Asks::Many(requests.collect(), Picker::new(choice))
    }

    /// The next request, and what is due for it.
    pub(super) fn next(&mut self) -> (&[u8], Due) {
        match self {
            Asks::One(request, due) => (request, *due),
            Asks::Many(requests, picker) => {
                let file = picker.next();
                let due = Due { status: 200, len: Some(files::size(file)), offset: files::offset(file) };
                (&requests[file], due)
            }
        }
    }
}

/// A GET, with `more` lines, each with its end.
pub(super) fn request(server: SocketAddr, path: &str, more: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nUser-Agent: drive\r\nAccept: */*\r\n{more}\r\n")
        .into_bytes()
}

/// The lines by which a browser asks whether what it has is still the same.
fn conditions(server: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(super::STALL))?;
    stream.write_all(&request(server, path, "Connection: close\r\n"))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(answer.len());
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let field = |name: &str| {
        let mut fields = head.split("\r\n").filter_map(|line| line.split_once(':'));
        fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    };
    match (field("etag"), field("last-modified")) {
        (Some(tag), Some(time)) => Ok(format!("If-None-Match: {tag}\r\nIf-Modified-Since: {time}\r\n")),
        _ => Err(wrong(format!("neither tag nor time of {path} in `{}`", head.replace("\r\n", "; ")))),
    }
}

/// A head longer than this is no head of ours.
pub(super) const HEAD_MOST: usize = 16 << 10;

/// Reads a head whose status is `status` and which says its length; a 304 has none. Returns the bytes of the
/// body, and of the head.
pub(super) fn parse_head(bytes: &[u8], status: u16) -> io::Result<Option<(u64, usize)>> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return if bytes.len() > HEAD_MOST { Err(wrong("an endless head")) } else { Ok(None) };
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| wrong("a head that is not text"))?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or("");
    let found = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
    if found != Some(status) {
        return Err(wrong(format!("answered `{first}` where {status} was due")));
    }
    if status == 304 {
        return Ok(Some((0, end + 4)));
    }
    let length = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<u64>().ok()).flatten()
    });
    match length {
        Some(length) => Ok(Some((length, end + 4))),
        None => Err(wrong("an answer without Content-Length")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_servers_write_them() {
        let head = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-LENGTH:  12\r\n\r\nbody";
        assert_eq!(parse_head(head, 200).unwrap(), Some((12, head.len() - 4)));
        for cut in 0..head.len() - 4 {
            assert_eq!(parse_head(&head[..cut], 200).unwrap(), None, "cut at {cut}");
        }
        let head = b"HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n";
        assert_eq!(parse_head(head, 304).unwrap(), Some((0, head.len())));
    }

    #[test]
    fn other_answers_are_refused() {
        for head in [
            &b"HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n",
        ] {
            assert!(parse_head(head, 200).is_err());
        }
        assert!(parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", 304).is_err());
        assert!(parse_head(&[b'a'; HEAD_MOST + 1], 200).is_err());
    }
}
