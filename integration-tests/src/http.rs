//! A small raw HTTP/1.1 client, for what curl cannot do: pipelining, half requests, resets, looking at single
//! segments.
//!
//! It believes nothing: a response without Content-Length, or with bytes after its end, is an error here.

use crate::digest::{Digest, Sum};
use crate::{net, watch};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

/// The status line and the header fields of a response.
#[derive(Clone, Debug)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// The fields, in order, names as sent.
    pub fields: Vec<(String, String)>,
    /// How many bytes the head took, with its empty line.
    pub bytes: usize,
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its head.
    pub head: Head,
    /// Its body.
    pub body: Vec<u8>,
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    /// Received and not yet used.
    rest: Vec<u8>,
}

impl Head {
    /// The value of the field `name`, in any case of letters. More than one such field is an error of the
    /// server.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "the field {name} comes twice: {self:?}");
        value
    }

    /// Content-Length, in bytes.
    #[track_caller]
    pub fn content_length(&self) -> u64 {
        let value = self.field("content-length").unwrap_or_else(|| panic!("no Content-Length: {self:?}"));
        value.parse().unwrap_or_else(|_| panic!("Content-Length {value:?} is no number"))
    }
}

/// A GET request for `path`, on a connection that stays open.
pub fn get(path: &str) -> String {
    request("GET", path)
}

/// A request without a body, on a connection that stays open.
pub fn request(method: &str, path: &str) -> String {
    request_with(method, path, &[])
}

/// The same, with more `fields`: whole lines without their ends.
pub fn request_with(method: &str, path: &str, fields: &[&str]) -> String {
    let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
}

impl Client {
    /// Connects.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Client {
        Client::over(net::connect(addr).unwrap_or_else(|e| panic!("connecting to {addr}: {e}")))
    }

    /// A client on a connection that is there already.
    pub fn over(stream: TcpStream) -> Client {
        Client { stream, rest: Vec::new() }
    }

    /// The connection.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Gives the connection away.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// What the connection says.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    /// What the connection says.
    pub fn finish_sending(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Asks for `path` and reads the whole answer.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Response {
        match self.try_get(path) {
            Ok(response) => response,
            Err(e) => panic!("GET {path}: {e}"),
        }
    }

    /// Asks for `path` with more `fields` and reads the whole answer.
    #[track_caller]
    pub fn get_with(&mut self, path: &str, fields: &[&str]) -> Response {
        self.send(request_with("GET", path, fields)).expect("sending");
        self.response().expect("an answer")
    }

    /// As [`Client::get`].
    ///
    /// # Errors
    /// The connection failed or ended early.
    pub fn try_get(&mut self, path: &str) -> io::Result<Response> {
        self.send(get(path))?;
        self.response()
    }

    /// Reads a head.
    ///
    /// # Errors
    /// The connection failed or ended first (`UnexpectedEof`), or what came is no head (`InvalidData`).
    pub fn head(&mut self) -> io::Result<Head> {
        let end = loop {
            if let Some(at) = self.rest.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if self.rest.len() > 64 * 1024 {
                return Err(bad("a head of more than 64 KiB"));
            }
            if self.more()? == 0 {
                let what = format!("the connection ended after {} bytes of a head", self.rest.len());
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
            }
        };
        let text: Vec<u8> = self.rest.drain(..end).collect();
        parse_head(&text)
    }

    /// Reads a response to a GET: a head, then as many bytes as its Content-Length says.
    ///
    /// # Errors
    /// As [`Client::head`]; and the connection ended within the body.
    pub fn response(&mut self) -> io::Result<Response> {
        let head = self.head()?;
        let body = self.body(head.content_length() as usize)?;
        Ok(Response { head, body })
    }

    /// Reads exactly `len` bytes.
    ///
    /// # Errors
    /// The connection failed or ended before (`UnexpectedEof`).
    pub fn body(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut body = Vec::with_capacity(len);
        self.take(len as u64, |piece| body.extend_from_slice(piece))?;
        Ok(body)
    }

    /// Reads exactly `len` bytes and keeps their sum only.
    ///
    /// # Errors
    /// As [`Client::body`].
    pub fn body_sum(&mut self, len: u64) -> io::Result<Sum> {
        let mut digest = Digest::new();
        self.take(len, |piece| digest.update(piece))?;
        Ok(digest.sum())
    }

    /// Reads until the server closes and returns how many bytes came. A reset counts as a close.
    ///
    /// # Errors
    /// Nothing came for as long as the watchdog allows, or another failure of the connection.
    pub fn read_to_close(&mut self) -> io::Result<u64> {
        Ok(self.bytes_to_close()?.len() as u64)
    }

    /// As [`Client::read_to_close`], with the bytes.
    ///
    /// # Errors
    /// As there.
    pub fn bytes_to_close(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.more() {
                Ok(0) => return Ok(std::mem::take(&mut self.rest)),
                Ok(_) => {}
                Err(e) if net::is_gone(&e) => return Ok(std::mem::take(&mut self.rest)),
                Err(e) => return Err(e),
            }
        }
    }

    /// Ends the test if the server sent more than was read, or does not close now.
    #[track_caller]
    pub fn must_be_closed(&mut self) {
        match self.bytes_to_close() {
            Ok(bytes) if bytes.is_empty() => {}
            Ok(bytes) => panic!("bytes after the last response: {:?}", String::from_utf8_lossy(&bytes)),
            Err(e) => panic!("the server did not close the connection: {e}"),
        }
    }

    fn take(&mut self, len: u64, mut give: impl FnMut(&[u8])) -> io::Result<()> {
        let held = self.rest.len().min(len as usize);
        give(&self.rest[..held]);
        self.rest.drain(..held);
        let mut left = len - held as u64;
        let mut block = vec![0; (256 * 1024).min(left as usize)];
        while left > 0 {
            let now = left.min(block.len() as u64) as usize;
            match self.stream.read(&mut block[..now]) {
                Ok(0) => {
                    let what = format!("the connection ended {left} bytes before the end of a body of {len}");
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
                }
                Ok(n) => {
                    give(&block[..n]);
                    left -= n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(in_words(e)),
            }
        }
        Ok(())
    }

    fn more(&mut self) -> io::Result<usize> {
        let mut block = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut block) {
                Ok(n) => {
                    self.rest.extend_from_slice(&block[..n]);
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(in_words(e)),
            }
        }
    }
}

/// A read that the watchdog ended says EAGAIN; this says what it means.
fn in_words(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => {
            io::Error::new(io::ErrorKind::TimedOut, format!("nothing came for {:?}", watch::LIMIT))
        }
        _ => error,
    }
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn parse_head(text: &[u8]) -> io::Result<Head> {
    let bytes = text.len();
    let text = std::str::from_utf8(text).map_err(|_| bad("a head that is no UTF-8"))?;
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or_else(|| bad(format!("no HTTP/1.1 status line: {first:?}")))?;
    let fields = lines
        .map(|line| {
            let (name, value) =
                line.split_once(':').ok_or_else(|| bad(format!("no header field: {line:?}")))?;
            Ok((name.to_owned(), value.trim().to_owned()))
        })
        .collect::<io::Result<_>>()?;
    Ok(Head { status, fields, bytes })
}
