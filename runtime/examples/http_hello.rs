//! HTTP/1.1 with no more than the runtime: `http_hello [ADDR] [CPULIST]`, `127.0.0.1:7000` on all CPUs by
//! default.
//!
//! Every GET gets the same 1 KiB, prepared once. Connections are kept, and requests may be pipelined: those
//! that came together are answered by one send. What is not a GET, has a body or cannot be read is refused,
//! and the connection ends.

use std::net::{Shutdown, SocketAddr};

use annulus::Runtime;
use annulus::net::{TcpListener, TcpStream};
use annulus::numa::plan::CoreSelection;

/// Bytes of a request's head, at most.
const HEAD: usize = 16 << 10;
/// Fields of a head, at most.
const FIELDS: usize = 64;

/// What the bytes at the beginning of the input are.
enum Found {
    /// A GET of so many bytes; whether the connection goes on after it.
    Get(usize, bool),
    /// Not yet a whole head.
    Part,
    /// Something else; the status to refuse it with.
    Bad(&'static str),
}

fn look(input: &[u8]) -> Found {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let len = match request.parse(input) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if input.len() < HEAD => return Found::Part,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Found::Bad("431 Request Header Fields Too Large");
        }
        Err(_) => return Found::Bad("400 Bad Request"),
    };
    let mut goes_on = request.version == Some(1);
    for field in request.headers.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("transfer-encoding") || is("content-length") && field.value != b"0" {
            return Found::Bad("413 Content Too Large");
        }
        if is("connection") {
            for word in field.value.split(|&byte| byte == b',') {
                match word.trim_ascii() {
                    word if word.eq_ignore_ascii_case(b"close") => goes_on = false,
                    word if word.eq_ignore_ascii_case(b"keep-alive") => goes_on = true,
                    _ => {}
                }
            }
        }
    }
    if request.method == Some("GET") {
        Found::Get(len, goes_on)
    } else {
        Found::Bad("405 Method Not Allowed")
    }
}

/// Reads as many requests as `input` has. How many were GETs, how many bytes they took, and how it ends if it
/// does.
fn count(input: &[u8]) -> (usize, usize, Option<&'static str>) {
    let (mut gets, mut at) = (0, 0);
    while at < input.len() {
        match look(&input[at..]) {
            Found::Get(len, goes_on) => {
                (gets, at) = (gets + 1, at + len);
                if !goes_on {
                    return (gets, at, Some(""));
                }
            }
            Found::Part => break,
            Found::Bad(status) => return (gets, at, Some(status)),
        }
    }
    (gets, at, None)
}

async fn serve(stream: TcpStream, answer: &'static [u8]) -> annulus::Result<()> {
    let mut rest: Vec<u8> = Vec::new();
    while let Some(chunk) = stream.recv().await? {
        // What came is read where it lies, unless a request began in an earlier chunk.
        let (gets, end);
        if rest.is_empty() {
            let read;
            (gets, read, end) = count(&chunk);
            rest.extend_from_slice(&chunk[read..]);
        } else {
            rest.extend_from_slice(&chunk);
            let read;
            (gets, read, end) = count(&rest);
            rest.drain(..read);
        }
        drop(chunk);
        match gets {
            0 => {}
            1 => drop(stream.send_all(answer).await?),
            _ => drop(stream.send_all_vectored(vec![answer; gets]).await?),
        }
        if let Some(status) = end {
            if !status.is_empty() {
                let refusal = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.send_all(refusal).await?;
            }
            stream.shutdown(Shutdown::Write)?;
            // Until the client has read it: closing with unread input would reset the connection.
            while stream.recv().await?.is_some() {}
            return Ok(());
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let address: SocketAddr = args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned()).parse()?;
    let cores: CoreSelection = args.next().unwrap_or_else(|| "all".to_owned()).parse()?;
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1024\r\n\r\n{}",
        ".".repeat(1024)
    );
    let answer: &'static [u8] = answer.leak().as_bytes();

    Runtime::builder().cores(cores).build()?.run(move || async move {
        let listener = TcpListener::bind(address)?;
        if annulus::cores::index() == 0 {
            eprintln!("listening on {}", listener.local_addr());
        }
        loop {
            annulus::spawn(serve(listener.accept().await?, answer)).detach();
        }
    })?;
    Ok(())
}
